"""A run's rows as the trainer and the exports read them: the very prompt that was sampled, chosen, rejected."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from lrq.domain import exports
from lrq.domain.records import Chunk, Item, Message
from lrq.ledger import Ledger
from lrq.ledger import items as items_
from lrq.ledger.schema import rows
from lrq.policy.cut import without
from lrq.policy.port import CHAT_TEMPLATE
from lrq.workers.frozen import Frozen


@dataclass(frozen=True, kw_only=True)
class TrainingRow:
    item: Item
    messages: Sequence[Message]  # after the cut
    chosen: str
    rejected: str | None  # None: a demonstration
    is_cut: bool  # the prompt, when it was sampled
    margin: float | None
    p_w: float | None
    p_l: float | None


def training_rows(
    ledger: Ledger, frozen: Frozen, run: int, round_: int, *, window: int | None = None
) -> Iterator[TrainingRow]:
    """The rows of a training's window, or all, in the order they were made; one item in memory at a time."""
    query = sa.select(rows).where(rows.c.run_id == run, rows.c.round == round_).order_by(rows.c.id)
    with ledger.reading() as conn:
        found = conn.execute(query if window is None else query.where(rows.c.window == window)).all()
    for row in found:
        with ledger.reading() as conn:
            yield _row(conn, frozen, row)


def _row(conn: sa.Connection, frozen: Frozen, row: sa.Row[Any]) -> TrainingRow:
    _, item = items_.load_item(conn, row.item_id)
    texts = {one.k: one.text for one in items_.load_responses(conn, row.item_id, row.round) if one.prompt == row.prompt}
    stored = items_.load_prompt(conn, row.item_id, row.round, row.prompt)
    return TrainingRow(
        item=item,
        messages=sampled_messages(frozen, item, row.prompt, stored),
        chosen=texts[row.chosen],
        rejected=None if row.rejected is None else texts[row.rejected],
        is_cut=bool(stored and stored.get("cut")),
        margin=row.margin,
        p_w=row.p_w,
        p_l=row.p_l,
    )


def sampled_messages(frozen: Frozen, item: Item, prompt: int, stored: Any) -> Sequence[Message]:
    """The chat messages of a prompt with the cut of its sampling, if there was one."""
    messages = frozen.recipe.policy_messages(item, prompt)
    cut = stored and stored.get("cut")
    return without(messages, item.context, Chunk(start=cut[0], end=cut[1])) if cut else messages


def trl_row(row: TrainingRow) -> dict[str, Any]:
    """The row in TRL's form, as the trainer reads it."""
    if row.rejected is None:
        made = exports.trl_demonstration(row.messages, row.chosen)
    else:
        made = exports.trl_pair(row.messages, row.chosen, row.rejected)
    known = {"cut": row.is_cut or None, "p_w": row.p_w, "p_l": row.p_l}
    return made | {"chat_template_kwargs": dict(CHAT_TEMPLATE)} | {n: v for n, v in known.items() if v is not None}
