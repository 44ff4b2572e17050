"""A run's rows as the trainer and the exports read them: the very prompts that were sampled, chosen, rejected."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from lrq.domain import exports
from lrq.domain.errors import UsageError
from lrq.domain.records import Chunk, Item, Message, Prompt, Ref, Reward, Score, Turn
from lrq.domain.win_rates import rates_by_reward
from lrq.ledger import Ledger, Transaction
from lrq.ledger import items as items_
from lrq.ledger.items import DrawnResponse
from lrq.policy.cut import without
from lrq.policy.folder import find
from lrq.recipes import Case
from lrq.run_config import RunConfig
from lrq.workers.cases import load_case
from lrq.workers.drawn import DrawnPair, FolderRenderer, Renderer, difference, message, template_arguments, token_fields


@dataclass(frozen=True, kw_only=True)
class TrainingTurn:
    """One exchange with its texts."""

    messages: Sequence[Message]  # after the cut
    drawn: DrawnPair
    is_cut: bool  # the prompt, when it was sampled
    reference: Sequence[Message] | None = None  # what the reference model sees instead
    reference_drawn: DrawnPair | None = None  # the same answers behind that prompt
    followup: str = ""  # what the user says, where the turn is not the first


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
        """Return the prompt of the first turn."""
        return self.turns[0].messages

    @property
    def chosen(self) -> str:
        """Return what is preferred in the first turn."""
        return self.turns[0].drawn.chosen.text

    @property
    def rejected(self) -> str | None:
        """Return what is not preferred in the first turn."""
        rejected = self.turns[0].drawn.rejected
        return None if rejected is None else rejected.text


def training_rows(
    ledger: Ledger,
    frozen: RunConfig,
    run: int,
    round_: int | None,
    *,
    window: int | None = None,
    scores: bool = False,
    rates: bool = False,
) -> Iterator[TrainingRow]:
    """Yield the rows of a training's `window`, of a round, or all, by round and item; one item in memory at a time.

    Their order is the items', for that in which they were made is chance. `scores`: with what the responses were
    rewarded for. `rates`: with win rates, which are made from the rewards of the prompt's responses where the recipe
    brings none.
    """
    with ledger.read() as tx:
        stored_rows = items_.load_run_rows(tx, run, round_=round_, window=window)
    for row in stored_rows:
        with ledger.read() as tx:
            found_row = _row(tx, frozen, row)
            found_row = replace(found_row, **_scores(tx, row)) if scores else found_row
            yield replace(found_row, figures={**_rates(tx, row), **found_row.figures}) if rates else found_row


def _row(tx: Transaction, frozen: RunConfig, stored: sa.Row[Any]) -> TrainingRow:
    _, case = load_case(tx, frozen, stored.item_id, stored.round)
    row = items_.read_row(stored)
    key = stored.item_id, stored.round
    turns = [_turn(tx, frozen, case, key, turn) for turn in row.turns]
    return TrainingRow(item=case.item, round=stored.round, turns=turns, margin=row.margin, figures=row.figures)


def _turn(tx: Transaction, frozen: RunConfig, case: Case, place: tuple[int, int], turn: Turn) -> TrainingTurn:
    stored = items_.load_prompt(tx, *place, turn.prompt)
    sides = DrawnPair(
        chosen=_drawn(tx, place, turn.chosen),
        rejected=None if turn.rejected is None else _drawn(tx, place, turn.rejected),
        rendering=(stored or {}).get("rendering") or {},
        prompt_tokens=items_.prompt_tokens(tx, *place, turn.prompt),
    )
    messages, is_cut = sampled_messages(frozen, case, turn.prompt, stored)
    reference = _seen_by_reference(tx, frozen, case, place, turn, sides)
    followup = _prompt(frozen, case, turn.prompt).followup
    return TrainingTurn(messages=messages, drawn=sides, is_cut=is_cut, followup=followup, **reference)


def _seen_by_reference(
    tx: Transaction, frozen: RunConfig, case: Case, place: tuple[int, int], turn: Turn, drawn: DrawnPair
) -> dict[str, Any]:
    if turn.reference is None:
        return {}
    stored = items_.load_prompt(tx, *place, turn.reference)
    reference, _ = sampled_messages(frozen, case, turn.reference, stored)
    tokens = items_.prompt_tokens(tx, *place, turn.reference)
    behind = replace(drawn, rendering=(stored or {}).get("rendering") or {}, prompt_tokens=tokens)
    return {"reference": reference, "reference_drawn": behind}


def _drawn(tx: Transaction, place: tuple[int, int], choice: Ref | str) -> DrawnResponse:
    """Return a response as it was drawn, or a text of the dataset, of which no tokens are known."""
    if isinstance(choice, str):
        return DrawnResponse(text=choice, ids=(), written=choice, form="", is_cut=False)
    return items_.load_drawn(tx, *place, *choice)


def _scores(tx: Transaction, stored: sa.Row[Any]) -> dict[str, Any]:
    """Rewards and scores of the first turn's responses, by side."""
    rewards = {(reward.prompt, reward.k): reward for reward in items_.load_rewards(tx, stored.item_id, stored.round)}
    scores = items_.load_scores(tx, stored.item_id, stored.round)
    turn = items_.read_row(stored).turns[0]
    refs = {"chosen": turn.chosen, "rejected": turn.rejected}
    sides = {side: ref for side, ref in refs.items() if isinstance(ref, tuple)}
    return {
        "rewards": {side: rewards.get(ref) for side, ref in sides.items()},
        "scores": {side: [s for s in scores if (s.prompt, s.k) == ref] for side, ref in sides.items()},
    }


def _rates(tx: Transaction, stored: sa.Row[Any]) -> dict[str, float]:
    """Win rates of a row's two responses among all of their prompt that have a reward; nothing where that has none."""
    turns = items_.read_row(stored).turns
    chosen, rejected = turns[0].chosen, turns[0].rejected
    if len(turns) > 1 or not isinstance(chosen, tuple) or not isinstance(rejected, tuple):
        return {}
    rewards = items_.load_rewards(tx, stored.item_id, stored.round)
    values = {
        (each.prompt, each.k): each.value for each in rewards if each.prompt == chosen[0] and each.value is not None
    }
    if not values.keys() >= {chosen, rejected}:
        return {}
    rates = rates_by_reward(values)
    return {"p_w": rates[chosen], "p_l": rates[rejected]}


def sampled_messages(frozen: RunConfig, case: Case, number: int, stored: Any) -> tuple[Sequence[Message], bool]:
    """Return the chat messages of a prompt as it was sampled, and whether its context was cut then."""
    prompt = _prompt(frozen, case, number)
    messages = prompt.render(case.item.context)
    cut = stored and stored.get("cut")
    if not cut:
        return messages, False
    return without(messages, prompt.passage(case.item.context), Chunk(start=cut[0], end=cut[1])), True


def _prompt(frozen: RunConfig, case: Case, number: int) -> Prompt:
    """Return the prompt as it was stored; of items that bring their responses, as the recipe makes it."""
    return case.prompts[number] if case.prompts else frozen.recipe.prompts(case)[number]


def trl_row(row: TrainingRow, renderer: Renderer | None = None) -> dict[str, Any]:
    """Return the row in TRL's form, as the trainer reads it, with the tokens that were drawn where they are known.

    `trl_differs` says why stock TRL, which knows only the messages, would train other tokens. A row of several turns,
    or one whose reference sees another prompt, is no row of TRL: its `turns` are as `lrq.trainer.rows` reads them.
    """
    turn = row.turns[0]
    if len(row.turns) > 1 or turn.reference is not None:
        return _several(row, renderer)
    pair = turn.drawn
    opened = pair.rendering.get("opened", "")
    sides = {side: [message(response, opened)] for side, response in pair.sides.items()}
    fields = exports.trl_row(_as_parts(turn.messages) if pair.rendering.get("parts") else turn.messages, **sides)
    extra = {
        "cut": turn.is_cut or None,
        **row.figures,
        **{f"{side}_finish": "length" if response.is_cut else None for side, response in pair.sides.items()},
        "trl_differs": difference(pair) or None,
    }
    tokens = token_fields(pair, turn.messages, renderer)
    kwargs = {"chat_template_kwargs": template_arguments(pair)}
    return fields | kwargs | {name: value for name, value in extra.items() if value is not None} | tokens


def _several(row: TrainingRow, renderer: Renderer | None) -> dict[str, Any]:
    """Return a row of turns: the first has its whole prompt, each later one what the user says then."""
    has_reference = any(turn.reference is not None for turn in row.turns)
    turns = [_turn_fields(turn, number, has_reference=has_reference) for number, turn in enumerate(row.turns)]
    tokens = [_turn_tokens(turn, number, renderer, has_reference) for number, turn in enumerate(row.turns)]
    extra: dict[str, Any] = {"cut": True} if any(turn.is_cut for turn in row.turns) else {}
    if all(tokens):
        extra["tokenizer"] = tokens[0]["tokenizer"]
        turns = [fields | ids for fields, ids in zip(turns, tokens, strict=True)]
    kwargs = {"chat_template_kwargs": template_arguments(row.turns[0].drawn)}
    return {"turns": turns, **row.figures, **kwargs, **extra, "trl_differs": "TRL knows no rows of several turns"}


def _turn_fields(turn: TrainingTurn, number: int, *, has_reference: bool) -> dict[str, Any]:
    pair = turn.drawn
    opened = pair.rendering.get("opened", "")
    prompt = [{"role": "user", "content": turn.followup}] if number and turn.followup else list(turn.messages)
    fields: dict[str, Any] = {"prompt": prompt}
    if has_reference:
        fields["reference"] = list(turn.messages if turn.reference is None else turn.reference)
    for side, response in pair.sides.items():
        fields[side] = [message(response, opened)]
        fields |= {f"{side}_finish": "length"} if response.is_cut else {}
    return fields


def _turn_tokens(turn: TrainingTurn, number: int, renderer: Renderer | None, has_reference: bool) -> dict[str, Any]:
    """Return the tokens that were drawn, of a later turn the answers' alone; nothing where any is not known."""
    ids: dict[str, Any] = {f"{side}_ids": list(response.ids) for side, response in turn.drawn.sides.items()}
    if not number or (has_reference and turn.reference_drawn is None):
        ids = token_fields(turn.drawn, turn.messages, renderer)
    if not has_reference or not all(ids.values()):
        return ids if all(ids.values()) else {}
    behind = turn.reference_drawn
    shown = ids if behind is None else token_fields(behind, turn.reference, renderer)
    return ids | {"reference_ids": shown["prompt_ids"]} if ids and shown else {}


def _as_parts(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Return the messages as templates of multimodal models read them."""
    return [{**message, "content": [{"type": "text", "text": message["content"]}]} for message in messages]


def renderer_of(frozen: RunConfig, model: Path | None = None) -> Renderer | None:
    """Return what renders the prompts of a run as they were sampled; None where no folder of its policy is here.

    `model`: the folder that is to be trained, for a policy behind a server.
    """
    path = model or frozen.config["policy"]["path"]
    try:
        return FolderRenderer(find(str(path))) if path else None
    except UsageError:
        return None
