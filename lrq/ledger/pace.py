"""How a run's latest calls went: rate, latency, re-asks and errors. Costs the same for any size of run."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import sqlalchemy as sa

from lrq.ledger.schema import calls
from lrq.ledger.transaction import Transaction

NEWEST = 2000  # calls that are looked at, of all runs together
WINDOW = 60.0  # seconds over which a rate is taken
_STATUS = re.compile(r"HTTP \d{3}")


@dataclass(frozen=True, kw_only=True)
class Pace:
    """What the newest calls of a run say; None where they say nothing."""

    calls: int = 0  # looked at
    per_second: float | None = None  # replies, over the last minute
    latency_p50: float | None = None  # seconds
    latency_p95: float | None = None
    reasks: int = 0  # calls after an unreadable reply
    resent: int = 0  # deliveries after one that failed
    errors: Mapping[str, int] = field(default_factory=dict)  # class and HTTP status → calls


def pace_of(tx: Transaction, run: int) -> Pace:
    """Look at those of the newest calls that are the run's."""
    names = ("run_id", "state", "attempt", "deliveries", "error", "reason", "settled_at", "latency_ms")
    newest = sa.select(*(calls.c[name] for name in names)).order_by(calls.c.id.desc()).limit(NEWEST).subquery()
    rows = tx.execute(sa.select(newest).where(newest.c.run_id == run)).all()
    done = [row for row in rows if row.state == "done"]
    latencies = sorted(row.latency_ms / 1000 for row in done)
    ended = [row for row in rows if row.state in {"failed", "unknown"}]
    return Pace(
        calls=len(rows),
        per_second=_rate([row.settled_at for row in done if row.settled_at], tx.now()),
        latency_p50=_quantile(latencies, 0.50),
        latency_p95=_quantile(latencies, 0.95),
        reasks=sum(row.attempt > 0 for row in rows),
        resent=sum(max(0, row.deliveries - 1) for row in rows),
        errors=dict(Counter(_class(row.error or row.state, row.reason) for row in ended).most_common()),
    )


def _rate(settled: Sequence[float], now: float) -> float | None:
    """Return replies a second since the first of the last minute's."""
    recent = [moment for moment in settled if now - WINDOW <= moment <= now]
    span = now - min(recent) if recent else 0.0
    return len(recent) / max(span, 1.0) if recent else None


def _quantile(ordered: Sequence[float], share: float) -> float | None:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else None


def _class(error: str, reason: str) -> str:
    status = _STATUS.search(reason)
    return f"{error} ({status[0]})" if status else error
