"""Conversations scored by several criteria in one call."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest
import yaml

from lrq.config import Settings
from lrq.domain.errors import UsageError
from lrq.domain.records import Item, NoRow, Response, Row, Score
from lrq.domain.rubrics import read_rubric
from lrq.recipes import load_recipe
from lrq.recipes.ports import Case
from lrq.recipes.rubric import EVALYAKS, RUBRIC, conversation, criteria, prompts, read_scores, reference_scores
from lrq.run_config import snapshot_config

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
    assert RUBRIC.rows(case("{'GV': 3}"), []) == [NoRow(reason="no reference scores: its answer has no score for DM")]


def test_a_document_without_turns_is_the_conversation() -> None:
    assert conversation(Item(id="1", context="A: hello")) == "A: hello"
    assert conversation(Item(id="1", fields={"turns": [{"role": "user", "content": "Hi"}]})) == "user: Hi"


def test_chats_and_histories_of_agents_are_conversations() -> None:
    """A call of tools is shown as JSON, what the tool says under its role."""
    call = [{"function": {"name": "search", "arguments": "{}"}}]
    chat = [{"role": "user", "content": "Find it."}, {"role": "tool", "content": "found"}]
    assert conversation(Item(id="1", fields={"messages": chat})) == "user: Find it.\ntool: found"
    turns = [{"from": "gpt", "value": "Yes."}, {"role": "assistant", "content": "", "tool_calls": call}]
    said, called = conversation(Item(id="1", fields={"turns": turns})).splitlines()
    assert said == "gpt: Yes."
    assert called.startswith("assistant: [")
    assert '"search"' in called
    assert conversation(Item(id="1", fields={"turns": [{"A": "Hi", "B": "Ho"}]})) == "A: Hi\nB: Ho"


def test_material_stands_before_the_conversation() -> None:
    item = Item(id="1", context="PHOTO_ONE: a boat", fields={"turns": TURNS})
    made = Case(item=item, texts=RUBRIC.prompt_texts(), settings={**RUBRIC.settings, "rubrics": CRITERIA})
    (prompt,) = prompts(made)
    text = prompt.messages[0]["content"]
    assert text.index("[Material that the conversation is about]\n~~~~\nPHOTO_ONE") < text.index("[Conversation]")
    assert "[Material" not in case().prompts[0].messages[0]["content"]


def asked_again(*replies: str) -> Case:
    """A case whose prompts have been answered one after the other."""
    made = case()
    for number, text in enumerate(replies):
        if number:
            made = replace(made, prompts=(*made.prompts, *prompts(made)))
        made = replace(made, responses=(*made.responses, Response(text=text, k=0, prompt=number)))
    return made


def test_an_unreadable_reply_is_asked_for_again_and_the_last_counts() -> None:
    """With the same prompt at another temperature, five times in all; what came before has no scores."""
    good = "[RESULT] GV: 4\n[RESULT] DM: 2"
    made = asked_again("I cannot tell.", "[RESULT] GV: 4", good)
    assert [prompt.messages for prompt in made.prompts] == [made.prompts[0].messages] * 3
    assert [prompt.sampling["temperature"] for prompt in made.prompts] == [0.01, 0.95, 0.95]
    assert prompts(made) == ()
    assert [(one.prompt, one.value) for one in scores(made)] == [(2, 4), (2, 2)]
    given_up = asked_again(*["No."] * 5)
    assert prompts(given_up) == ()
    assert {(one.prompt, one.reason) for one in scores(given_up)} == {
        (4, "the reply has no score for GV"),
        (4, "the reply has no score for DM"),
    }


@pytest.mark.parametrize(("part", "count"), [(1, 2), (2, 2), (3, 3), (4, 3)])
def test_a_preset_has_the_criteria_of_its_part(part: int, count: int) -> None:
    """Whole numbers from 1 to 5, described at 1, 3 and 5; the candidate alone is scored."""
    recipe = EVALYAKS[f"evalyaks-{part}"]
    rubrics = [read_rubric(value) for value in recipe.settings["rubrics"]]
    names = ["GRAMMAR_AND_VOCABULARY", "DISCOURSE_MANAGEMENT", "INTERACTIVE_COMMUNICATION"]
    assert [rubric.name for rubric in rubrics] == names[:count]
    assert {(rubric.low, rubric.high, tuple(rubric.descriptions)) for rubric in rubrics} == {(1, 5, (1, 3, 5))}
    assert recipe.settings["speaker"] == "Candidate"
    assert load_recipe(recipe.name) is recipe


def test_descriptions_are_left_out_and_the_scale_stays() -> None:
    (prompt,) = case(show_descriptions=False).prompts
    text = prompt.messages[0]["content"]
    assert "[RESULT] DM: 1-2" in text
    assert "Links\n~~~~" in text


def test_the_policy_may_score_and_then_no_judge_is_asked() -> None:
    assert case(scored_by="policy").prompts[0].by == "policy"
    assert not RUBRIC.needs_judge({**RUBRIC.settings, "scored_by": "policy"})
    assert RUBRIC.needs_judge(RUBRIC.settings)
    with pytest.raises(UsageError, match=r"settings\.scored_by is judge or policy, not 'nobody'"):
        snapshot_config(Settings(recipe="rubric", settings={"scored_by": "nobody"}), train=False)


def test_criteria_are_read_from_yaml_whose_keys_are_numbers() -> None:
    rubrics = yaml.safe_load("[{name: GV, criteria: Words, descriptions: {1: few, 5: many}}]")
    frozen = snapshot_config(Settings(recipe="rubric", settings={"rubrics": rubrics}), train=False)
    made = Case(item=Item(id="1"), texts=RUBRIC.prompt_texts(), settings=frozen["settings"])
    assert criteria(made)["GV"].descriptions == {1: "few", 5: "many"}


def test_an_item_whose_rubric_cannot_be_used_asks_nothing_and_says_why() -> None:
    item = Item(id="1", fields={"turns": TURNS, "rubrics": [{"low": 1}]})
    made = Case(item=item, texts=RUBRIC.prompt_texts(), settings=RUBRIC.settings)
    assert prompts(made) == ()
    assert RUBRIC.rows(made, []) == [NoRow(reason="no reference scores: a rubric has no `criteria`")]
    bare = Case(item=Item(id="1"), texts=RUBRIC.prompt_texts(), settings=RUBRIC.settings)
    assert RUBRIC.rows(bare, []) == [NoRow(reason="no criteria: neither the item nor settings.rubrics has any")]
