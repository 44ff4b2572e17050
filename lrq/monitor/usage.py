"""What all paid calls come to: totals from the ledger, joined with live rates and with how the limits stand."""

import threading
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import sqlalchemy as sa

from lrq.calls.limiter import LaneView
from lrq.config import Endpoint, Settings
from lrq.domain.records import ROLES
from lrq.ledger import Ledger
from lrq.ledger.changes import Change, latest_changes, limits_by_lane
from lrq.ledger.runs import Run, UsageRow, all_runs, item_states, usage_of
from lrq.ledger.work import TaskAtWork, tasks_at_work
from lrq.monitor.live import Live, Source

READ_EVERY = 1.0  # seconds between two questions to the ledger, however many browsers look
MAX_TASKS = 20  # at work, shown
_COUNTS = ("calls", "reused", "failed", "unknown", "unpriced", "latency_ms")
_TOKENS = ("prompt_tokens", "completion_tokens", "cached_tokens")


@dataclass(frozen=True, kw_only=True)
class Totals:
    """The ledger's totals at one moment."""

    at: float = 0.0  # seconds since 1970, UTC
    runs: Sequence[Run] = ()
    usage: Sequence[UsageRow] = ()
    items: Mapping[int, Mapping[str, int]] = field(default_factory=dict)  # by run: state → number
    tasks: Sequence[TaskAtWork] = ()
    changes: Sequence[Change] = ()
    limits: Mapping[str, Mapping[str, int]] = field(default_factory=dict)  # by lane, set while runs work
    error: str = ""  # why they are not newer


class Reader:
    """Reads the totals, at most once a second; safe to share between threads."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._lock = threading.Lock()
        self._next = 0.0
        self._last = Totals()

    def read(self) -> Totals:
        """Return the totals; where the ledger is away, the last ones with the reason."""
        with self._lock:
            if time.monotonic() >= self._next:
                self._last = self._read()
                self._next = time.monotonic() + READ_EVERY
            return self._last

    def expire(self) -> None:
        """Ask the ledger anew when the totals are next read: something was changed."""
        self._next = 0.0

    def _read(self) -> Totals:
        try:
            with self._ledger.read() as tx:
                stored = all_runs(tx)
                # A run at its end keeps its counts: they are counted once.
                totals = {run.id: self._last.items.get(run.id) for run in stored if run.state == "done"}
                return Totals(
                    at=time.time(),
                    runs=stored,
                    usage=usage_of(tx),
                    items={run.id: totals.get(run.id) or item_states(tx, run.id) for run in stored},
                    tasks=tasks_at_work(tx, MAX_TASKS),
                    changes=latest_changes(tx),
                    limits=limits_by_lane(tx),
                )
        except sa.exc.SQLAlchemyError as error:
            cause = str(getattr(error, "orig", None) or error).splitlines()[0]
            return replace(self._last, error=f"the ledger cannot be read: {cause}")


def endpoints_by_lane(settings: Settings) -> dict[str, tuple[str, Endpoint]]:
    """Return role and endpoint under the name of their lane in the limiter."""
    pairs = [(role, endpoint) for role in ROLES for endpoint in settings.endpoints(role)]
    return {settings.lane(role, endpoint): (role, endpoint) for role, endpoint in pairs}


def picture(
    totals: Totals,
    live: Live,
    lanes: Mapping[str, LaneView],
    endpoints: Mapping[str, tuple[str, Endpoint]],
    *,
    run: str = "",
) -> dict[str, Any]:
    """Return all that the page shows and `/api/judge/usage` answers, of one run or of all.

    Money is in the user's currency, null where it is unpriced; rates are per minute, times seconds since 1970.
    """
    number = next((entry.id for entry in totals.runs if entry.name == run), 0) if run else None
    return {
        "at": totals.at,
        "error": totals.error,
        "runs": [_run(entry, totals.items.get(entry.id, {})) for entry in totals.runs],
        "endpoints": [
            _endpoint(name, lanes.get(name), endpoints.get(name), totals.limits.get(name, {}))
            for name in sorted(endpoints.keys() | lanes.keys())
        ],
        "usage": [row for row in _usage(totals, live.rates()) if not run or row["run"] == run],
        "tasks": [vars(task) for task in totals.tasks if not run or task.run == run],
        "changes": [vars(change) for change in totals.changes],
        "curves": live.curves(number),
        "live": {name: live.totals[name] for name in ("throttled", "reasks")},
    }


def _run(run: Run, states: Mapping[str, int]) -> dict[str, Any]:
    return {
        "run": run.name,
        "state": run.state,
        "reason": run.reason,
        "items": sum(states.values()),
        "ended": states.get("done", 0) + states.get("failed", 0),
        "failed": states.get("failed", 0),
        "spent": run.spent_cost / 1e6,
        "reserved": run.reserved_cost / 1e6,
        "max_cost": None if run.max_cost is None else run.max_cost / 1e6,
        "spent_tokens": run.spent_tokens,
        "max_tokens": run.max_tokens,
    }


def _endpoint(
    name: str, lane: LaneView | None, named: tuple[str, Endpoint] | None, changed: Mapping[str, int]
) -> dict[str, Any]:
    role, _, tail = name.partition(".")
    names = {"role": role, "endpoint": named[1].name if named else tail, "model": named[1].model if named else ""}
    figures = _standing(lane) if lane else _unused(named[1] if named else None, changed)
    return {"lane": name, **names, **figures, "changed": dict(changed)}


def _standing(lane: LaneView) -> dict[str, Any]:
    return {
        "calls_per_minute": lane.requests.used,
        "tokens_per_minute": lane.tokens.used,
        "rpm": _whole(lane.requests.limit),
        "tpm": _whole(lane.tokens.limit),
        "concurrency": lane.concurrency,
        "in_flight": lane.in_flight,
        "waiting": lane.waiting,
        "paused": round(lane.paused, 1),
        "probing": lane.probing,
        "learned": lane.requests.learnt or lane.tokens.learnt,
    }


def _unused(endpoint: Endpoint | None, changed: Mapping[str, int]) -> dict[str, Any]:
    """Return the figures of an endpoint that nobody has called yet, or whose limiter cannot be asked."""
    nothing = dict.fromkeys(("calls_per_minute", "tokens_per_minute", "in_flight", "waiting", "paused"), 0)
    limits = {name: getattr(endpoint, name, None) for name in ("rpm", "tpm", "concurrency")}
    return {**nothing, **limits, **changed, "probing": False, "learned": False}


def _whole(limit: float | None) -> int | None:
    return None if limit is None else int(limit)


def _usage(totals: Totals, rates: Mapping[Source, float]) -> list[dict[str, Any]]:
    """Return a row for each run, role, endpoint, model and dimension: kinds of prompt are summed."""
    numbers = {run.name: run.id for run in totals.runs}
    groups: dict[tuple[str, ...], list[UsageRow]] = defaultdict(list)
    for row in totals.usage:
        groups[row.run, row.role, row.endpoint, row.model, row.dimension].append(row)
    summed = []
    for (run, role, endpoint, model, dimension), rows in groups.items():
        rate = rates.get(Source(numbers.get(run, 0), role, endpoint, dimension), 0.0)
        names = {"run": run, "role": role, "endpoint": endpoint, "model": model, "dimension": dimension}
        summed.append({**names, **_sums(rows), "calls_per_minute": round(rate, 1)})
    return summed


def _sums(rows: Sequence[UsageRow]) -> dict[str, Any]:
    counts = {name: sum(getattr(row, name) for row in rows) for name in (*_COUNTS, *_TOKENS)}
    priced = counts["calls"] == 0 or counts["unpriced"] < counts["calls"]
    return {
        **counts,
        "cost": sum(row.cost for row in rows) / 1e6 if priced else None,
        "mean_latency_ms": round(counts["latency_ms"] / counts["calls"]) if counts["calls"] else None,
    }
