"""Ends of steps: what many tasks have found goes in with a few statements, whatever their number."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import sqlalchemy as sa

from lrq.domain.records import Score
from lrq.ledger import items as items_
from lrq.ledger.backlog import Task
from lrq.ledger.batches import Query, listed, packed, table
from lrq.ledger.engine import Ledger, insert_into
from lrq.ledger.schema import items, tasks


@dataclass(frozen=True, kw_only=True)
class EndStep:
    """One step's scores; the last step of the item opens its aggregation.

    False: another delivery has ended the task, and its effects are not ours to write.
    """

    task: Task
    found: Sequence[Score]

    @classmethod
    def apply(cls, ledger: Ledger, conn: sa.Connection, writes: "Sequence[EndStep]") -> Sequence[bool]:
        sql = _statements(ledger.is_sqlite)
        ids = packed([write.task.id for write in writes])
        still_open = {row.id for row in sql.open.rows(conn, {"ids": ids})}
        ended = {write.task.id: write for write in reversed(writes) if write.task.id in still_open}
        conn.execute(sql.end, {"ids": ids})
        found = [(write.task.item, write.task.round, score) for write in ended.values() for score in write.found]
        items_.add_scores(ledger, conn, found)
        steps = Counter(write.task.item for write in ended.values())
        conn.execute(sql.count, {"ended": packed(list(steps.items()))})
        judged = packed([row.id for row in sql.judged.rows(conn, {"ids": packed(list(steps))})])
        conn.execute(sql.open_aggregate, {"ids": judged})
        conn.execute(sql.leave_judging, {"ids": judged})
        return [ended.get(write.task.id) is write for write in writes]


class _Statements:
    def __init__(self, is_sqlite: bool) -> None:
        ids = listed("ids", sa.BigInteger, is_sqlite=is_sqlite)
        self.open = Query(sa.select(tasks.c.id).where(tasks.c.id.in_(ids)).order_by(tasks.c.id).with_for_update())
        self.end = tasks.delete().where(tasks.c.id.in_(ids))
        ended = table("ended", {"id": sa.BigInteger, "steps": sa.Integer}, is_sqlite=is_sqlite)
        less = items.update().where(items.c.id == ended.c.id)
        self.count = less.values(open_steps=items.c.open_steps - ended.c.steps)
        among = items.c.id.in_(ids)
        self.judged = Query(sa.select(items.c.id).where(among, items.c.open_steps == 0, items.c.state == "judging"))
        aggregate = ("aggregate", "aggregate", "ready")
        columns = items.c.run_id, items.c.id, items.c.round, *map(sa.literal, aggregate)
        names = ["run_id", "item_id", "round", "name", "queue", "state"]
        opened: Any = insert_into(tasks, is_sqlite).from_select(names, sa.select(*columns).where(among))
        self.open_aggregate = opened.on_conflict_do_nothing()
        self.leave_judging = items.update().where(among).values(state="aggregating", open_steps=1)


_statements = cache(_Statements)
