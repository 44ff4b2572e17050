"""How often one call may fail, and how long to wait before it is sent again."""

import random
from dataclasses import dataclass

from lrq.calls.outcomes import Outcome
from lrq.domain.errors import CallFailed


@dataclass(frozen=True, kw_only=True)
class Patience:
    """Bounds on one call's deliveries; times in seconds."""

    failures: int = 8  # 5xx, timeouts, resets; at 30 % faults seven calls in 100,000 reach it
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
        self._failures = 0
        self._throttled = 0
        self._waited = 0.0
        self.failed_at: set[str] = set()  # lanes of a pool; others are tried first

    def look_again(self) -> float:
        """Seconds until the next look at a call that is held."""
        patience = self._patience
        seconds = min(patience.longest_look, max(patience.first_look, self._waited / 10)) * random.uniform(0.5, 1.5)
        self._waited += seconds
        return seconds

    def pause(self, outcome: Outcome) -> float:
        """Seconds to wait. Raises CallFailed when the tries are used up."""
        if outcome.kind == "throttled":
            self._throttled += 1
        else:
            self._failures += 1
        patience, tried = self._patience, self._failures + self._throttled
        if self._failures >= patience.failures or self._throttled >= patience.throttled:
            raise CallFailed(f"{outcome.reason} ({tried} tries)")
        if outcome.retry_after is not None:
            return min(outcome.retry_after, patience.longest_obeyed) + random.random() * 0.1
        return min(patience.longest_pause, patience.first_pause * 2.0 ** (tried - 1)) * random.uniform(0.5, 1)
