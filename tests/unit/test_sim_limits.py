"""Limits are a strict sliding log; faults follow from the seed."""

from collections import Counter

import pytest

from lrq.sim.faults import FAULTS, fault, unreadable
from lrq.sim.limits import Limits, SlidingLog, _duration
from lrq.sim.options import Options


def test_no_window_ever_holds_more_than_the_limit() -> None:
    """A client that always comes exactly when it was told to is admitted, and at most 10 per second."""
    log, now, times = SlidingLog(window=1.0, limit=10), 0.0, []
    for step in range(200):
        wait = log.wait(now, 1)
        now += wait + 1e-9 if wait else 0.013 * (step % 7)
        assert log.wait(now, 1) == 0
        log.add(now, 1)
        times.append(now)
    assert log.worst == 10
    assert max(sum(start <= t < start + 1.0 for t in times) for start in times) == 10


def test_tokens_wait_until_enough_have_left() -> None:
    """5 + 3 of 10 used: 4 more fit when the 5 have left, after 60 s; 2 more fit at once."""
    log = SlidingLog(window=60.0, limit=10)
    log.add(0.0, 5)
    log.add(1.0, 3)
    assert (log.wait(2.0, 2), log.wait(2.0, 4), log.wait(2.0, 8)) == (0, 58, 59)
    assert log.wait(2.0, 11) == 60  # never fits
    assert log.reset(2.0) == 59


@pytest.mark.parametrize(
    ("options", "tokens", "in_flight", "limit"),
    [
        (Options(rpm=1), 1, 0, "requests"),
        (Options(tpm=10), 6, 0, "tokens"),
        (Options(concurrency=2), 1, 2, "concurrency"),
        (Options(quota=1), 1, 0, "quota"),
    ],
)
def test_each_limit_refuses_by_its_name(options: Options, tokens: int, in_flight: int, limit: str) -> None:
    """The second request is one too many."""
    limits = Limits(options)
    assert limits.admit(0.0, tokens, 0) is None
    refusal = limits.admit(0.0, tokens, in_flight)
    assert refusal is not None
    assert refusal.limit == limit


def test_a_refused_request_uses_nothing_up() -> None:
    """Being refused for tokens leaves the request log as it was."""
    limits = Limits(Options(rpm=5, tpm=10))
    assert limits.admit(0.0, 10, 0) is None
    assert all(limits.admit(1.0, 1, 0) for _ in range(20))
    assert limits.headers(1.0)["x-ratelimit-remaining-requests"] == "4"


@pytest.mark.parametrize(("window", "header"), [(60.0, "58"), (5.0, "2.501")])
def test_retry_after_is_whole_seconds_but_for_short_windows(window: float, header: str) -> None:
    """As real servers, rounded up; a test's window of seconds needs decimals."""
    limits = Limits(Options(rpm=1, window=window))
    limits.admit(0.0, 1, 0)
    refusal = limits.admit(2.5, 1, 0)
    assert refusal is not None
    assert limits.retry_after(refusal) == {"Retry-After": header}
    assert Limits(Options(rpm=1, headers=False)).retry_after(refusal) == {}


@pytest.mark.parametrize(("seconds", "text"), [(0.0, "0ms"), (0.0123, "12ms"), (1.5, "1.5s"), (90, "1m30s")])
def test_durations_are_written_as_servers_do(seconds: float, text: str) -> None:
    """Milliseconds, seconds, minutes."""
    assert _duration(seconds) == text


def test_faults_come_at_their_rates_and_again_the_same() -> None:
    """2,000 bodies at 10 % each: every fault between 7 and 13 %, the same in a second run, others by another seed."""
    rates = dict.fromkeys(FAULTS, 0.1)
    bodies = [str(number).encode() for number in range(2000)]
    found = [fault(rates, 1, body, 0) for body in bodies]
    assert all(140 < Counter(found)[name] < 260 for name in FAULTS)
    assert found == [fault(rates, 1, body, 0) for body in bodies]
    assert found != [fault(rates, 2, body, 0) for body in bodies]


def test_a_retry_can_succeed() -> None:
    """The draw of a body's second delivery is another one."""
    rates = {"500": 0.5}
    first = [body for body in map(bytes, range(100)) if fault(rates, 0, body, 0)]
    assert 0 < sum(fault(rates, 0, body, 1) is None for body in first) < len(first)


def test_what_is_unreadable_to_an_extraction_is_a_notice() -> None:
    """Any other prose would be taken as extracted points."""
    assert {unreadable("extraction", 0, bytes(n), 0)[0] for n in range(50)} == set("ITE抱")
