"""Conversations scored by several criteria in one call."""

import asyncio
from typing import Any

import pytest

from lrq.domain.records import Item, NoRow, Response, Row, Score
from lrq.domain.rubrics import read_rubric
from lrq.recipes.ports import Case
from lrq.recipes.rubric import RUBRIC, conversation, prompts, read_scores, reference_scores

CRITERIA = [
    {"name": "GV", "criteria": "Range of words"},
    {"name": "DM", "criteria": "Links", "descriptions": ["a", "b"]},
]
TURNS = [{"speaker": "Examiner", "text": "Where do you live?"}, {"Candidate": "In a small town."}, "(pause)"]


def case(answer: str | None = None, *replies: str, **settings: Any) -> Case:
    item = Item(id="1", answer=answer, fields={"turns": TURNS})
    made = Case(item=item, texts=RUBRIC.prompt_texts(), settings={**RUBRIC.settings, "rubrics": CRITERIA, **settings})
    responses = tuple(Response(text=text, k=k) for k, text in enumerate(replies))
    return Case(item=item, texts=made.texts, settings=made.settings, prompts=tuple(prompts(made)), responses=responses)


def scores(of: Case) -> list[Score]:
    step = RUBRIC.step("rubric")
    return list(asyncio.run(step.procedure(step.judge(of, None, None))))  # type: ignore[arg-type]


def test_the_judge_gets_the_conversation_and_all_criteria_in_one_prompt() -> None:
    (prompt,) = case(speaker="Candidate").prompts
    text = prompt.messages[0]["content"]
    assert prompt.by == "judge"
    assert "Examiner: Where do you live?\nCandidate: In a small town.\n(pause)" in text
    assert "Candidate alone" in text
    assert "[RESULT] GV: 1-5\n[RESULT] DM: 1-2" in text
    assert text.index("[Criterion GV]") < text.index("[Criterion DM]") < text.index("[Conversation]")


def test_a_reply_is_read_criterion_by_criterion() -> None:
    """The last line of each counts; one that is missing is unscored with its reason, the others keep theirs."""
    found = scores(case(None, "[RESULT] GV: 2\nNo:\n[RESULT] GV: 4\n[RESULT] DM: 2", "[RESULT] GV: 9"))
    assert [(one.k, one.dimension, one.value) for one in found] == [
        (0, "rubric/GV", 4),
        (0, "rubric/DM", 2),
        (1, "rubric/GV", None),
        (1, "rubric/DM", None),
    ]
    assert "outside 1 to 5" in found[2].reason
    assert found[3].reason == "the reply has no score for DM"


@pytest.mark.parametrize(
    "reply", ['so {"GV": 3, "DM": 1}', "{'GV': 3, 'DM': 1} </s>", "{'GV': 1} then {'GV': 3, 'DM': 1}"]
)
def test_objects_of_either_language_are_read(reply: str) -> None:
    assert read_scores(reply, {one["name"]: read_rubric(one) for one in CRITERIA}) == {"GV": 3, "DM": 1}


def test_reference_scores_make_a_demonstration() -> None:
    (row,) = RUBRIC.rows(case("{'GV': 3, 'DM': 2}"), [])
    assert isinstance(row, Row)
    assert (row.turns[0].chosen, row.turns[0].rejected) == ("[RESULT] GV: 3\n[RESULT] DM: 2", None)
    assert reference_scores(case('{"GV": 3, "DM": 2}')) == {"rubric/GV": 3, "rubric/DM": 2}
    assert RUBRIC.rows(case("{'GV': 3}"), []) == [NoRow(reason="no reference scores: the reply has no score for DM")]


def test_a_document_without_turns_is_the_conversation() -> None:
    assert conversation(Item(id="1", context="A: hello")) == "A: hello"
    assert conversation(Item(id="1", fields={"turns": [{"role": "user", "content": "Hi"}]})) == "user: Hi"
