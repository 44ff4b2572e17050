"""Claim and settle: the write-ahead row of every paid call, and the money it reserves.

claimed → sent → done | failed | unknown. A call whose process died, or whose delivery ended without an answer from
the server, is unknown: its money stays charged, and the next asker takes the row over for a new delivery.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import sqlalchemy as sa

from lrq.domain.errors import RunHalted
from lrq.domain.records import Call, Purpose, Usage
from lrq.ledger.batches import packed
from lrq.ledger.money import Bound, Charge, Group, InFlightElsewhere, Money, reserve
from lrq.ledger.processes import is_dead, remove_dead
from lrq.ledger.schema import calls
from lrq.ledger.statements import OF_CLAIM, OF_GROUP, statements
from lrq.ledger.transaction import SETTLING, Transaction

_OPEN = ("claimed", "sent")


@dataclass(frozen=True, kw_only=True)
class Claimed:
    """The row is ours: send it."""

    id: int


@dataclass(frozen=True, kw_only=True)
class CachedReply:
    """The reply was committed before."""

    reply: bytes
    usage: Usage
    cost: int | None


@dataclass(frozen=True, kw_only=True)
class PriorFailure:
    """The call came to an end without a reply."""

    error: str  # refused, failed
    reason: str


ClaimResult = Claimed | CachedReply | PriorFailure | InFlightElsewhere | RunHalted


@dataclass(frozen=True, kw_only=True)
class Claim:
    """Take a key for sending. A process asks for a key by one claim at a time.

    Nobody else claims meanwhile (`Transaction.alone`): what is found still holds when it is taken.
    """

    key: str
    call: Call
    purpose: Purpose
    owner: str
    bound: Bound

    @classmethod
    def apply(cls, tx: Transaction, writes: "Sequence[Claim]") -> Sequence[ClaimResult]:
        tx.alone(SETTLING)
        stored = _find(tx, [write.key for write in writes])
        _free_lost(tx, writes, stored)
        results = {write.key: _known(stored.get(write.key), write) for write in writes}
        open_ = sorted((write for write in writes if results[write.key] is None), key=lambda write: write.key)
        results |= _reserve(tx, open_)
        inserted = [write for write in open_ if results[write.key] is None]
        results |= _insert(tx, inserted, stored)
        return [results[write.key] or InFlightElsewhere() for write in writes]


@dataclass(frozen=True, kw_only=True)
class Send:
    """Mark a claimed call as sent; False when it is no longer ours or its run has been halted."""

    is_free: ClassVar[bool] = True
    id: int
    owner: str

    @classmethod
    def apply(cls, tx: Transaction, writes: "Sequence[Send]") -> Sequence[bool]:
        by_owner: dict[str, list[int]] = defaultdict(list)
        for write in writes:
            by_owner[write.owner].append(write.id)
        marked: set[int] = set()
        sql = statements(tx.is_sqlite)
        for owner, ids in by_owner.items():
            parameters = {"ids": packed(ids), "by": owner}
            if tx.is_sqlite:
                unsent = [row.id for row in sql.unsent.rows(tx, parameters)]
                tx.execute(sql.send, {"ids": packed(unsent)})
            else:
                unsent = list(tx.execute(sql.send_ours, parameters).scalars())
            marked.update(unsent)
        return [write.id in marked for write in writes]


@dataclass(frozen=True, kw_only=True)
class Settle:
    """Commit a reply with its usage and money, and release what was reserved.

    False: another reply to this call was committed before, and stands.
    """

    before_alone: ClassVar[bool] = True
    id: int
    reply: bytes
    usage: Usage
    cost: int | None
    latency_ms: int
    note: str = ""  # what is to be known of the figures
    server: str = ""  # which of the pool answered
    saved: int = 0  # micro-units that a prompt cache saved

    @classmethod
    def apply(cls, tx: Transaction, writes: "Sequence[Settle]") -> Sequence[bool]:
        rows = _keep_replies(tx, {write.id: write for write in writes})
        fresh = {write.id: write for write in writes if rows[write.id].state != "done"}
        money = Money()
        for id_, write in fresh.items():
            money.release(rows[id_])
            tokens = write.usage.prompt_tokens + write.usage.completion_tokens
            money.spend(rows[id_].run_id, write.cost or 0, tokens)
            money.count(rows[id_], _counts(write))
        money.write(tx)
        return [write.id in fresh for write in writes]


@dataclass(frozen=True, kw_only=True)
class Fail:
    """End a call without a reply; it is not charged unless its last delivery's outcome is unknown."""

    id: int
    owner: str
    error: str  # refused, failed
    reason: str
    unknown: bool
    charge: Charge | None = None

    @classmethod
    def apply(cls, tx: Transaction, writes: "Sequence[Fail]") -> Sequence[None]:
        now = tx.now()
        rows = _lock(tx, [write.id for write in writes])
        money = Money()
        for write in writes:
            row = rows[write.id]
            if not _is_held(row, write.owner):
                continue
            money.drop(row, unknown=write.unknown, charge=write.charge)
            money.count(row, {"failed": 1})
            ended = {"state": "failed", "error": write.error, "reason": write.reason, "settled_at": now}
            tx.execute(calls.update().where(calls.c.id == row.id).values(**ended, reserved_cost=0, reserved_tokens=0))
        money.write(tx)
        return [None] * len(writes)


@dataclass(frozen=True, kw_only=True)
class Release:
    """Give a call up, so that whoever asks next may send it."""

    id: int
    owner: str
    unknown: bool  # its last delivery's outcome is unknown: the money stays charged
    charge: Charge | None = None  # of its last delivery

    @classmethod
    def apply(cls, tx: Transaction, writes: "Sequence[Release]") -> Sequence[None]:
        rows = _lock(tx, [write.id for write in writes])
        money = Money()
        for write in writes:
            row = rows[write.id]
            if _is_held(row, write.owner):
                money.drop(row, unknown=write.unknown, charge=write.charge)
                _set_free(tx, [row.id], tx.now())
        money.write(tx)
        return [None] * len(writes)


@dataclass(frozen=True, kw_only=True)
class Reuse:
    """Count answers that were had without a call."""

    purpose: Purpose
    role: str
    endpoint: str
    model: str
    times: int = 1

    @classmethod
    def apply(cls, tx: Transaction, writes: "Sequence[Reuse]") -> Sequence[None]:
        money = Money()
        for write in writes:
            purpose = write.purpose
            group = write.role, write.endpoint, write.model, purpose.step, purpose.dimension, purpose.kind
            money.count(Group(purpose.run, *group), {"reused": write.times})
        money.write(tx)
        return [None] * len(writes)


def _free_open(tx: Transaction, which: sa.ColumnElement[bool]) -> int:
    """Turn open calls that nobody works on into unknown ones; return how many. What was sent stays charged."""
    query = sa.select(calls).where(which, calls.c.settled_at.is_(None))
    locked = query.order_by(calls.c.key).with_for_update(key_share=True, skip_locked=True)
    rows = tx.execute(locked).all()  # whose owner writes just now, it lives
    if not rows:
        return 0
    money = Money()
    for row in rows:
        money.drop(row, unknown=row.state == "sent")
    _set_free(tx, [row.id for row in rows], tx.now())
    money.write(tx)
    return len(rows)


def release_dead_calls(tx: Transaction) -> int:
    """Forget the processes that have ended, and free their open calls; return how many."""
    tx.alone(SETTLING)
    remove_dead(tx)
    owners = tx.execute(sa.select(calls.c.owner).where(calls.c.settled_at.is_(None)).distinct()).scalars().all()
    dead = [owner for owner in owners if is_dead(tx, owner)]
    return _free_open(tx, calls.c.owner.in_(dead)) if dead else 0


def _find(tx: Transaction, keys: Sequence[str]) -> dict[str, sa.Row[Any]]:
    return {row.key: row for row in tx.execute(statements(tx.is_sqlite).find, {"keys": packed(keys)})}


def _free_lost(tx: Transaction, writes: Sequence[Claim], found: dict[str, sa.Row[Any]]) -> None:
    """Free what dead processes held, and what the asker itself holds: it would not ask, had it not lost track of it.

    That happens where a transaction was committed and the news of it lost with the connection.
    """
    owners = {row.owner for row in found.values() if row.state in _OPEN} - {write.owner for write in writes}
    dead = [owner for owner in sorted(owners) if is_dead(tx, owner)]
    freed = _free_open(tx, calls.c.owner.in_(dead)) if dead else 0
    lost = [write.key for write in writes if write.key in found and _is_held(found[write.key], write.owner)]
    if lost:
        freed += _free_open(tx, calls.c.key.in_(lost))
    if freed:
        found.update(_find(tx, list(found)))


def _is_held(row: sa.Row[Any], owner: str) -> bool:
    return row.owner == owner and row.state in _OPEN


def _known(row: sa.Row[Any] | None, write: Claim) -> ClaimResult | None:
    """Return what a row says of a claim; None where there is none or it is free to take."""
    if row is None or row.state == "unknown":
        return None
    if row.state == "done":
        tokens = Usage(
            prompt_tokens=row.prompt_tokens,
            completion_tokens=row.completion_tokens,
            cached_tokens=row.cached_tokens,
            reasoning_tokens=row.reasoning_tokens,
        )
        return CachedReply(reply=row.reply, usage=tokens, cost=row.cost)
    if row.state == "failed":
        another_run = row.run_id != write.purpose.run and row.error == "failed"
        return None if another_run else PriorFailure(error=row.error, reason=row.reason)
    return InFlightElsewhere()


def _reserve(tx: Transaction, wanted: Sequence[Claim]) -> dict[str, ClaimResult | None]:
    by_run: dict[int, list[Claim]] = defaultdict(list)
    for write in wanted:
        by_run[write.purpose.run].append(write)
    results: dict[str, ClaimResult | None] = {}
    for run, writes in sorted(by_run.items()):
        decided = reserve(tx, run, [write.bound for write in writes])
        results |= {write.key: decision for write, decision in zip(writes, decided, strict=True)}
    return results


def _insert(
    tx: Transaction, granted: Sequence[Claim], found: Mapping[str, sa.Row[Any]]
) -> dict[str, ClaimResult | None]:
    if not granted:
        return {}
    now = tx.now()
    ids: dict[str, int] = {}
    for write in (write for write in granted if write.key in found):
        free = calls.c.state.in_(("unknown", "failed"))
        take = calls.update().where(calls.c.key == write.key, free)
        tx.execute(take.values(**_row(write, now), settled_at=None, error="", reason=""))
        ids[write.key] = found[write.key].id
    sql = statements(tx.is_sqlite)
    for shared, new in _grouped([write for write in granted if write.key not in found]).items():
        common = dict(zip(OF_GROUP, (*shared, "claimed", new[0].owner, now), strict=True))
        rows = packed([_own(write) for write in new])
        values = {"claimed": rows, **{f"its_{name}": value for name, value in common.items()}}
        if tx.is_sqlite:
            tx.execute(sql.insert, values)
        else:
            ids |= {row.key: row.id for row in tx.execute(sql.insert_for_ids, values)}
    if tx.is_sqlite:
        new_keys = [write.key for write in granted if write.key not in ids]
        ids |= {row.key: row.id for row in sql.ids.rows(tx, {"keys": packed(new_keys)})}
    return {key: Claimed(id=id_) for key, id_ in ids.items()}


def _grouped(writes: Sequence[Claim]) -> Mapping[Group, Sequence[Claim]]:
    groups: dict[Group, list[Claim]] = defaultdict(list)
    for write in writes:
        groups[_group(write)].append(write)
    return groups


def _group(write: Claim) -> Group:
    call, purpose = write.call, write.purpose
    group = call.role, call.endpoint, call.model, purpose.step, purpose.dimension, purpose.kind
    return Group(purpose.run, *group)


def _own(write: Claim) -> tuple[Any, ...]:
    """Return what `OF_CLAIM` names."""
    call, bound = write.call, write.bound
    return write.key, write.purpose.item or 0, call.draw, call.attempt, call.series, bound.cost, bound.tokens


def _row(write: Claim, now: float) -> dict[str, Any]:
    shared = zip(OF_GROUP, (*_group(write), "claimed", write.owner, now), strict=True)
    return {**dict(shared), **dict(zip(OF_CLAIM, _own(write), strict=True))}


def _lock(tx: Transaction, ids: Sequence[int]) -> dict[int, Any]:
    """Lock the rows in the order of their keys, so that two processes cannot wait for each other."""
    return {row.id: row for row in statements(tx.is_sqlite).lock.rows(tx, {"ids": packed(ids)})}


def _set_free(tx: Transaction, ids: Sequence[int], now: float) -> None:
    free = {"state": "unknown", "owner": "", "reserved_cost": 0, "reserved_tokens": 0, "settled_at": now}
    tx.execute(calls.update().where(calls.c.id.in_(ids)).values(**free))


def _keep_replies(tx: Transaction, writes: Mapping[int, Settle]) -> Mapping[int, Any]:
    """Keep the replies of calls that have none; the calls' rows as they were before."""
    sql = statements(tx.is_sqlite)
    if not tx.is_sqlite:
        parameters = {"ids": packed(list(writes)), **_bodies(list(writes.values()))}
        return {row.id: row for row in tx.execute(sql.lock_and_settle, parameters)}
    rows = _lock(tx, list(writes))
    fresh = [write for id_, write in writes.items() if rows[id_].state != "done"]
    if fresh:
        tx.execute(sql.settle, {"now": tx.now(), **_bodies(fresh)})
    return rows


def _bodies(writes: Sequence[Settle]) -> dict[str, Any]:
    """Join the bodies to one, of which each row takes its part."""
    rows, start = [], 1
    for write in writes:
        counted = write.usage
        tokens = counted.prompt_tokens, counted.completion_tokens, counted.cached_tokens, counted.reasoning_tokens
        server = write.server[:100]  # what the column holds: a reply is never lost to its name
        rows.append((write.id, start, len(write.reply), write.cost, *tokens, write.latency_ms, write.note, server))
        start += len(write.reply)
    return {"replies": packed(rows), "bodies": b"".join(write.reply for write in writes)}


def _counts(write: Settle) -> dict[str, int]:
    return {
        "calls": 1,
        "unpriced": int(write.cost is None),
        "cost": write.cost or 0,
        "prompt_tokens": write.usage.prompt_tokens,
        "completion_tokens": write.usage.completion_tokens,
        "cached_tokens": write.usage.cached_tokens,
        "reasoning_tokens": write.usage.reasoning_tokens,
        "saved": write.saved,
        "latency_ms": write.latency_ms,
    }
