"""Judging a step again: what changes is added to the run's configuration, the old scores are put aside."""

from collections.abc import Mapping, Sequence
from typing import Any

import orjson
import sqlalchemy as sa

from lrq.domain.errors import UsageError
from lrq.ledger.engine import Ledger
from lrq.ledger.runs import Run
from lrq.ledger.schema import items, past_scores, runs, scores, tasks

_KEPT = ("item_id", "round", "prompt", "k", "dimension", "state", "value", "reason", "evidence")


def revise(
    ledger: Ledger,
    conn: sa.Connection,
    run: Run,
    changed: Mapping[str, Any],
    *,
    step: str,
    dimensions: Sequence[str],
    prices: Mapping[str, Any],
) -> int:
    """Add a revision to the run's configuration, which keeps all earlier ones; its number, from 1. Prices are today's.

    Raises UsageError while the run is at work: an item would be judged half by the old words, half by the new.
    """
    row = conn.execute(sa.select(runs).where(runs.c.id == run.id).with_for_update(key_share=True)).one()
    at_work = conn.execute(sa.select(tasks.c.id).where(tasks.c.run_id == run.id).limit(1)).first() is not None
    if row.open_items or at_work:
        raise UsageError(f"run {run.name!r} is still at work; let it end first (`lrq resume {run.name}`)")
    config = orjson.loads(row.config)
    revision = {"step": step, "dimensions": list(dimensions), "at": ledger.now(conn), "changed": changed}
    config["revisions"] = [*config.get("revisions", ()), revision]
    config["prices"] = {**config.get("prices", {}), **prices}
    conn.execute(runs.update().where(runs.c.id == run.id).values(config=orjson.dumps(config).decode(), taking_in=0))
    return len(config["revisions"])


def reopen_step(
    ledger: Ledger, conn: sa.Connection, run: int, revision: int, *, step: str, queue: str, dimensions: Sequence[str]
) -> int:
    """Put the step's scores aside and open its tasks for every item that has some; how many items."""
    judged = sa.and_(items.c.run_id == run, items.c.state == "done", items.c.round == scores.c.round)
    old = sa.select(*(scores.c[name] for name in _KEPT), sa.literal(revision).label("revision"))
    old = old.join(items, items.c.id == scores.c.item_id).where(judged, scores.c.dimension.in_(dimensions))
    conn.execute(past_scores.insert().from_select([*_KEPT, "revision"], old))

    of_run = sa.select(items.c.id).where(items.c.run_id == run)
    reopened = sa.select(past_scores.c.item_id).where(
        past_scores.c.revision == revision, past_scores.c.item_id.in_(of_run)
    )
    current = scores.c.round == sa.select(items.c.round).where(items.c.id == scores.c.item_id).scalar_subquery()
    conn.execute(scores.delete().where(scores.c.item_id.in_(reopened), scores.c.dimension.in_(dimensions), current))
    names = ("run_id", "item_id", "round", "name", "queue", "state")
    opened = sa.select(
        sa.literal(run), items.c.id, items.c.round, sa.literal(step), sa.literal(queue), sa.literal("ready")
    ).where(items.c.id.in_(reopened))
    conn.execute(tasks.insert().from_select(names, opened.order_by(items.c.id)))
    again = items.update().where(items.c.id.in_(reopened)).values(state="judging", open_steps=1, reason="")
    count = conn.execute(again).rowcount
    if count:
        more = {"open_items": runs.c.open_items + count, "state": "active", "halt": "", "reason": ""}
        conn.execute(runs.update().where(runs.c.id == run).values(**more))
    return count


def past_means(conn: sa.Connection, run: int) -> list[sa.Row[Any]]:
    """Per dimension and revision: how many values it put aside, and their mean."""
    query = sa.select(
        past_scores.c.dimension,
        past_scores.c.revision,
        sa.func.count(past_scores.c.value).label("values_"),
        sa.func.avg(past_scores.c.value).label("mean"),
    )
    query = query.join(items, items.c.id == past_scores.c.item_id).where(items.c.run_id == run)
    ordered = query.group_by(past_scores.c.dimension, past_scores.c.revision)
    return list(conn.execute(ordered.order_by(past_scores.c.dimension, past_scores.c.revision)))
