"""Janus: system messages from values, one prompt each, pairs across them, scores by rubrics."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

import pytest

from lrq.config import Settings
from lrq.domain.errors import UsageError
from lrq.domain.records import Item, NoRow, Prompt, Response, Reward, Row
from lrq.recipes.janus import JANUS, value_sets, values
from lrq.recipes.ports import Answer, Case
from lrq.run_config import snapshot_config
from lrq.sim.questioning import write_system_message

T = TypeVar("T")


def case(prompts: tuple[Prompt, ...] = (), answers: dict[int, str] | None = None, **fields: Any) -> Case:
    settings = {**JANUS.settings, **fields.pop("settings", {})}
    item = Item(id=fields.pop("id", "1"), question="Why is rain wet?", fields=fields)
    responses = tuple(Response(text=text, k=0, prompt=number) for number, text in (answers or {}).items())
    return Case(item=item, texts=JANUS.prompt_texts(), settings=settings, prompts=prompts, responses=responses)


def test_each_system_message_of_the_item_is_a_prompt() -> None:
    made = tuple(JANUS.prompts(case(system=["Be brief.", "Be kind."])))
    assert [message["content"] for prompt in made for message in prompt.render("")] == [
        "Be brief.",
        "Why is rain wet?",
        "Be kind.",
        "Why is rain wet?",
    ]
    assert {prompt.by for prompt in made} == {"policy"}
    assert JANUS.prompts(case(made, system=["Be brief.", "Be kind."])) == ()


def test_without_them_a_teacher_writes_some_from_values() -> None:
    """One preference of each dimension; equal messages are one."""
    asked = tuple(JANUS.prompts(case()))
    assert len(asked) == 3
    assert {prompt.by for prompt in asked} == {"teacher"}
    listed = [line for line in asked[0].messages[0]["content"].splitlines() if line.startswith("- ")]
    assert len(listed) == len(values()) == 4
    answers = JANUS.prompts(case(asked, {0: "Be dry.", 1: " Be dry. ", 2: "Be warm."}))
    assert [prompt.messages[0]["content"] for prompt in answers] == ["Be dry.", "Be warm."]


def test_values_are_drawn_for_the_item_and_no_two_sets_are_alike() -> None:
    assert value_sets("a", 3) == value_sets("a", 3) != value_sets("b", 3)
    drawn = value_sets("a", 20)
    assert all(drawn.count(one) == 1 for one in drawn)


def answered(*texts: str, **fields: Any) -> Case:
    systems = [f"system {number}" for number in range(len(texts))]
    made = tuple(JANUS.prompts(case(system=systems)))
    return case(made, dict(enumerate(texts)), system=systems, **fields)


def test_one_pair_of_an_instruction_prefers_this_system_s_answer() -> None:
    (row,) = JANUS.rows(answered("a", "b", "c"), [])
    assert isinstance(row, Row)
    (turn,) = row.turns
    assert turn.chosen == (turn.prompt, 0)
    assert isinstance(turn.rejected, tuple)
    assert turn.rejected[0] != turn.prompt


def test_or_one_for_each_system_message() -> None:
    made = JANUS.rows(answered("a", "b", "c", settings={"rows": "each"}), [])
    assert [row.turns[0].prompt for row in made if isinstance(row, Row)] == [0, 1, 2]


def test_equal_or_missing_answers_make_no_pair() -> None:
    assert JANUS.rows(answered("a", "a"), []) == [NoRow(reason="two system messages have the same answer")]
    assert JANUS.rows(answered("a"), []) == [NoRow(reason="1 system messages have an answer, two needed")]


class Judge:
    """Answers every rubric with a 4, and keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.sampling: list[Any] = []

    async def __call__(
        self,
        kind: str,
        prompt: str,
        read: Callable[[str], T],
        *,
        dimension: str,
        max_tokens: int,
        sampling: Any = None,
        **_: Any,
    ) -> Answer[T]:
        self.asked.append(prompt)
        self.sampling.append(sampling)
        return Answer(value=read("Good. [RESULT] 4"), text="", calls=("key",))


def test_rubrics_are_a_call_each_and_the_judge_sees_the_system_message() -> None:
    """Unless the settings leave it out, as published. None is asked where nothing is made of the scores."""
    rubrics = [{"criteria": "Kind?"}, {"criteria": "Brief?"}]
    of = answered("a", "b", rubrics=rubrics, settings={"pair_by": "rubric"})
    judge, step = Judge(), JANUS.step("rubric")
    scores = asyncio.run(step.procedure(step.judge(of, judge, None)))  # type: ignore[arg-type]
    assert [(score.dimension, score.prompt, score.value) for score in scores] == [
        ("rubric/1", 0, 4),
        ("rubric/1", 1, 4),
        ("rubric/2", 0, 4),
        ("rubric/2", 1, 4),
    ]
    assert "[System message]\n~~~~\nsystem 1\n~~~~" in judge.asked[1]
    assert judge.sampling == [{"temperature": 1.0, "top_p": 0.9}] * 4, "as GPT-4 was asked"
    hidden = Judge()
    shut = answered("a", rubrics=rubrics, settings={"pair_by": "rubric", "show_system": False})
    asyncio.run(step.procedure(step.judge(shut, hidden, None)))  # type: ignore[arg-type]
    assert not any("System message" in prompt.partition("[Rubric]")[2] for prompt in hidden.asked)


def test_paired_by_system_no_judge_is_asked_and_paired_by_rubric_one_is() -> None:
    """So that a run of the first kind needs none, whatever rubrics its items bring."""
    for pair_by, judged in (("system", False), ("none", False), ("rubric", True)):
        settings = {**JANUS.settings, "pair_by": pair_by}
        assert bool(JANUS.steps_for(settings)) is JANUS.needs_judge(settings) is judged


def given(*texts: str, **fields: Any) -> Case:
    """An item that brings an answer to each of its system messages."""
    systems = [f"system {number}" for number in range(len(texts))]
    made = case(system=systems, **fields)
    return replace(made, responses=tuple(Response(text=text, k=k) for k, text in enumerate(texts)))


def test_answers_that_an_item_brings_are_paired_across_its_system_messages() -> None:
    """The k-th answers the k-th system message, whose prompt the row has."""
    made = JANUS.rows(given("a", "b", "c", settings={"rows": "each"}), [])
    turns = [row.turns[0] for row in made if isinstance(row, Row)]
    assert [(turn.prompt, turn.chosen) for turn in turns] == [(0, (0, 0)), (1, (0, 1)), (2, (0, 2))]
    assert all(turn.rejected != turn.chosen for turn in turns)


def test_each_answer_is_a_demonstration_where_nothing_is_paired() -> None:
    made = JANUS.rows(given("a", "b", settings={"pair_by": "none"}), [])
    assert [
        (row.turns[0].prompt, row.turns[0].chosen, row.turns[0].rejected) for row in made if isinstance(row, Row)
    ] == [
        (0, (0, 0), None),
        (1, (0, 1), None),
    ]
    assert JANUS.carried({**JANUS.settings, "pair_by": "none"}) == ()


def test_by_rubric_the_prompt_is_that_of_the_better_answer() -> None:
    """An item without rubrics makes no pair and says so."""
    rewards = [Reward(k=0, value=2.0), Reward(k=1, value=4.5)]
    by_rubric = {"pair_by": "rubric"}
    (row,) = JANUS.rows(given("a", "b", rubrics=["Kind?"], settings=by_rubric), rewards)
    assert isinstance(row, Row)
    assert (row.turns[0].prompt, row.turns[0].chosen, row.turns[0].rejected) == (1, (0, 1), (0, 0))
    (none,) = JANUS.rows(given("a", "b", settings=by_rubric), rewards)
    assert none == NoRow(reason="the item has no rubrics, and settings.rubrics names none")
    (row,) = JANUS.rows(given("a", "b", settings={**by_rubric, "rubrics": ["Kind?"]}), rewards)
    assert isinstance(row, Row)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"pair_by": "chance"}, "settings.pair_by is system, rubric or none, not 'chance'"),
        ({"rows": "all"}, "settings.rows is one or each, not 'all'"),
        ({"rubrics": ["Kind?", {"low": 1}]}, "settings.rubrics, 2: a rubric has no `criteria`"),
    ],
)
def test_settings_that_cannot_be_are_refused_before_anything_is_begun(settings: dict[str, Any], reason: str) -> None:
    with pytest.raises(UsageError) as refused:
        snapshot_config(Settings(recipe="janus", settings=settings), train=False)
    assert str(refused.value) == reason


def test_a_rubric_that_cannot_be_used_leaves_its_score_unscored() -> None:
    of = answered("a", rubrics=[{"score_descriptions": {"1": "x"}}, "Kind?"], settings={"pair_by": "rubric"})
    step = JANUS.step("rubric")
    bad, good = asyncio.run(step.procedure(step.judge(of, Judge(), None)))  # type: ignore[arg-type]
    assert (bad.state, bad.reason) == ("unscored", "rubric 1: a rubric has no `criteria`")
    assert good.value == 4


def test_the_simulator_writes_a_system_message_for_each_set_of_values() -> None:
    """They differ as the values do, in both languages; another prompt is none of its business."""
    for question in ("Why?", "为什么？"):
        asked = JANUS.prompts(replace(case(), item=Item(id="1", question=question)))
        written = {write_system_message(prompt.messages[0]["content"]) for prompt in asked}
        assert len(written) == 3
        assert "" not in written
    assert write_system_message("Why is a system message needed?\n~~~~\n- this\n~~~~") == ""
