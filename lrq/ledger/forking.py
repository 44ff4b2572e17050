"""Forks: a new run over the items of another, with its prompts, responses and those scores that still apply."""

from collections.abc import Mapping, Sequence
from typing import Any

import orjson
import sqlalchemy as sa

from lrq.domain.errors import UsageError
from lrq.ledger.intakes import READING
from lrq.ledger.runs import Run, get_run
from lrq.ledger.schema import items, prompts, responses, runs, scores, set_aside, tasks
from lrq.ledger.transaction import Transaction


def fork_run(
    tx: Transaction,
    source: Run,
    name: str,
    config: Mapping[str, Any],
    *,
    steps: Mapping[str, str],
    dimensions: Sequence[str],
    max_cost: int | None = None,
    max_tokens: int | None = None,
) -> Run:
    """Make a run with another configuration, whose items are at work again; calls are known by their keys.

    Args:
        steps: the steps that are judged again, by name → their queue; without any, rewards and rows alone are made.
        dimensions: of these steps: their scores are left behind.
        max_cost: what the fork may spend, in micro-units, beside what the source has; None: as much as the source.
        max_tokens: the same in tokens.

    Raises UsageError where the source is at work, for an item would be copied half judged, its file is still being
    read, or the name is taken.
    """
    row = tx.execute(sa.select(runs).where(runs.c.id == source.id).with_for_update(key_share=True)).one()
    at_work = tx.execute(sa.select(tasks.c.id).where(tasks.c.run_id == source.id).limit(1)).first() is not None
    if row.open_items or at_work or row.ingesting == READING:
        raise UsageError(f"run {source.name!r} is still at work; let it end first (`lrq resume {source.name}`)")
    values = {"name": name, "recipe": row.recipe, "config": orjson.dumps(config).decode()}
    values |= {"round": row.round, "series": row.series, "created_at": tx.now()}
    values |= {"max_cost": row.max_cost if max_cost is None else max_cost}
    values |= {"max_tokens": row.max_tokens if max_tokens is None else max_tokens}
    if not tx.add_new(runs, values):
        raise UsageError(f"there is a run named {name!r} already; --name another")
    fork = get_run(tx, name)
    _copy(tx, set_aside, sa.select(set_aside).where(set_aside.c.run_id == source.id), run_id=fork.id)
    of_source = sa.select(items).where(items.c.run_id == source.id).order_by(items.c.id)
    _copy(tx, items, of_source, run_id=fork.id, open_steps=0)
    new = items.alias("new")
    for table in (prompts, responses, scores):
        current = sa.select(table, new.c.id.label("new_id"))
        current = current.join(items, items.c.id == table.c.item_id).join(new, new.c.key == items.c.key)
        current = current.where(items.c.run_id == source.id, new.c.run_id == fork.id, table.c.round == items.c.round)
        if table is scores:
            for dimension in dimensions:  # one with parts, too
                left = scores.c.dimension == dimension, scores.c.dimension.startswith(f"{dimension}/", autoescape=True)
                current = current.where(~sa.or_(*left))
        subquery = current.subquery()
        _copy(tx, table, sa.select(subquery), item_id=subquery.c.new_id)
    count = _reopen(tx, fork.id, steps)
    if not count:
        raise UsageError(f"run {source.name!r} has no item that is done")
    tx.execute(runs.update().where(runs.c.id == fork.id).values(open_items=count))
    return get_run(tx, name)


def _copy(tx: Transaction, table: sa.Table, query: sa.Select[Any], **changed: Any) -> None:
    """Insert what a query brings, with new ids and these columns changed."""
    names = [column.name for column in table.c if column.name != "id"]
    columns_ = query.selected_columns
    values = [sa.cast(changed[name], table.c[name].type) if name in changed else columns_[name] for name in names]
    tx.execute(table.insert().from_select(names, query.with_only_columns(*values, maintain_column_froms=True)))


def _reopen(tx: Transaction, run: int, steps: Mapping[str, str]) -> int:
    """Open the steps of the items that are done and have a text to judge, and the aggregation of the others."""
    done = items.c.run_id == run, items.c.state == "done"
    texts = sa.select(responses.c.id).where(
        responses.c.item_id == items.c.id, responses.c.round == items.c.round, responses.c.text.is_not(None)
    )
    judged = _open(tx, (*done, texts.exists()), steps, "judging") if steps else 0
    return judged + _open(tx, done, {"aggregate": "aggregate"}, "aggregating")


def _open(tx: Transaction, which: Sequence[sa.ColumnElement[bool]], names: Mapping[str, str], state: str) -> int:
    for name, queue in names.items():
        values = items.c.run_id, items.c.id, items.c.round, *map(sa.literal, (name, queue, "ready"))
        opened = sa.select(*values).where(*which).order_by(items.c.id)
        columns = ["run_id", "item_id", "round", "name", "queue", "state"]
        tx.execute(tasks.insert().from_select(columns, opened))
    return tx.execute(items.update().where(*which).values(state=state, open_steps=len(names), reason="")).rowcount
