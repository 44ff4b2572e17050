"""Pauses by an endpoint that refuses, in words: the item, how many others were answered, what can be done."""

from dataclasses import dataclass
from shlex import quote

import sqlalchemy as sa

from lrq.domain.records import Call, Purpose
from lrq.ledger import runs as runs_
from lrq.ledger.schema import calls, items, runs, usage
from lrq.ledger.transaction import Transaction

_LATEST = 2_000  # calls that are looked at: by number, which costs the same in a ledger of any size


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """A call that its endpoint refuses, for the account's sake."""

    call: Call
    purpose: Purpose
    reason: str  # the server's words


def pause(tx: Transaction, refusal: Refusal) -> str:
    """Pause the run of a call; returns the reason that stands with it."""
    run = tx.execute(sa.select(runs.c.name).where(runs.c.id == refusal.purpose.run)).scalar_one()
    key = tx.execute(sa.select(items.c.key).where(items.c.id == (refusal.purpose.item or 0))).scalar()
    answered = tx.execute(sa.select(sa.func.sum(usage.c.calls)).where(*_same(refusal))).scalar() or 0
    if answered:
        whom = f"refuses {'a call' if key is None else f'item {key}'}, and has answered {answered:,} other calls"
    else:
        whom = "refuses every call" + ("" if key is None else f", of item {key} for one")
    others = (
        ""
        if key is None or not answered
        else f", or leave the item out with `lrq resume {quote(run)} --skip {quote(key)}`"
    )
    reason = (
        f"the {refusal.call.role}'s endpoint {whom}: {refusal.reason}; "
        f"mend its key, credit, url or model, then `lrq resume {quote(run)}`"
        f"{others}"
    )
    runs_.halt(tx, refusal.purpose.run, state="paused", by="account", reason=reason)
    return reason


def _same(refusal: Refusal) -> list[sa.ColumnElement[bool]]:
    call = refusal.call
    identity = {"role": call.role, "endpoint": call.endpoint, "model": call.model}
    return [usage.c.run_id == refusal.purpose.run, *(usage.c[name] == value for name, value in identity.items())]


def was_answered(tx: Transaction, call: Call, server: str, since: float) -> bool:
    """Tell whether any process had an answer of this server since that time."""
    latest = sa.select(calls).order_by(calls.c.id.desc()).limit(_LATEST).subquery()
    answered = latest.c.state == "done", latest.c.settled_at >= since, latest.c.server == server[:100]
    same = latest.c.role == call.role, latest.c.endpoint == call.endpoint, latest.c.model == call.model
    return tx.execute(sa.select(latest.c.id).where(*answered, *same).limit(1)).first() is not None
