"""Rubrics in the shapes in which they are published, and the marks of their judges."""

import json
from pathlib import Path
from typing import Any

import pytest

from lrq.domain.errors import Unreadable
from lrq.domain.rubrics import BadRubric, Rubric, read_result, read_rubric

GOLDEN = Path(__file__).parents[1] / "golden"
PROMETHEUS = json.loads((GOLDEN / "prometheus_parse.json").read_text(encoding="utf-8"))
JANUS = json.loads((GOLDEN / "janus_judge.json").read_text(encoding="utf-8"))
# Where we read what prometheus-eval does not: the last mark has a whole number of the scale, in bold.
READ_BESIDES = {"Rated [RESULT] **4**": 4}

FIVE = {score: f"like {score}" for score in range(1, 6)}


@pytest.mark.parametrize(
    "value",
    [
        {"criteria": "Is it kind?", "score_descriptions": {str(score): text for score, text in FIVE.items()}},
        {"criterion": "Is it kind?", "descriptions": list(FIVE.values())},
        {"orig_criteria": "Is it kind?"} | {f"orig_score{score}_description": text for score, text in FIVE.items()},
    ],
)
def test_every_published_shape_is_the_same_rubric(value: dict[str, Any]) -> None:
    rubric = read_rubric(value)
    assert rubric == Rubric(criteria="Is it kind?", descriptions=FIVE)
    assert rubric.text().splitlines() == ["Is it kind?", *(f"{score}: like {score}" for score in range(1, 6))]


def test_a_text_alone_is_a_criterion_and_a_scale_may_be_named() -> None:
    assert read_rubric(" Is it kind? ") == Rubric(criteria="Is it kind?")
    found = read_rubric({"criteria": "Is it kind?", "low": 0, "high": 10, "name": "K"})
    assert (found.low, found.high, found.name) == (0, 10, "K")
    assert read_rubric({"criteria": "c", "low": 0, "descriptions": ["no", "yes"]}).descriptions == {0: "no", 1: "yes"}


@pytest.mark.parametrize(
    "value",
    [None, 3, "", "  ", {}, {"criteria": ""}, {"criteria": "c", "low": 5, "high": 5}, {"criteria": "c", "low": True},
     {"criteria": "c", "score_descriptions": {"best": "x"}}],
)  # fmt: skip
def test_a_rubric_without_a_criterion_or_a_scale_is_refused(value: Any) -> None:
    with pytest.raises(BadRubric):
        read_rubric(value)


@pytest.mark.parametrize(
    ("reply", "score"),
    [
        ("Well argued. [RESULT] 4", 4),
        ("A score 5 answer would name its sources; this one does not. [RESULT] 2", 2),
        ("First [RESULT] 4, on reflection [RESULT] 2", 2),
        ("[RESULT] (5)", 5),
        ("[RESULT] 4/5", 4),
        ("[RESULT]: 3", 3),
        ("[Result] Score: 2", 2),
        ("[RESULT] score of 1", 1),
        ("[RESULT] 5 out of 5", 5),
        ("[RESULT] **4**", 4),
        ("Fair. (Score 5)", 5),
        ("Fair. [Score 4]", 4),
        ("Fair. score: 3", 3),
        ("[SCORE] 1", 1),
        ("Result: 4", 4),
    ],
)
def test_the_last_result_is_the_score(reply: str, score: float) -> None:
    assert read_result(reply) == score


@pytest.mark.parametrize(
    "reply",
    ["", "no mark", "[RESULT] 7", "[RESULT] 0", "[RESULT] 10", "[RESULT] 3.5", "[RESULT] four", "[RESULT] -1",
     "[RESULT] 4/10", "Score: 2 out of 5 because it is short", "The score is not 3.", "Score: 2.5", "[RESULT]"],
)  # fmt: skip
def test_what_is_no_whole_number_of_the_scale_is_unreadable(reply: str) -> None:
    with pytest.raises(Unreadable):
        read_result(reply)


def test_the_scale_is_the_rubric_s() -> None:
    assert read_result("[RESULT] 10/10", 0, 10) == 10
    with pytest.raises(Unreadable, match="outside 2 to 4"):
        read_result("[RESULT] 5", 2, 4)


def score_or_none(reply: str) -> float | None:
    try:
        return read_result(reply)
    except Unreadable:
        return None


@pytest.mark.parametrize(
    ("reply", "score"),
    [(case["reply"], case["got"]) for case in PROMETHEUS["published_cases"] if case["mode"] == "absolute"]
    + [(case["reply"], case["prometheus_eval"]) for case in PROMETHEUS["janus_replies_through_it"]],
)
def test_replies_are_read_as_prometheus_eval_reads_them(reply: str, score: float | None) -> None:
    assert score_or_none(reply) == READ_BESIDES.get(reply, score)


@pytest.mark.parametrize("case", JANUS["parse"], ids=lambda case: case["reply"])
def test_where_janus_differs_it_takes_the_first_number_or_one_outside_the_scale(case: dict[str, Any]) -> None:
    """Its own figures stand where the reply's only number is the whole one after the last mark."""
    taken_otherwise = {
        "Feedback: a score 5 answer would cite sources. This one does not. [RESULT] 2": 2,
        "[RESULT] 7": None,
        "[RESULT] 0": None,
        "[RESULT] 3.5": None,
        "Score: 2 out of 5 because": None,
        **READ_BESIDES,
    }
    reply = case["reply"]
    assert score_or_none(reply) == taken_otherwise.get(reply, case["score"])
