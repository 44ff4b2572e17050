"""How often one call may fail, and how long to wait before it is sent again."""

import random
from collections import Counter
from dataclasses import dataclass

from lrq.calls.limiter import SLACK
from lrq.calls.outcomes import Kind, Outcome
from lrq.domain.errors import CallFailed

_MOST_ADAPTED = 8  # forms that one call is asked in
_MOST_POSTPONED = 3  # denials of one call, after which nobody else is waited for
_MOST_STALE = 5  # permits that one call lets go because they have grown old


@dataclass(frozen=True, kw_only=True)
class Patience:
    """Bounds on one call's deliveries; times in seconds."""

    failures: int = 8  # 5xx, timeouts, resets; at 30 % faults seven calls in 100,000 reach it
    probes: int = 120  # failures at an endpoint that only fails: an hour for a call that waits alone
    throttled: int = 30  # 429s: the limiter has slowed down long before
    first_pause: float = 0.5  # 0.5 s, 1 s, 2 s … 30 s, each times a random factor
    longest_pause: float = 30.0
    longest_obeyed: float = 300.0  # a Retry-After beyond this is bounded; the call is then tried again
    first_look: float = 0.2  # how soon to look whether another process has the reply, or the budget has room …
    longest_look: float = 2.0  # … and how late at most: a tenth of what was waited so far


class Tries:
    """The failed deliveries of one call, and its waits for others."""

    def __init__(self, patience: Patience) -> None:
        self._patience = patience
        self._failed: Counter[Kind] = Counter()
        self._waited = 0.0
        self._stale = 0
        self._adapted = 0
        self.failed_at: set[str] = set()  # lanes of a pool; others are tried first

    def may_adapt(self) -> bool:
        """Say whether the call may be asked in another form once more; to ask counts as a use."""
        self._adapted += 1
        return self._adapted <= _MOST_ADAPTED

    @property
    def throttled(self) -> int:
        return self._failed["throttled"]

    def may_postpone(self) -> bool:
        """Say whether a call that was denied may wait until it is seen how others fare."""
        return self._failed["denied"] < _MOST_POSTPONED

    def look_again(self) -> float:
        """Return the seconds until the next look at a call that is held."""
        patience = self._patience
        seconds = min(patience.longest_look, max(patience.first_look, self._waited / 10)) * random.uniform(0.5, 1.5)
        self._waited += seconds
        return seconds

    def is_stale(self, age: float) -> bool:
        """Say whether a permit of that `age`, in seconds, is too old to be used.

        Not for ever, lest a slow ledger let no call through.
        """
        self._stale += age > SLACK
        return age > SLACK and self._stale <= _MOST_STALE

    def pause(self, outcome: Outcome) -> float:
        """Note a delivery that failed with this `outcome`; returns the seconds to wait before the next.

        The server's `retry_after` goes before our own steps, up to a bound. Raises CallFailed when the tries are used
        up.
        """
        self._failed[outcome.kind] += 1
        patience, failed = self._patience, self._failed
        if (
            failed["failed"] >= patience.failures
            or failed["throttled"] >= patience.throttled
            or failed["probed"] >= patience.probes
        ):
            raise CallFailed(f"{outcome.reason} ({failed.total()} tries)")
        if outcome.retry_after is not None:
            longest = patience.longest_pause if outcome.kind == "probed" else patience.longest_obeyed
            return min(outcome.retry_after, longest) + random.random() * 0.1
        doublings = 0 if outcome.kind == "probed" else failed["failed"] + failed["throttled"] + failed["denied"] - 1
        return min(patience.longest_pause, patience.first_pause * 2.0**doublings) * random.uniform(0.5, 1)
