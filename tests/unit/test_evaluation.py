"""Policies compared on held-out items: means of rubrics, of items, of runs; paired differences."""

import json
from pathlib import Path

import pytest

from lrq.domain.records import Item, Response, Score
from lrq.recipes.ports import Case
from lrq.recipes.recipe import mean_rewards
from lrq.reports.evaluation import compare_policies, paired_difference

JANUS = json.loads((Path(__file__).parents[1] / "golden" / "janus_judge.json").read_text(encoding="utf-8"))


def item_reward(values: list[int]) -> float:
    """The reward of a response by the scores of its rubrics."""
    scores = tuple(Score(dimension=f"rubric/{n}", k=0, value=float(value)) for n, value in enumerate(values, 1))
    (reward,) = mean_rewards(Case(item=Item(id="1"), responses=(Response(text="a", k=0),), scores=scores))
    assert reward.value is not None
    return reward.value


def test_an_item_is_the_mean_of_its_rubrics_and_the_whole_the_mean_of_items() -> None:
    """However many rubrics an item has: (4 + 2.75 + 3) / 3 = 3.25, as the published evaluation has it."""
    means = {item: item_reward(values) for item, values in JANUS["aggregate"]["item_scores"].items()}
    (facts,) = compare_policies({"janus": [means]})
    assert f"Average score: {facts['reward']:g}" == JANUS["aggregate"]["average_line"]
    assert "runs" not in facts


def test_runs_are_averaged_item_by_item() -> None:
    """An item that one run left unscored has the mean of the others: (3 + 4) / 2."""
    (facts,) = compare_policies({"a": [{"x": 2.0, "y": 4.0}, {"x": 4.0}]})
    assert facts == {"policy": "a", "items": 2, "reward": 3.5, "runs": [3.0, 4.0]}


def test_the_difference_is_paired_over_common_items() -> None:
    """A gain of exactly 1 on each leaves no width; an item that one policy lacks is left out."""
    before = {str(n): float(n % 3) for n in range(30)}
    after = {item: value + 1 for item, value in before.items()} | {"new": 100.0}
    _, facts = compare_policies({"before": [before], "after": [after]})
    assert (facts["difference"], facts["interval"], facts["items"]) == (1.0, [1.0, 1.0], 31)
    assert paired_difference(before, {"other": 1.0}) == {}


def test_the_interval_is_that_of_the_resampled_mean() -> None:
    """Of differences 0 and 1, half each over 100 items: 0.5 ± 1.96 × 0.05."""
    before = dict.fromkeys(map(str, range(100)), 0.0)
    after = {item: float(int(item) % 2) for item in before}
    low, high = paired_difference(before, after)["interval"]
    assert (low, high) == (pytest.approx(0.402, abs=0.02), pytest.approx(0.598, abs=0.02))
