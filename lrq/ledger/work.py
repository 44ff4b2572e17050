"""What open tasks work on: run, item and step."""

from dataclasses import dataclass

import sqlalchemy as sa

from lrq.ledger.schema import items, responses, runs, tasks
from lrq.ledger.transaction import Transaction


@dataclass(frozen=True, kw_only=True)
class TaskAtWork:
    """An open task, with the names of its run and item."""

    id: str  # Celery's: "<task>-<delivery>"
    run: str
    item: int  # the item's number; 0: the whole run
    key: str  # the user's id of the item
    step: str
    sent_at: float


_TASKS = (
    sa.select(tasks, runs.c.name.label("run"), items.c.key)
    .join(runs, runs.c.id == tasks.c.run_id)
    .join(items, items.c.id == tasks.c.item_id, isouter=True)
)


def tasks_at_work(tx: Transaction, most: int) -> list[TaskAtWork]:
    """Load the oldest tasks that processes work on."""
    query = _TASKS.where(tasks.c.state == "running").order_by(tasks.c.id).limit(most)
    return [_at_work(row) for row in tx.execute(query)]


def tasks_of_item(tx: Transaction, item: int) -> list[TaskAtWork]:
    """Load the tasks of an item that processes work on."""
    query = _TASKS.where(tasks.c.item_id == item, tasks.c.state == "running").order_by(tasks.c.id)
    run = sa.select(items.c.run_id).where(items.c.id == item).scalar_subquery()
    return [_at_work(row) for row in tx.execute(query.where(tasks.c.run_id == run))]


def find_task_at_work(tx: Transaction, task: int) -> tuple[TaskAtWork, int] | None:
    """Load an open task, and how many responses its item has; None where the task is at its end."""
    row = tx.execute(_TASKS.where(tasks.c.id == task)).one_or_none()
    if row is None:
        return None
    of_item = responses.c.item_id == row.item_id, responses.c.round == row.round
    count = sa.select(sa.func.count()).select_from(responses).where(*of_item)
    return _at_work(row), int(tx.execute(count).scalar_one())


def _at_work(row: sa.Row[tuple[object, ...]]) -> TaskAtWork:
    return TaskAtWork(
        id=f"{row.id}-{row.delivery}",
        run=row.run,
        item=row.item_id,
        key=row.key or "",
        step=row.name,
        sent_at=row.sent_at or 0.0,
    )
