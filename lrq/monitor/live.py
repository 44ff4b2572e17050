"""The last quarter of an hour, as workers report it in `judge-usage` events over Celery's event bus.

While a worker makes calls it sends one event a second with the sums since its last:

    usage   [{"run": 1, "role": "judge", "endpoint": "default", "dimension": "faithfulness", "calls": 12, …}]

where run is the run's number in the ledger, and the figures are those of FIGURES, each 0 where it is missing. Events
are lost while nobody listens: totals come from the ledger.
"""

import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

USAGE_EVENT = "judge-usage"
WINDOW = 60.0  # seconds that a rate looks back
HISTORY = 900  # seconds that curves look back
POINT = 5  # seconds of one point of a curve
MAX_SOURCES = 200  # in one second; anyone on the bus can send
FIGURES = (
    "calls",
    "reused",
    "throttled",
    "failed",
    "reasks",
    "prompt_tokens",
    "cached_tokens",
    "completion_tokens",
    "cost",  # micro-units of the currency
    "latency_ms",  # summed over calls
)


class Source(NamedTuple):
    """Where usage comes from."""

    run: int
    role: str
    endpoint: str
    dimension: str


class Live:
    """Folds events into rates and curves.

    Args:
        clock: gives seconds; an event counts when it arrives, so that clocks need not agree.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._since = clock()
        self._seconds: deque[tuple[int, dict[Source, Counter[str]]]] = deque()
        self.totals: Counter[str] = Counter()  # of FIGURES, since we listen

    def add(self, event: Mapping[str, Any]) -> None:
        """Take one event; one that is not of the form above is dropped."""
        try:
            lines = [(_read_source(line), _read_figures(line)) for line in event["usage"]]
        except (KeyError, TypeError, ValueError, OverflowError):
            return
        sums = self._current_second()
        for source, figures in lines:
            if source in sums or len(sums) < MAX_SOURCES:
                sums.setdefault(source, Counter()).update(figures)
                self.totals.update(figures)

    def rates(self) -> dict[Source, float]:
        """Return calls per minute, over the last minute or since we listen."""
        now = self._clock()
        minutes = max(1.0, min(WINDOW, now - self._since)) / 60.0
        calls: Counter[Source] = Counter()
        for second, sums in reversed(self._seconds):
            if second <= now - WINDOW:
                break
            for source, figures in sums.items():
                calls[source] += figures["calls"]
        return {source: number / minutes for source, number in calls.items()}

    def curves(self, run: int | None = None) -> dict[str, Any]:
        """Return what happened in each POINT seconds of the last HISTORY, oldest first, of one run or of all.

        The last point is the last that is complete. Rates are per minute, money in the user's currency, latency the
        mean in milliseconds, null where there was no call.
        """
        end = int(self._clock()) // POINT * POINT
        start = max(end - HISTORY, int(self._since) // POINT * POINT)
        sums = [Counter[str]() for _ in range(start, end, POINT)]
        for second, sources in self._seconds:
            if start <= second < end:
                for source, figures in sources.items():
                    if run in {None, source.run}:
                        sums[(second - start) // POINT].update(figures)
        return {"seconds": POINT, "points": [_point(figures) for figures in sums]}

    def _current_second(self) -> dict[Source, Counter[str]]:
        now = int(self._clock())
        while self._seconds and self._seconds[0][0] < now - HISTORY - POINT:
            self._seconds.popleft()
        if not self._seconds or self._seconds[-1][0] != now:
            self._seconds.append((now, {}))
        return self._seconds[-1][1]


def _point(figures: Counter[str]) -> dict[str, float | None]:
    per_minute = 60 / POINT
    calls, prompt = figures["calls"], figures["prompt_tokens"]
    return {
        "calls": calls * per_minute,
        "tokens": (prompt + figures["completion_tokens"]) * per_minute,
        "cost": figures["cost"] / 1e6 * per_minute,
        "latency_ms": round(figures["latency_ms"] / calls) if calls else None,
        "throttled": figures["throttled"] * per_minute,
        "failed": figures["failed"] * per_minute,
        "reasks": figures["reasks"] * per_minute,
        "reused": figures["reused"] * per_minute,
        "cached": round(figures["cached_tokens"] / prompt, 3) if prompt else None,
    }


def _read_source(line: Mapping[str, Any]) -> Source:
    return Source(int(line["run"]), str(line["role"]), str(line["endpoint"]), str(line["dimension"]))


def _read_figures(line: Mapping[str, Any]) -> Counter[str]:
    if not any(name in line for name in FIGURES):
        raise ValueError("no figure")
    return Counter({name: int(line.get(name, 0)) for name in FIGURES})
