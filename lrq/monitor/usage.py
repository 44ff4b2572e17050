"""What all paid calls came to: sums from the ledger, joined with the last minute and with how the limits stand."""

import threading
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import sqlalchemy as sa

from lrq.calls.limiter import LaneView
from lrq.config import Endpoint, Settings
from lrq.domain.records import ROLES
from lrq.ledger import Ledger
from lrq.ledger.runs import Run, UsageRow, all_runs, usage_of
from lrq.monitor.live import Source

READ_EVERY = 1.0  # seconds between two questions to the ledger, however many browsers look
_COUNTS = ("calls", "reused", "failed", "unknown", "unpriced", "latency_ms")
_TOKENS = ("prompt_tokens", "completion_tokens", "cached_tokens")


@dataclass(frozen=True, kw_only=True)
class Totals:
    """The ledger's sums at one moment."""

    at: float = 0.0  # seconds since 1970, UTC
    runs: Sequence[Run] = ()
    usage: Sequence[UsageRow] = ()
    error: str = ""  # why they are not newer


class Reader:
    """Reads the sums, at most once a second; safe to share between threads."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._lock = threading.Lock()
        self._next = 0.0
        self._last = Totals()

    def read(self) -> Totals:
        with self._lock:
            if time.monotonic() >= self._next:
                self._last = self._read()
                self._next = time.monotonic() + READ_EVERY
            return self._last

    def _read(self) -> Totals:
        try:
            with self._ledger.reading() as conn:
                return Totals(at=time.time(), runs=all_runs(conn), usage=usage_of(conn))
        except sa.exc.SQLAlchemyError as error:
            said = str(getattr(error, "orig", None) or error).splitlines()[0]
            return replace(self._last, error=f"the ledger cannot be read: {said}")


def endpoints_by_lane(settings: Settings) -> dict[str, tuple[str, Endpoint]]:
    """Role and endpoint under the name of their lane in the limiter."""
    told = [(role, endpoint) for role in ROLES for endpoint in settings.endpoints(role)]
    return {f"{role}.{endpoint.name}.{endpoint.model}": (role, endpoint) for role, endpoint in told}


def picture(
    totals: Totals,
    rates: Mapping[Source, float],
    lanes: Mapping[str, LaneView],
    told: Mapping[str, tuple[str, Endpoint]],
) -> dict[str, Any]:
    """Everything the page shows and `/api/judge/usage` returns. Money is in the user's currency, null if unpriced."""
    return {
        "at": totals.at,
        "error": totals.error,
        "runs": [_run(run) for run in totals.runs],
        "endpoints": [_endpoint(name, lanes.get(name), told.get(name)) for name in sorted(told.keys() | lanes.keys())],
        "usage": _usage(totals, rates),
    }


def _run(run: Run) -> dict[str, Any]:
    return {
        "run": run.name,
        "state": run.state,
        "reason": run.reason,
        "spent": run.spent_cost / 1e6,
        "reserved": run.reserved_cost / 1e6,
        "max_cost": None if run.max_cost is None else run.max_cost / 1e6,
        "spent_tokens": run.spent_tokens,
        "max_tokens": run.max_tokens,
    }


def _endpoint(name: str, lane: LaneView | None, told: tuple[str, Endpoint] | None) -> dict[str, Any]:
    role, _, rest = name.partition(".")
    names = {"role": role, "endpoint": told[1].name if told else rest, "model": told[1].model if told else ""}
    return names | (_standing(lane) if lane else _unused(told[1] if told else None))


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
        "learnt": lane.requests.learnt or lane.tokens.learnt,
    }


def _unused(told: Endpoint | None) -> dict[str, Any]:
    """An endpoint that nobody has called yet, or whose limiter cannot be asked: what its owner told."""
    nothing = dict.fromkeys(("calls_per_minute", "tokens_per_minute", "in_flight", "waiting", "paused"), 0)
    limits = {name: getattr(told, name, None) for name in ("rpm", "tpm", "concurrency")}
    return {**nothing, **limits, "probing": False, "learnt": False}


def _whole(limit: float | None) -> int | None:
    return None if limit is None else int(limit)


def _usage(totals: Totals, rates: Mapping[Source, float]) -> list[dict[str, Any]]:
    """One row for each run, role, endpoint, model and dimension: kinds of prompt are summed."""
    numbers = {run.name: run.id for run in totals.runs}
    groups: dict[tuple[str, ...], list[UsageRow]] = defaultdict(list)
    for row in totals.usage:
        groups[row.run, row.role, row.endpoint, row.model, row.dimension].append(row)
    found = []
    for (run, role, endpoint, model, dimension), rows in groups.items():
        rate = rates.get(Source(numbers.get(run, 0), role, endpoint, dimension), 0.0)
        names = {"run": run, "role": role, "endpoint": endpoint, "model": model, "dimension": dimension}
        found.append({**names, **_sums(rows), "calls_per_minute": round(rate, 1)})
    return found


def _sums(rows: Sequence[UsageRow]) -> dict[str, Any]:
    counts = {name: sum(getattr(row, name) for row in rows) for name in (*_COUNTS, *_TOKENS)}
    latency = counts.pop("latency_ms")
    priced = counts["calls"] == 0 or counts["unpriced"] < counts["calls"]
    return {
        **counts,
        "cost": sum(row.cost for row in rows) / 1e6 if priced else None,
        "mean_latency_ms": round(latency / counts["calls"]) if counts["calls"] else None,
    }
