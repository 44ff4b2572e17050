"""Janus: system messages from values, one prompt each, pairs across them, scores by rubrics."""

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

from lrq.domain.records import Item, NoRow, Prompt, Response, Row
from lrq.recipes.janus import JANUS, value_sets, values
from lrq.recipes.ports import Answer, Case

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

    async def __call__(
        self, kind: str, prompt: str, read: Callable[[str], T], *, dimension: str, max_tokens: int, draw: int = 0
    ) -> Answer[T]:
        self.asked.append(prompt)
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
    hidden = Judge()
    shut = answered("a", rubrics=rubrics, settings={"pair_by": "rubric", "show_system": False})
    asyncio.run(step.procedure(step.judge(shut, hidden, None)))  # type: ignore[arg-type]
    assert not any("System message" in prompt.partition("[Rubric]")[2] for prompt in hidden.asked)
    assert asyncio.run(step.procedure(step.judge(answered("a", rubrics=rubrics), Judge(), None))) == ()  # type: ignore[arg-type]
