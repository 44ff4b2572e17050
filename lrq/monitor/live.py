"""The last minute, as the workers tell it in `judge-usage` events over Celery's event bus.

While a worker makes calls it sends one event a second with what it bought since its last, summed:

    usage   [{"run": 1, "role": "judge", "endpoint": "default", "dimension": "faithfulness", "calls": 12}]

where run is the run's number in the ledger. Events are lost while nobody listens: sums come from the ledger.
"""

import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

USAGE_EVENT = "judge-usage"
WINDOW = 60.0  # seconds that a rate looks back
MAX_KEPT = 100_000  # lines of usage; ten workers with twenty lines a second keep 12,000


class Source(NamedTuple):
    """Where usage comes from."""

    run: int
    role: str
    endpoint: str
    dimension: str


class _Line(NamedTuple):
    at: float
    source: Source
    calls: int


class Live:
    """Folds events into rates. `clock` gives seconds; arrival counts, so that clocks need not agree."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._since = clock()
        self._kept: deque[_Line] = deque(maxlen=MAX_KEPT)

    def add(self, event: Mapping[str, Any]) -> None:
        """Take one event; one that is not of the form above is dropped."""
        now = self._clock()
        try:
            self._kept.extend([_read(now, line) for line in event["usage"]])
        except (KeyError, TypeError, ValueError, OverflowError):
            return
        self._forget(now)

    def rates(self) -> dict[Source, float]:
        """Calls per minute, over the last minute or since we listen."""
        now = self._clock()
        self._forget(now)
        minutes = max(1.0, min(WINDOW, now - self._since)) / 60.0
        sums: Counter[Source] = Counter()
        for line in self._kept:
            sums[line.source] += line.calls
        return {source: calls / minutes for source, calls in sums.items()}

    def _forget(self, now: float) -> None:
        while self._kept and self._kept[0].at <= now - WINDOW:
            self._kept.popleft()


def _read(now: float, line: Mapping[str, Any]) -> _Line:
    source = Source(int(line["run"]), str(line["role"]), str(line["endpoint"]), str(line["dimension"]))
    return _Line(now, source, int(line["calls"]))
