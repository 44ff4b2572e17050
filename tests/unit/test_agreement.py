"""Agreement of a judge with reference scores, against figures computed from the published definitions."""

import json
from pathlib import Path
from typing import Any

import pytest

from lrq.domain.agreement import Agreement, best_constant, bootstrap_interval, category, compare, quadratic_kappa

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "agreement.json").read_text(encoding="utf-8"))
UNIFORM = GOLDEN["aggregates"][0]["references"]


def check(found: Agreement, report: dict[str, Any]) -> None:
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
    check(compare(case["references"], case["predictions"]), case["report"])


@pytest.mark.parametrize(("scores", "report"), GOLDEN["constant_predictors_on_a_uniform_test_set"].items())
def test_a_judge_that_always_says_the_same_is_measured_alike(scores: str, report: dict[str, Any]) -> None:
    check(compare(UNIFORM, [json.loads(scores.replace("(", "[").replace(")", "]"))] * 25), report)


def test_the_best_constant_judge_says_the_middle() -> None:
    scores, found = best_constant(UNIFORM, range(1, 6))
    assert scores == (3, 3)
    assert (found.acceptable, found.accurate) == (0.6, 0.2)


def test_an_interval_holds_its_figure_and_shrinks_to_nothing_where_all_agree() -> None:
    case = GOLDEN["aggregates"][0]
    low, high = bootstrap_interval(case["references"], case["predictions"], lambda found: found.accurate)
    assert low < 0.48 < high
    assert bootstrap_interval(UNIFORM, UNIFORM, lambda found: found.accurate, resamples=50) == (1.0, 1.0)


def test_nothing_to_compare_is_an_error() -> None:
    with pytest.raises(ValueError, match="nothing"):
        compare([], [])
    with pytest.raises(ValueError, match="zip"):
        compare([[1]], [])


def test_kappa_of_two_equal_constants_is_one() -> None:
    assert quadratic_kappa([2, 2], [2, 2]) == 1.0
    assert quadratic_kappa([2, 2], [3, 3]) == 0.0
