"""A run's rows as the trainer and the exports read them: the very prompts that were sampled, chosen, rejected."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from lrq.domain import exports
from lrq.domain.errors import UsageError
from lrq.domain.records import Chunk, Item, Message, Prompt, Ref, Reward, Score, Turn
from lrq.ledger import Ledger
from lrq.ledger import items as items_
from lrq.ledger.items import DrawnResponse
from lrq.ledger.schema import rows
from lrq.policy.cut import without
from lrq.policy.folder import find
from lrq.recipes import Case
from lrq.workers.cases import load_case
from lrq.workers.drawn import DrawnPair, FolderRenderer, Renderer, difference, message, template_arguments, token_fields
from lrq.workers.frozen import Frozen


@dataclass(frozen=True, kw_only=True)
class TrainingTurn:
    """One exchange with its texts."""

    messages: Sequence[Message]  # after the cut
    drawn: DrawnPair
    is_cut: bool  # the prompt, when it was sampled
    reference: Sequence[Message] | None = None  # what the reference model sees instead


@dataclass(frozen=True, kw_only=True)
class TrainingRow:
    """A row with its texts; most have one turn."""

    item: Item
    round: int
    turns: Sequence[TrainingTurn]
    margin: float | None
    figures: Mapping[str, float] = field(default_factory=dict)
    rewards: Mapping[str, Reward | None] = field(default_factory=dict)  # of the first turn's sides, where asked for
    scores: Mapping[str, Sequence[Score]] = field(default_factory=dict)

    @property
    def messages(self) -> Sequence[Message]:
        """The prompt of the first turn."""
        return self.turns[0].messages

    @property
    def chosen(self) -> str:
        """What is preferred in the first turn."""
        return self.turns[0].drawn.chosen.text

    @property
    def rejected(self) -> str | None:
        """What is not, in the first turn."""
        rejected = self.turns[0].drawn.rejected
        return None if rejected is None else rejected.text


def training_rows(
    ledger: Ledger, frozen: Frozen, run: int, round_: int | None, *, window: int | None = None, scores: bool = False
) -> Iterator[TrainingRow]:
    """The rows of a training's window, or of a round, or of all, by round and item; one item in memory at a time.

    Their order is the items', for that in which they were made is chance. `scores`: with what the responses were
    rewarded for.
    """
    query = sa.select(rows).where(rows.c.run_id == run).order_by(rows.c.round, rows.c.item_id, rows.c.place)
    query = query if round_ is None else query.where(rows.c.round == round_)
    with ledger.reading() as conn:
        found = conn.execute(query if window is None else query.where(rows.c.window == window)).all()
    for row in found:
        with ledger.reading() as conn:
            found_row = _row(conn, frozen, row)
            yield replace(found_row, **_scores(conn, row)) if scores else found_row


def _row(conn: sa.Connection, frozen: Frozen, stored: sa.Row[Any]) -> TrainingRow:
    _, case = load_case(conn, frozen, stored.item_id, stored.round)
    row = items_.read_row(stored)
    place = stored.item_id, stored.round
    turns = [_turn(conn, frozen, case, place, turn) for turn in row.turns]
    return TrainingRow(item=case.item, round=stored.round, turns=turns, margin=row.margin, figures=row.figures)


def _turn(conn: sa.Connection, frozen: Frozen, case: Case, place: tuple[int, int], turn: Turn) -> TrainingTurn:
    stored = items_.load_prompt(conn, *place, turn.prompt)
    drawn = DrawnPair(
        chosen=_drawn(conn, place, turn.chosen),
        rejected=None if turn.rejected is None else _drawn(conn, place, turn.rejected),
        rendering=(stored or {}).get("rendering") or {},
        prompt_tokens=items_.prompt_tokens(conn, *place, turn.prompt),
    )
    messages, is_cut = sampled_messages(frozen, case, turn.prompt, stored)
    reference = None
    if turn.reference is not None:
        reference, _ = sampled_messages(frozen, case, turn.reference, items_.load_prompt(conn, *place, turn.reference))
    return TrainingTurn(messages=messages, drawn=drawn, is_cut=is_cut, reference=reference)


def _drawn(conn: sa.Connection, place: tuple[int, int], choice: Ref | str) -> DrawnResponse:
    """A response as it was drawn, or a text of the dataset, of which no tokens are known."""
    if isinstance(choice, str):
        return DrawnResponse(text=choice, ids=(), written=choice, form="", is_cut=False)
    return items_.load_drawn(conn, *place, *choice)


def _scores(conn: sa.Connection, stored: sa.Row[Any]) -> dict[str, Any]:
    """Rewards and scores of the first turn's responses, by side."""
    rewards = {(one.prompt, one.k): one for one in items_.load_rewards(conn, stored.item_id, stored.round)}
    scores = items_.load_scores(conn, stored.item_id, stored.round)
    turn = items_.read_row(stored).turns[0]
    refs = {"chosen": turn.chosen, "rejected": turn.rejected}
    sides = {side: ref for side, ref in refs.items() if isinstance(ref, tuple)}
    return {
        "rewards": {side: rewards.get(ref) for side, ref in sides.items()},
        "scores": {side: [s for s in scores if (s.prompt, s.k) == ref] for side, ref in sides.items()},
    }


def sampled_messages(frozen: Frozen, case: Case, number: int, stored: Any) -> tuple[Sequence[Message], bool]:
    """Return the chat messages of a prompt as it was sampled, and whether its context was cut then."""
    prompt = _prompt(frozen, case, number)
    messages = prompt.render(case.item.context)
    cut = stored and stored.get("cut")
    if not cut:
        return messages, False
    return without(messages, prompt.passage(case.item.context), Chunk(start=cut[0], end=cut[1])), True


def _prompt(frozen: Frozen, case: Case, number: int) -> Prompt:
    """As it was stored; of items that bring their responses, as the recipe makes it."""
    return case.prompts[number] if case.prompts else frozen.recipe.prompts(case)[number]


def trl_row(row: TrainingRow, renderer: Renderer | None = None) -> dict[str, Any]:
    """Return the row in TRL's form, as the trainer reads it, with the tokens that were drawn where they are known.

    `trl_differs` says why stock TRL, which knows only the messages, would train other tokens.
    """
    turn = row.turns[0]
    pair = turn.drawn
    opened = pair.rendering.get("opened", "")
    sides = {side: [message(one, opened)] for side, one in pair.sides.items()}
    made = exports.trl_row(_as_parts(turn.messages) if pair.rendering.get("parts") else turn.messages, **sides)
    known = {
        "cut": turn.is_cut or None,
        **row.figures,
        **{f"{side}_finish": "length" if one.is_cut else None for side, one in pair.sides.items()},
        "trl_differs": difference(pair) or None,
    }
    tokens = token_fields(pair, turn.messages, renderer)
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
