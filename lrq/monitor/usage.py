"""What all paid calls came to: sums from the ledger, joined with the last minute."""

import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import sqlalchemy as sa

from lrq.config import Endpoint, Settings
from lrq.domain.records import ROLES
from lrq.ledger import Ledger
from lrq.ledger.runs import Run, UsageRow, all_runs, usage_of
from lrq.monitor.live import Lane, Live, Rate, Source, Standing

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
        self.last = Totals()

    def read(self) -> Totals:
        with self._lock:
            if time.monotonic() >= self._next:
                self.last = self._read()
                self._next = time.monotonic() + READ_EVERY
            return self.last

    def _read(self) -> Totals:
        try:
            with self._ledger.reading() as conn:
                return Totals(at=time.time(), runs=all_runs(conn), usage=usage_of(conn))
        except sa.exc.SQLAlchemyError as error:
            said = str(getattr(error, "orig", None) or error).splitlines()[0]
            return replace(self.last, error=f"the ledger cannot be read: {said}")


def told_limits(settings: Settings) -> dict[Lane, Endpoint]:
    """The endpoints of the settings, with the limits their owner told."""
    return {Lane(role, endpoint.name): endpoint for role in ROLES for endpoint in settings.endpoints(role)}


def picture(totals: Totals, live: Live, told: Mapping[Lane, Endpoint]) -> dict[str, Any]:
    """Everything the page shows and `/api/judge/usage` returns. Money is in the user's currency, null if unpriced."""
    rates = live.rates()
    return {
        "at": totals.at,
        "error": totals.error,
        "runs": [_run(run) for run in totals.runs],
        "endpoints": _endpoints(live.standings(), rates, told),
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


def _endpoints(
    standings: Mapping[Lane, Standing], rates: Mapping[Source, Rate], told: Mapping[Lane, Endpoint]
) -> list[dict[str, Any]]:
    by_lane: dict[Lane, list[Rate]] = defaultdict(list)
    for source, rate in rates.items():
        by_lane[source.lane].append(rate)
    lanes = sorted(told.keys() | standings.keys() | by_lane.keys())
    return [_endpoint(lane, standings.get(lane), by_lane[lane], told.get(lane)) for lane in lanes]


def _endpoint(lane: Lane, now: Standing | None, rates: Iterable[Rate], told: Endpoint | None) -> dict[str, Any]:
    in_force: Standing | Endpoint = now or told or Standing()  # what a worker keeps to may be less than was told
    return {
        "role": lane.role,
        "endpoint": lane.endpoint,
        "model": told.model if told else "",
        "calls_per_minute": round(sum(rate.calls for rate in rates), 1),
        "tokens_per_minute": round(sum(rate.tokens for rate in rates)),
        "waiting": now.waiting if now else 0,
        "in_flight": now.in_flight if now else 0,
        "rpm": in_force.rpm,
        "tpm": in_force.tpm,
        "concurrency": in_force.concurrency,
    }


def _usage(totals: Totals, rates: Mapping[Source, Rate]) -> list[dict[str, Any]]:
    """One row for each run, role, endpoint, model and dimension: kinds of prompt are summed."""
    numbers = {run.name: run.id for run in totals.runs}
    groups: dict[tuple[str, ...], list[UsageRow]] = defaultdict(list)
    for row in totals.usage:
        groups[row.run, row.role, row.endpoint, row.model, row.dimension].append(row)
    found = []
    for (run, role, endpoint, model, dimension), rows in groups.items():
        rate = rates.get(Source(numbers.get(run, 0), role, endpoint, dimension), Rate())
        names = {"run": run, "role": role, "endpoint": endpoint, "model": model, "dimension": dimension}
        found.append({**names, **_sums(rows), "calls_per_minute": round(rate.calls, 1)})
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
