"""Agreement of a judge with reference scores, against figures computed from the published definitions."""

import json
from pathlib import Path
from typing import Any

import pytest

from lrq.domain.agreement import Agreement, best_constant, bootstrap_intervals, category, compare

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "agreement.json").read_text(encoding="utf-8"))
UNIFORM = GOLDEN["aggregates"][0]["references"]


def assert_reported(found: Agreement, report: dict[str, Any]) -> None:
    assert {name: count for name, count in found.counts.items() if count} == report["counts"]
    assert found.acceptable == pytest.approx(report["acceptable_accuracy"])
    assert found.accurate == pytest.approx(report["accurate"])
    assert found.variation == pytest.approx(report["degree_of_variation"])
    assert found.kappa == pytest.approx(report["quadratic_weighted_kappa"])


@pytest.mark.parametrize("case", GOLDEN["single"])
def test_every_item_falls_into_one_category(case: dict[str, Any]) -> None:
    reference, predicted = case["reference"], case["predicted"]
    assert category(reference, predicted) == case["category"]
    assert compare([reference], [predicted]).variation == pytest.approx(case["mean_abs"])


@pytest.mark.parametrize("case", GOLDEN["aggregates"])
def test_a_report_counts_categories_variation_and_kappa(case: dict[str, Any]) -> None:
    assert_reported(compare(case["references"], case["predictions"]), case["report"])


@pytest.mark.parametrize(("scores", "report"), GOLDEN["constant_predictors_on_a_uniform_test_set"].items())
def test_a_judge_that_always_says_the_same_is_measured_alike(scores: str, report: dict[str, Any]) -> None:
    assert_reported(compare(UNIFORM, [json.loads(scores.replace("(", "[").replace(")", "]"))] * 25), report)


def test_the_best_constant_judge_says_the_middle() -> None:
    scores, found = best_constant(UNIFORM, range(1, 6))
    assert scores == (3, 3)
    assert (found.acceptable, found.accurate) == (0.6, 0.2)


def test_an_interval_holds_its_figure_and_shrinks_to_nothing_where_all_agree() -> None:
    """One for each figure, and for the kappa of each criterion."""
    case = GOLDEN["aggregates"][0]
    intervals = bootstrap_intervals(case["references"], case["predictions"])
    report = case["report"]
    known = {"accurate": report["accurate"], "acceptable": report["acceptable_accuracy"]}
    known["variation"] = report["degree_of_variation"]
    assert all(intervals[name][0] < value < intervals[name][1] for name, value in known.items())
    kappas = zip(report["quadratic_weighted_kappa"], intervals["kappa"], strict=True)
    assert all(low < kappa < high for kappa, (low, high) in kappas)
    alike = bootstrap_intervals(UNIFORM, UNIFORM, resamples=50)
    assert alike == {
        "accurate": (1.0, 1.0),
        "acceptable": (1.0, 1.0),
        "variation": (0.0, 0.0),
        "kappa": [(1.0, 1.0)] * 2,
    }


def test_the_interval_of_a_share_is_as_wide_as_the_binomial_says() -> None:
    """Half of 400 items agree: 0.5 ± 1.96 × 0.025."""
    references, predictions = [[3]] * 400, [[3], [5]] * 200
    low, high = bootstrap_intervals(references, predictions)["accurate"]
    assert (low, high) == (pytest.approx(0.451, abs=0.01), pytest.approx(0.549, abs=0.01))


def test_constants_of_many_criteria_have_one_score_for_all() -> None:
    """Ten criteria of five scores have ten million combinations; 2 and 4 are as good as 3 where half are each."""
    references = [[2] * 10, [4] * 10]
    scores, found = best_constant(references, range(1, 6))
    assert scores == (3,) * 10
    assert (found.acceptable, found.variation) == (1.0, 1.0)


def test_nothing_to_compare_is_an_error() -> None:
    with pytest.raises(ValueError, match="nothing"):
        compare([], [])
    with pytest.raises(ValueError, match="zip"):
        compare([[1]], [])


def test_kappa_of_two_equal_constants_is_one() -> None:
    assert compare([[2], [2]], [[2], [2]]).kappa == [1.0]
    assert compare([[2], [2]], [[3], [3]]).kappa == [0.0]
