"""How often a call is sent again, and after which pause."""

import pytest

from lrq.calls.outcomes import Kind, Outcome
from lrq.calls.tries import Patience, Tries
from lrq.domain.errors import CallFailed

PATIENCE = Patience(failures=3, throttled=4, probes=5, first_pause=1.0, longest_pause=3.0, longest_obeyed=60.0)


def outcome(kind: Kind, **fields: float) -> Outcome:
    return Outcome(kind=kind, reason="HTTP 500: down", **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(("kind", "most"), [("failed", 3), ("throttled", 4), ("probed", 5)])
def test_each_kind_of_failure_has_a_bound_of_its_own(kind: Kind, most: int) -> None:
    """The failure that reaches it ends the call, and says how often it was tried."""
    tries = Tries(PATIENCE)
    for _ in range(most - 1):
        tries.pause(outcome(kind))
    with pytest.raises(CallFailed, match=rf"HTTP 500: down \({most} tries\)"):
        tries.pause(outcome(kind))


def test_a_permit_grows_old_only_so_often() -> None:
    """A second is what ways may differ by; a ledger that is always slow lets calls through all the same."""
    tries = Tries(PATIENCE)
    assert [tries.is_stale(age) for age in (0.0, 0.9, 1.1)] == [False, False, True]
    assert [tries.is_stale(5.0) for _ in range(6)] == [True] * 4 + [False] * 2


def test_an_outage_uses_up_none_of_a_calls_own_tries() -> None:
    """Two failures before it and none after: the third of its own is the last."""
    tries = Tries(PATIENCE)
    for kind in ("failed", "probed", "probed", "probed", "failed"):
        tries.pause(outcome(kind))  # type: ignore[arg-type]
    with pytest.raises(CallFailed, match=r"\(6 tries\)"):
        tries.pause(outcome("failed"))


def test_pauses_double_up_to_the_longest_and_probes_leave_them_to_the_limiter() -> None:
    """Half of it at least, so that calls that failed together do not come back together."""
    tries = Tries(Patience(failures=9, probes=9, first_pause=1.0, longest_pause=3.0))
    pauses = [tries.pause(outcome("failed")) for _ in range(4)]
    for pause, most in zip(pauses, (1.0, 2.0, 3.0, 3.0), strict=True):
        assert most / 2 <= pause <= most
    assert 0.5 <= tries.pause(outcome("probed")) <= 1.0


def test_what_the_server_asks_for_is_obeyed_within_bounds() -> None:
    """Ten seconds are ten seconds; a day is bounded, and more so where the limiter spaces the probes anyway."""
    assert 10.0 <= Tries(PATIENCE).pause(outcome("throttled", retry_after=10.0)) <= 10.1
    assert 60.0 <= Tries(PATIENCE).pause(outcome("throttled", retry_after=86_400.0)) <= 60.1
    assert 3.0 <= Tries(PATIENCE).pause(outcome("probed", retry_after=86_400.0)) <= 3.1
