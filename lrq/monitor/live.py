"""The last minute, as the judge workers tell it in `judge-usage` events.

A worker sends one event a second over Celery's event bus while it makes calls:

    usage   what it bought since its last event, summed: [{"run": 1, "role": "judge", "endpoint": "default",
            "dimension": "faithfulness", "calls": 12, "tokens": 30100}]; run is the run's number in the ledger
    lanes   how its endpoints stand now: [{"role": "judge", "endpoint": "default", "waiting": 40, "in_flight": 12,
            "rpm": 500, "tpm": null, "concurrency": 64}]; limits as in force, null where there is none

Events are lost while nobody listens, and tell only of this moment: sums come from the ledger.
"""

import time
from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

USAGE_EVENT = "judge-usage"
WINDOW = 60.0  # seconds that a rate looks back
FRESH = 5.0  # seconds after which a worker that has fallen silent no longer waits for anything
MAX_KEPT = 100_000  # lines of usage; ten workers with twenty lines a second keep 12,000


class Lane(NamedTuple):
    """One endpoint in one role."""

    role: str
    endpoint: str


class Source(NamedTuple):
    """Where usage comes from."""

    run: int
    role: str
    endpoint: str
    dimension: str

    @property
    def lane(self) -> Lane:
        return Lane(self.role, self.endpoint)


@dataclass(frozen=True, kw_only=True)
class Rate:
    calls: float = 0.0  # per minute
    tokens: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Standing:
    """How one endpoint stands, summed over the workers; the limits are those last told."""

    waiting: int = 0
    in_flight: int = 0
    rpm: int | None = None
    tpm: int | None = None
    concurrency: int | None = None


@dataclass(frozen=True)
class _Kept:
    at: float
    source: Source
    calls: int
    tokens: int


class Live:
    """Folds events into rates and standings. `clock` gives seconds; arrival counts, so that clocks need not agree."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._since = clock()
        self._kept: deque[_Kept] = deque(maxlen=MAX_KEPT)
        self._told: dict[str, tuple[float, dict[Lane, Standing]]] = {}  # worker -> when, what

    def add(self, event: Mapping[str, Any]) -> None:
        """Take one event; one that is not of the form above is dropped."""
        now = self._clock()
        try:
            kept = [_kept(now, line) for line in event["usage"]]
            standings = dict(_standing(line) for line in event["lanes"])
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError):
            return
        self._kept.extend(kept)
        self._told[str(event.get("hostname"))] = (now, standings)
        self._forget(now)

    def rates(self) -> dict[Source, Rate]:
        """Calls and tokens per minute, over the last minute or since we listen."""
        now = self._clock()
        self._forget(now)
        minutes = max(1.0, min(WINDOW, now - self._since)) / 60.0
        sums: dict[Source, list[int]] = defaultdict(lambda: [0, 0])
        for kept in self._kept:
            sums[kept.source][0] += kept.calls
            sums[kept.source][1] += kept.tokens
        return {
            source: Rate(calls=calls / minutes, tokens=tokens / minutes) for source, (calls, tokens) in sums.items()
        }

    def standings(self) -> dict[Lane, Standing]:
        self._forget(self._clock())
        found: dict[Lane, Standing] = {}
        for _, standings in sorted(self._told.values(), key=lambda told: told[0]):
            for lane, standing in standings.items():
                found[lane] = _sum(found.get(lane, Standing()), standing)
        return found

    def _forget(self, now: float) -> None:
        while self._kept and self._kept[0].at <= now - WINDOW:
            self._kept.popleft()
        self._told = {worker: told for worker, told in self._told.items() if told[0] >= now - FRESH}


def _kept(now: float, line: Mapping[str, Any]) -> _Kept:
    source = Source(int(line["run"]), str(line["role"]), str(line["endpoint"]), str(line["dimension"]))
    return _Kept(now, source, int(line["calls"]), int(line["tokens"]))


def _standing(line: Mapping[str, Any]) -> tuple[Lane, Standing]:
    return Lane(str(line["role"]), str(line["endpoint"])), Standing(
        waiting=int(line["waiting"]),
        in_flight=int(line["in_flight"]),
        rpm=_limit(line["rpm"]),
        tpm=_limit(line["tpm"]),
        concurrency=_limit(line["concurrency"]),
    )


def _limit(value: Any) -> int | None:
    return None if value is None else int(value)


def _sum(one: Standing, later: Standing) -> Standing:
    return Standing(
        waiting=one.waiting + later.waiting,
        in_flight=one.in_flight + later.in_flight,
        rpm=later.rpm,
        tpm=later.tpm,
        concurrency=later.concurrency,
    )
