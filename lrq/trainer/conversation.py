"""A row of several turns as token ids: one conversation for each side, whose history is that side's earlier answers.

Every turn is rendered by itself, later ones behind a short exchange that is taken away again. So a long first prompt is
tokenized once, and answers keep the tokens that were drawn.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lrq.trainer.rows import PreferenceRow
from lrq.trainer.turns import ANSWER

BEFORE = [{"role": "user", "content": "a"}, {"role": "assistant", "content": ANSWER}]

Ids = dict[str, Any]  # prompt_ids, chosen_ids, rejected_ids; of several turns also masks and what the reference sees


@dataclass(frozen=True, kw_only=True)
class Opening:
    """The exchange before a later turn: its tokens up to the end of the answer, and how many end its turn."""

    ids: list[int]
    end: int


def opening(tokenizer: Any) -> Opening:
    """Render the exchange before a later turn; raises ValueError where the template leaves the answer out."""
    text = tokenizer.apply_chat_template(BEFORE, tokenize=False)
    _, answer, tail = text.rpartition(ANSWER)
    if not answer:
        raise ValueError("the chat template leaves out earlier answers")
    conversation, end = tokenizer([text, tail], add_special_tokens=False)["input_ids"]
    return Opening(ids=conversation[: len(conversation) - len(end)], end=len(end))


def parts(row: PreferenceRow) -> Iterator[PreferenceRow]:
    """Yield the rows of one turn of which `row` is made: its first turn, the later ones, what the reference sees."""
    yield replace(row, later=(), reference=())
    for turn in row.later:
        yield replace(turn, prompt=[*BEFORE, *turn.prompt], ids=None)
    yield from row.reference


def join(row: PreferenceRow, encoded: Sequence[Ids], before: Opening | None) -> Ids:
    """Make one sequence for each side of `encoded`, the tokens of the row's `parts`.

    `before` may be None for a row of one turn. Masks are 1 on answers, 0 on what the user says between them. Raises
    ValueError where a turn does not follow.
    """
    first, later = encoded[0], encoded[1 : 1 + len(row.later)]
    joined: Ids = {**first, "reference": list(encoded[1 + len(row.later) :])}
    for side in row.sides if later and before else ():
        ids = list(first[f"{side}_ids"])
        mask = [1] * len(ids)
        for turn, ids_of_turn in zip(row.later, later, strict=True):
            between = _between(ids, ids_of_turn["prompt_ids"], before)  # type: ignore[arg-type]
            answer = getattr(turn.ids, side) if turn.ids else ids_of_turn[f"{side}_ids"]
            ids += [*between, *answer]
            mask += [0] * len(between) + [1] * len(answer)
        joined |= {f"{side}_ids": ids, f"{side}_mask": mask}
    return joined


def _between(answered: Sequence[int], prompt: Sequence[int], before: Opening) -> Sequence[int]:
    """Return what stands between an answer and the next: its turn's end, the user's turn, the next one's start."""
    start = len(before.ids)
    if list(prompt[:start]) != before.ids:
        raise ValueError("the chat template renders a later turn otherwise than the first")
    tail = prompt[start:]
    ended = next((n for n in range(before.end + 1, 0, -1) if list(answered[-n:]) == list(tail[:n])), 0)
    return tail[ended:]
