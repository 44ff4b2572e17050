"""The statements that every call runs: found, inserted, sent, locked, settled, a batch in one step each."""

from functools import cache

import sqlalchemy as sa

from lrq.ledger.batches import Query, listed, table
from lrq.ledger.money import Group
from lrq.ledger.schema import calls, runs
from lrq.ledger.transaction import CLOCK

_SUMMED = (*Group._fields, "reserved_cost", "reserved_tokens")
# What a batch's rows bring each for itself, in this order.
OF_CLAIM = {
    "key": sa.Text,
    "item_id": sa.Integer,
    "draw": sa.Integer,
    "attempt": sa.Integer,
    "series": sa.Integer,
    "reserved_cost": sa.BigInteger,
    "reserved_tokens": sa.BigInteger,
}
# What the claims of a group have in common.
OF_GROUP = (*Group._fields, "state", "owner", "claimed_at")
OF_REPLY = {
    "id": sa.BigInteger,
    "start": sa.Integer,
    "length": sa.Integer,
    "cost": sa.BigInteger,
    "prompt_tokens": sa.Integer,
    "completion_tokens": sa.Integer,
    "cached_tokens": sa.Integer,
    "reasoning_tokens": sa.Integer,
    "latency_ms": sa.Integer,
    "reason": sa.Text,
    "server": sa.Text,
}


class Statements:
    """What every call runs. Built once: building a statement costs several times its execution."""

    def __init__(self, is_sqlite: bool) -> None:
        keys = listed("keys", sa.Text, is_sqlite=is_sqlite)
        ids = listed("ids", sa.BigInteger, is_sqlite=is_sqlite)
        self.find = sa.select(calls).where(calls.c.key.in_(keys))
        self.ids = Query(sa.select(calls.c.key, calls.c.id).where(calls.c.key.in_(keys)))
        selected = sa.select(calls.c.id, calls.c.state, calls.c.owner, *(calls.c[name] for name in _SUMMED))
        self.lock = Query(selected.where(calls.c.id.in_(ids)).order_by(calls.c.key).with_for_update(key_share=True))
        claimed = table("claimed", OF_CLAIM, is_sqlite=is_sqlite)
        shared = [sa.bindparam(f"its_{name}", type_=calls.c[name].type) for name in OF_GROUP]
        self.insert = calls.insert().from_select([*OF_CLAIM, *OF_GROUP], sa.select(*claimed.c, *shared))
        active = sa.select(runs.c.id).where(runs.c.state == "active")
        own_claims = calls.c.owner == sa.bindparam("by"), calls.c.state == "claimed", calls.c.run_id.in_(active)
        self.unsent = Query(sa.select(calls.c.id).where(calls.c.id.in_(ids), *own_claims))
        self.send = calls.update().where(calls.c.id.in_(ids)).values(state="sent", deliveries=calls.c.deliveries + 1)
        # PostgreSQL's in one step, for each is a round trip; SQLite's rows come as one (`Query`).
        self.insert_for_ids = self.insert.returning(calls.c.key, calls.c.id)
        self.send_ours = self.send.where(*own_claims).returning(calls.c.id)
        replies = table("replies", OF_REPLY, is_sqlite=is_sqlite)
        reply = sa.func.substr(sa.bindparam("bodies", type_=sa.LargeBinary), replies.c.start, replies.c.length)
        bodies = {name: replies.c[name] for name in OF_REPLY if name not in {"id", "start", "length"}}
        ended = {
            "state": "done",
            "reserved_cost": 0,
            "reserved_tokens": 0,
            "settled_at": sa.bindparam("now", type_=sa.Float) if is_sqlite else CLOCK,
        }
        self.settle = calls.update().where(calls.c.id == replies.c.id).values(**ended, **bodies, reply=reply)
        # PostgreSQL's in one step: the rows as they were, and the replies in those that had none.
        locked = selected.where(calls.c.id.in_(ids)).order_by(calls.c.key).with_for_update(key_share=True).cte("locked")
        fresh = calls.c.id.in_(sa.select(locked.c.id).where(locked.c.state != "done"))
        settled = self.settle.where(fresh).returning(calls.c.id).cte("kept")
        self.lock_and_settle = sa.select(locked).add_cte(settled)


statements = cache(Statements)
