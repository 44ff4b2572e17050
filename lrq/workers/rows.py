"""A run's rows as the trainer and the exports read them: the very prompt that was sampled, chosen, rejected."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from lrq.domain import exports
from lrq.domain.errors import UsageError
from lrq.domain.records import Chunk, Item, Message, Reward, Score
from lrq.ledger import Ledger
from lrq.ledger import items as items_
from lrq.ledger.schema import rows
from lrq.policy.cut import without
from lrq.policy.folder import find
from lrq.workers.drawn import DrawnPair, FolderRenderer, Renderer, difference, message, template_arguments, token_fields
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
    drawn: DrawnPair
    rewards: Mapping[str, Reward | None] = field(default_factory=dict)  # of chosen and rejected, where asked for
    scores: Mapping[str, Sequence[Score]] = field(default_factory=dict)


def training_rows(
    ledger: Ledger, frozen: Frozen, run: int, round_: int, *, window: int | None = None, scores: bool = False
) -> Iterator[TrainingRow]:
    """The rows of a training's window, or all, in the order they were made; one item in memory at a time.

    `scores`: with what the responses were rewarded for.
    """
    query = sa.select(rows).where(rows.c.run_id == run, rows.c.round == round_).order_by(rows.c.id)
    with ledger.reading() as conn:
        found = conn.execute(query if window is None else query.where(rows.c.window == window)).all()
    for row in found:
        with ledger.reading() as conn:
            found_row = _row(conn, frozen, row)
            yield replace(found_row, **_scores(conn, row)) if scores else found_row


def _row(conn: sa.Connection, frozen: Frozen, row: sa.Row[Any]) -> TrainingRow:
    _, item = items_.load_item(conn, row.item_id)
    place = row.item_id, row.round, row.prompt
    stored = items_.load_prompt(conn, *place)
    drawn = DrawnPair(
        chosen=items_.load_drawn(conn, *place, row.chosen),
        rejected=None if row.rejected is None else items_.load_drawn(conn, *place, row.rejected),
        rendering=(stored or {}).get("rendering") or {},
        prompt_tokens=items_.prompt_tokens(conn, *place),
    )
    return TrainingRow(
        item=item,
        messages=sampled_messages(frozen, item, row.prompt, stored),
        chosen=drawn.chosen.text,
        rejected=drawn.rejected and drawn.rejected.text,
        is_cut=bool(stored and stored.get("cut")),
        margin=row.margin,
        p_w=row.p_w,
        p_l=row.p_l,
        drawn=drawn,
    )


def _scores(conn: sa.Connection, row: sa.Row[Any]) -> dict[str, Any]:
    """Rewards and scores of the row's responses, by side."""
    rewards = {(one.prompt, one.k): one for one in items_.load_rewards(conn, row.item_id, row.round)}
    scores = items_.load_scores(conn, row.item_id, row.round)
    sides = {"chosen": row.chosen} | ({} if row.rejected is None else {"rejected": row.rejected})
    return {
        "rewards": {side: rewards.get((row.prompt, k)) for side, k in sides.items()},
        "scores": {side: [s for s in scores if (s.prompt, s.k) == (row.prompt, k)] for side, k in sides.items()},
    }


def sampled_messages(frozen: Frozen, item: Item, prompt: int, stored: Any) -> Sequence[Message]:
    """The chat messages of a prompt with the cut of its sampling, if there was one."""
    messages = frozen.recipe.policy_messages(item, prompt)
    cut = stored and stored.get("cut")
    return without(messages, item.context, Chunk(start=cut[0], end=cut[1])) if cut else messages


def trl_row(row: TrainingRow, renderer: Renderer | None = None) -> dict[str, Any]:
    """Return the row in TRL's form, as the trainer reads it, with the tokens that were drawn where they are known.

    `trl_differs` says why stock TRL, which knows only the messages, would train other tokens.
    """
    pair = row.drawn
    opened = pair.rendering.get("opened", "")
    sides = {side: [message(one, opened)] for side, one in pair.sides.items()}
    made = exports.trl_row(_as_parts(row.messages) if pair.rendering.get("parts") else row.messages, **sides)
    known = {
        "cut": row.is_cut or None,
        "p_w": row.p_w,
        "p_l": row.p_l,
        **{f"{side}_finish": "length" if one.is_cut else None for side, one in pair.sides.items()},
        "trl_differs": difference(pair) or None,
    }
    tokens = token_fields(pair, row.messages, renderer)
    kwargs = {"chat_template_kwargs": template_arguments(pair)}
    return made | kwargs | {name: value for name, value in known.items() if value is not None} | tokens


def _as_parts(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """The messages as templates of multimodal models read them."""
    return [{**message, "content": [{"type": "text", "text": message["content"]}]} for message in messages]


def renderer_of(frozen: Frozen, model: Path | None = None) -> Renderer | None:
    """Return what renders the prompts of a run as they were sampled; None where no folder of its policy is here.

    `model`: the folder that is to be trained, for a policy behind a server.
    """
    path = model or frozen.config["policy"]["path"]
    try:
        return FolderRenderer(find(str(path))) if path else None
    except UsageError:
        return None
