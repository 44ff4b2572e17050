"""Ends of steps: what many tasks have found goes in with a few statements, whatever their number."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import sqlalchemy as sa

from lrq.domain.records import Score
from lrq.ledger import items as items_
from lrq.ledger.backlog import Task
from lrq.ledger.batches import Query, listed, packed, table
from lrq.ledger.schema import items, tasks
from lrq.ledger.transaction import SETTLING, Transaction, insert_into


@dataclass(frozen=True, kw_only=True)
class EndStep:
    """One step's scores; the last step of the item opens its aggregation.

    False: another delivery has ended the task, and its effects are not ours to write.
    """

    task: Task
    found: Sequence[Score]

    @classmethod
    def apply(cls, tx: Transaction, writes: "Sequence[EndStep]") -> Sequence[bool]:
        tx.alone(SETTLING)  # two steps of one item end at once, and of many items in any order
        sql = _statements(tx.is_sqlite)
        ids = packed([write.task.id for write in writes])
        still_open = sql.end_all(tx, ids)
        ended = {write.task.id: write for write in reversed(writes) if write.task.id in still_open}
        scores = [(write.task.item, write.task.round, score) for write in ended.values() for score in write.found]
        items_.add_scores(tx, scores)
        steps = Counter(write.task.item for write in ended.values())
        judged = sql.count_down(tx, steps)
        if judged:
            tx.execute(sql.open_aggregate, {"ids": packed(judged)})
            tx.execute(sql.leave_judging, {"ids": packed(judged)})
        return [ended.get(write.task.id) is write for write in writes]


class _Statements:
    def __init__(self, is_sqlite: bool) -> None:
        ids = listed("ids", sa.BigInteger, is_sqlite=is_sqlite)
        self._is_sqlite = is_sqlite
        self.open = Query(sa.select(tasks.c.id).where(tasks.c.id.in_(ids)))
        self.end = tasks.delete().where(tasks.c.id.in_(ids))
        self.end_for_ids = self.end.returning(tasks.c.id)
        ended = table("ended", {"id": sa.BigInteger, "steps": sa.Integer}, is_sqlite=is_sqlite)
        less = items.update().where(items.c.id == ended.c.id)
        self.count = less.values(open_steps=items.c.open_steps - ended.c.steps)
        self.count_for_items = self.count.returning(items.c.id, items.c.open_steps, items.c.state)
        among = items.c.id.in_(ids)
        self.judged = Query(sa.select(items.c.id).where(among, items.c.open_steps == 0, items.c.state == "judging"))
        aggregate = ("aggregate", "aggregate", "ready")
        columns = items.c.run_id, items.c.id, items.c.round, *map(sa.literal, aggregate)
        names = ["run_id", "item_id", "round", "name", "queue", "state"]
        opened: Any = insert_into(tasks, is_sqlite).from_select(names, sa.select(*columns).where(among))
        self.open_aggregate = opened.on_conflict_do_nothing()
        self.leave_judging = items.update().where(among).values(state="aggregating", open_steps=1)

    def end_all(self, tx: Transaction, ids: str) -> set[int]:
        """Delete these tasks; those that were there."""
        if not self._is_sqlite:
            return set(tx.execute(self.end_for_ids, {"ids": ids}).scalars())
        still_open = {row.id for row in self.open.rows(tx, {"ids": ids})}
        tx.execute(self.end, {"ids": ids})
        return still_open

    def count_down(self, tx: Transaction, steps: Mapping[int, int]) -> list[int]:
        """So many steps of each item have ended; the items that have none left."""
        ended = {"ended": packed(list(steps.items()))}
        if not self._is_sqlite:
            counts = tx.execute(self.count_for_items, ended)
            return [row.id for row in counts if row.open_steps == 0 and row.state == "judging"]
        tx.execute(self.count, ended)
        return [row.id for row in self.judged.rows(tx, {"ids": packed(list(steps))})]


_statements = cache(_Statements)
