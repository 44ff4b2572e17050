"""Changes made while runs work, each with its author and reason; and the limits that such changes set."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson
import sqlalchemy as sa

from lrq.ledger.schema import changes, limits
from lrq.ledger.transaction import Transaction

LIMITS = ("rpm", "tpm", "concurrency")


@dataclass(frozen=True, kw_only=True)
class Change:
    """What one person changed; `at` is set by the ledger."""

    who: str
    what: str  # pause, resume, budget, limits
    subject: str  # the run's or lane's name
    reason: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)
    at: float = 0.0


def add_change(tx: Transaction, change: Change) -> None:
    """Keep a change."""
    body = orjson.dumps(change.values).decode() if change.values else ""
    names = {"who": change.who[:100], "what": change.what, "subject": change.subject[:300], "reason": change.reason}
    tx.execute(changes.insert().values(**names, body=body, at=tx.now()))


def latest_changes(tx: Transaction, most: int = 20, *, what: str = "") -> list[Change]:
    """Load the latest changes, newest first; `what`: of this kind alone."""
    query = sa.select(changes).order_by(changes.c.id.desc()).limit(most)
    rows = tx.execute(query.where(changes.c.what == what) if what else query)
    names = ("who", "what", "subject", "reason", "at")
    return [
        Change(**{name: getattr(row, name) for name in names}, values=orjson.loads(row.body or "{}")) for row in rows
    ]


def set_limits(tx: Transaction, lane: str, values: Mapping[str, int | None]) -> None:
    """Let these limits of a lane hold from now on; None: what the settings say. Others stay as they are."""
    insert = tx.insert(limits).values(lane=lane, **values)
    tx.execute(insert.on_conflict_do_update(index_elements=["lane"], set_=dict(values)))


def limits_by_lane(tx: Transaction) -> dict[str, dict[str, int]]:
    """Load the limits that were set while runs work, by lane; of each those that differ from the settings."""
    rows = tx.execute(sa.select(limits))
    return {row.lane: {name: getattr(row, name) for name in LIMITS if getattr(row, name) is not None} for row in rows}
