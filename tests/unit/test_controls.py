"""The proof's controls: rows as the method makes them, with what is better drawn at random."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from lrq.domain.records import Item, NoRow, Prompt, Response, Reward, Row
from lrq.recipes import Case, Recipe, load_recipe

FILE = Path(__file__).parents[2] / "examples" / "recipes" / "controls.py"
ITEMS = 400


def recipe(name: str) -> Recipe:
    return load_recipe(f"{FILE}:{name}")


def case(number: int, prompts: Sequence[Prompt], texts: Mapping[tuple[int, int], str], settings: Any) -> Case:
    """Return an item whose responses, by prompt and k, have these texts."""
    responses = tuple(Response(prompt=prompt, k=k, text=f"{text} {number}") for (prompt, k), text in texts.items())
    return Case(item=Item(id=f"item-{number}"), prompts=tuple(prompts), responses=responses, settings=settings)


@pytest.mark.parametrize("name", ["LONGREWARD", "SPPO"])
def test_any_two_responses_may_become_a_pair_in_either_order(name: str) -> None:
    """Four responses, twelve ordered pairs: each has a share of 1/12, give or take four standard deviations (0.055)."""
    settings = {**recipe(name).settings, "min_scored": 2}
    rewards = [Reward(k=k, value=value) for k, value in enumerate((0.9, 0.6, 0.4, 0.1))]
    pairs: dict[tuple[int, int], int] = {}
    for number in range(ITEMS):
        of = case(number, [Prompt(messages=())], {(0, k): "abcd"[k] for k in range(4)}, settings)
        (row,) = recipe(name).rows(of, rewards)
        assert isinstance(row, Row)
        assert row.margin == pytest.approx(0.8)
        (turn,) = row.turns
        assert isinstance(turn.chosen, tuple)
        assert isinstance(turn.rejected, tuple)
        pair = turn.chosen[1], turn.rejected[1]
        pairs[pair] = pairs.get(pair, 0) + 1
    assert len(pairs) == 12
    assert all(abs(count / ITEMS - 1 / 12) < 0.055 for count in pairs.values()), pairs


def test_half_of_the_rows_prefer_the_answer_to_the_long_prompt() -> None:
    """A share of 1/2, give or take four standard deviations (0.1); the reference's prompt stays the short one."""
    longpo = recipe("LONGPO")
    asked = [Prompt(messages=(), name=name) for name in ("short", "long")]
    exchanged = 0
    for number in range(ITEMS):
        texts = {(0, 0): "the cargo was timber", (1, 0): "the captain was Evans"}
        (row,) = longpo.rows(case(number, asked, texts, longpo.settings), [])
        assert not isinstance(row, NoRow), row
        (turn,) = row.turns
        assert {turn.chosen, turn.rejected} == {(0, 0), (1, 0)}
        assert (turn.prompt, turn.reference) == (1, 0)
        exchanged += turn.chosen == (1, 0)
    assert abs(exchanged / ITEMS - 0.5) < 0.1
