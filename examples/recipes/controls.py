"""The methods without their preference: the same steps, rows and loss, with what is better drawn at random.

What a model gains from such rows it owes to training as such. Run one with --recipe examples/recipes/controls.py:SPPO.
"""

import random
from collections.abc import Sequence
from dataclasses import replace

from lrq.domain.records import NoRow, Reward, Row, Turn
from lrq.recipes import Case, Recipe
from lrq.recipes.longpo import LONGPO as _LONGPO
from lrq.recipes.longreward import LONGREWARD as _LONGREWARD
from lrq.recipes.sppo import SPPO as _SPPO


def _rng(case: Case) -> random.Random:
    """Return noise of its own for each item and round: the responses differ from round to round."""
    return random.Random("".join([case.item.id, *(response.text for response in case.responses)]))


def shuffle_rewards(recipe: Recipe) -> Recipe:
    """Deal each item's rewards out among its responses at random: any two that differ may become a pair."""

    def rows(case: Case, rewards: Sequence[Reward]) -> Sequence[Row | NoRow]:
        values = [reward.value for reward in rewards]
        _rng(case).shuffle(values)
        dealt = [replace(reward, value=value) for reward, value in zip(rewards, values, strict=True)]
        return recipe.rows(replace(case, scores=()), dealt)  # the scores would tell who won

    return replace(recipe, name=f"{recipe.name}-control", rows=rows)


def flip_rows(recipe: Recipe) -> Recipe:
    """Exchange chosen and rejected in half of the rows."""

    def rows(case: Case, rewards: Sequence[Reward]) -> Sequence[Row | NoRow]:
        rng = _rng(case)
        return [_exchange(row) if isinstance(row, Row) and rng.random() < 0.5 else row for row in made(case, rewards)]

    made = recipe.rows
    return replace(recipe, name=f"{recipe.name}-control", rows=rows)


def _exchange(row: Row) -> Row:
    return replace(row, turns=tuple(_exchange_turn(turn) for turn in row.turns))


def _exchange_turn(turn: Turn) -> Turn:
    return replace(turn, chosen=turn.rejected, rejected=turn.chosen)


LONGREWARD, SPPO, LONGPO = shuffle_rewards(_LONGREWARD), shuffle_rewards(_SPPO), flip_rows(_LONGPO)
