"""A run's rows as the trainer and the exports read them: the very prompts that were sampled, chosen, rejected."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from lrq.domain import exports
from lrq.domain.records import Chunk, Item, Message, Prompt, Ref, Turn
from lrq.ledger import Ledger
from lrq.ledger import items as items_
from lrq.ledger.schema import rows
from lrq.policy.cut import without
from lrq.policy.port import CHAT_TEMPLATE
from lrq.recipes import Case
from lrq.workers.cases import load_case
from lrq.workers.frozen import Frozen


@dataclass(frozen=True, kw_only=True)
class TrainingTurn:
    """One exchange with its texts."""

    messages: Sequence[Message]  # after the cut
    chosen: str
    rejected: str | None  # None: a demonstration
    is_cut: bool  # the prompt, when it was sampled
    reference: Sequence[Message] | None = None  # what the reference model sees instead


@dataclass(frozen=True, kw_only=True)
class TrainingRow:
    """A row with its texts; most have one turn."""

    item: Item
    turns: Sequence[TrainingTurn]
    margin: float | None
    figures: Mapping[str, float] = field(default_factory=dict)

    @property
    def messages(self) -> Sequence[Message]:
        """The prompt of the first turn."""
        return self.turns[0].messages

    @property
    def chosen(self) -> str:
        """What is preferred in the first turn."""
        return self.turns[0].chosen

    @property
    def rejected(self) -> str | None:
        """What is not, in the first turn."""
        return self.turns[0].rejected


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


def _row(conn: sa.Connection, frozen: Frozen, stored: sa.Row[Any]) -> TrainingRow:
    _, case = load_case(conn, frozen, stored.item_id, stored.round)
    row = items_.read_row(stored)
    place = stored.item_id, stored.round
    turns = [_turn(conn, frozen, case, place, turn) for turn in row.turns]
    return TrainingRow(item=case.item, turns=turns, margin=row.margin, figures=row.figures)


def _turn(conn: sa.Connection, frozen: Frozen, case: Case, place: tuple[int, int], turn: Turn) -> TrainingTurn:
    texts = {(response.prompt, response.k): response.text for response in case.responses}

    def text(choice: Ref | str) -> str:
        return choice if isinstance(choice, str) else texts[choice]

    messages, is_cut = sampled_messages(frozen, case, turn.prompt, items_.load_prompt(conn, *place, turn.prompt))
    reference = None
    if turn.reference is not None:
        stored = items_.load_prompt(conn, *place, turn.reference)
        reference, _ = sampled_messages(frozen, case, turn.reference, stored)
    return TrainingTurn(
        messages=messages,
        chosen=text(turn.chosen),
        rejected=None if turn.rejected is None else text(turn.rejected),
        is_cut=is_cut,
        reference=reference,
    )


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


def trl_row(row: TrainingRow) -> dict[str, Any]:
    """The row in TRL's form, as the trainer reads it."""
    turn = row.turns[0]
    if turn.rejected is None:
        made = exports.trl_demonstration(turn.messages, turn.chosen)
    else:
        made = exports.trl_pair(turn.messages, turn.chosen, turn.rejected)
    known = {"cut": turn.is_cut or None, **row.figures}
    return made | {"chat_template_kwargs": dict(CHAT_TEMPLATE)} | {n: v for n, v in known.items() if v is not None}
