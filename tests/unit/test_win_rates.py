"""Win rates from pairwise comparisons, against the published formula and code."""

import json
from pathlib import Path
from typing import Any

import pytest

from lrq.domain.win_rates import (
    collapsed_matrix,
    cycles,
    logit_matrix,
    preference_matrix,
    reward_matrix,
    sigmoid,
    win_rates,
)

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "win_rates.json").read_text(encoding="utf-8"))


def close(found: Any, expected: Any) -> bool:
    return all(row == pytest.approx(wanted, abs=1e-6) for row, wanted in zip(found, expected, strict=True))


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=lambda case: case["name"])
def test_win_rates_are_those_of_the_paper_and_of_the_released_code(case: dict[str, Any]) -> None:
    """Both formulas, each under its own name."""
    paper, official = logit_matrix(case["logits"]), collapsed_matrix(case["logits"])
    assert close(paper, case["paper"]["probability"])
    assert win_rates(paper) == pytest.approx(case["paper"]["win_rate"], abs=1e-6)
    assert close(official, case["official"]["probability"])
    assert win_rates(official) == pytest.approx(case["official"]["win_rate"], abs=1e-6)


@pytest.mark.parametrize("case", GOLDEN["other_k"], ids=lambda case: case["name"])
def test_any_number_of_responses_will_do(case: dict[str, Any]) -> None:
    """The released scripts know five alone."""
    assert close(collapsed_matrix(case["logits"]), case["probability"])


@pytest.mark.parametrize("case", GOLDEN["third_response"])
def test_a_third_response_changes_a_pair_in_the_released_code_alone(case: dict[str, Any]) -> None:
    assert collapsed_matrix(case["logits"])[0][1] == pytest.approx(case["P_0_beats_1"], abs=1e-6)
    logit = case["logits"][0][1]
    assert logit_matrix(case["logits"])[0][1] == pytest.approx(sigmoid(logit))


def test_a_liking_for_the_first_place_cancels_out() -> None:
    """A judge that always prefers what it is shown first knows no better answer."""
    asked = {(i, j): 1.0 for i in range(3) for j in range(3) if i != j}
    assert preference_matrix(asked, 3) == [[0.5] * 3] * 3


def test_a_pair_that_was_never_compared_is_an_error() -> None:
    with pytest.raises(ValueError, match="responses 0 and 2"):
        preference_matrix({(0, 1): 1.0, (2, 1): 0.0}, 3)


def test_rock_paper_scissors_is_one_cycle_and_no_ranking() -> None:
    """Win rates hide it, the matrix does not."""
    ring = [[0.5, 0.9, 0.1], [0.1, 0.5, 0.9], [0.9, 0.1, 0.5]]
    assert win_rates(ring) == pytest.approx([0.5] * 3)
    assert cycles(ring) == [(0, 1, 2)]
    assert cycles(reward_matrix([3.0, 1.0, 2.0])) == []


def test_rewards_win_and_tie() -> None:
    assert win_rates(reward_matrix([7.0, 5.0, 7.0, 1.0])) == pytest.approx([0.75, 0.375, 0.75, 0.125])
    assert sigmoid(-1000) == 0.0
    assert sigmoid(1000) == 1.0
