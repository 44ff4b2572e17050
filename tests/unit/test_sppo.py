"""SPPO's tournament of K responses, judged by a fake that compares by rule."""

import re
from collections.abc import Callable, Sequence
from typing import TypeVar

import pytest

from lrq.domain.errors import Unreadable, Unscored
from lrq.domain.records import Item, NoRow, Passage, Response, Row, Score
from lrq.recipes.pairwise import read_preference
from lrq.recipes.ports import Answer, Case
from lrq.recipes.recipe import mean_rewards
from lrq.recipes.sppo import SPPO

T = TypeVar("T")
Rule = Callable[[str, str], str]  # of the two answers as shown → the letter


class Judge:
    """Fulfils Ask: the letter that a rule gives for the two answers of the prompt."""

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.asked: list[str] = []

    async def __call__(
        self, kind: str, prompt: str, read: Callable[[str], T], *, dimension: str, max_tokens: int, draw: int = 0
    ) -> Answer[T]:
        self.asked.append(prompt)
        first, second = (re.search(rf"\[(?:Answer |回答){n}\]\n~+\n(.*?)\n~+", prompt, re.DOTALL) for n in "AB")
        assert first
        assert second
        reply = f"[[{self.rule(first[1], second[1])}]]"
        return Answer(value=read(reply), text=reply, calls=(f"key-{len(self.asked)}",))


async def nearest(queries: Sequence[str], *, count: int, chunk_tokens: int) -> Sequence[Sequence[Passage]]:
    return [[Passage(index=0, start=0, end=4, text="word")] for _ in queries]


def case(*texts: str, context: str = "", question: str = "Which?") -> Case:
    responses = tuple(Response(text=text, k=k) for k, text in enumerate(texts))
    item = Item(id="1", question=question, context=context)
    return Case(item=item, texts=SPPO.prompt_texts(), settings=SPPO.settings, responses=responses)


async def scored(of: Case, judge: Judge) -> Case:
    step = SPPO.step("pairwise")
    scores = await step.procedure(step.judge(of, judge, nearest))
    return Case(item=of.item, texts=of.texts, settings=of.settings, responses=of.responses, scores=tuple(scores))


def rows(of: Case) -> Sequence[Row | NoRow]:
    return SPPO.rows(of, mean_rewards(of))


def longer(first: str, second: str) -> str:
    return "A" if len(first) > len(second) else "B"


async def test_every_pair_is_compared_in_both_orders() -> None:
    """K (K - 1) questions; a win rate counts a response against itself as a half."""
    judge = Judge(longer)
    found = await scored(case("a", "abc", "ab"), judge)
    assert len(judge.asked) == 6
    assert [score.value for score in found.scores] == pytest.approx([0.5 / 3, 2.5 / 3, 1.5 / 3])
    assert found.scores[0].evidence["matrix"] == [[0.5, 0, 0], [1, 0.5, 1], [1, 0, 0.5]]
    (row,) = rows(found)
    assert isinstance(row, Row)
    assert (row.turns[0].chosen, row.turns[0].rejected) == ((0, 1), (0, 0))
    assert row.figures == pytest.approx({"p_w": 2.5 / 3, "p_l": 0.5 / 3})


async def test_a_judge_that_likes_a_place_prefers_nothing() -> None:
    """All win equally often, and no row is made of the order."""
    found = await scored(case("a", "b", "c"), Judge(lambda first, second: "A"))
    assert {score.value for score in found.scores} == {0.5}
    assert rows(found) == [NoRow(reason="all responses win equally often")]


async def test_a_cycle_is_said_and_not_trained_on() -> None:
    """Rock beats scissors, scissors beat paper, paper beats rock."""
    wins = {("rock", "scissors"), ("scissors", "paper"), ("paper", "rock")}
    found = await scored(case("rock", "paper", "scissors"), Judge(lambda a, b: "A" if (a, b) in wins else "B"))
    assert rows(found) == [NoRow(reason="all responses win equally often; 1 of its triples are cycles")]


async def test_who_wins_most_must_beat_who_wins_least() -> None:
    """Else the pair would say the contrary of the comparison that was paid for."""
    wins = {"ab", "ac", "ae", "bc", "bd", "ce", "cd", "eb", "ed", "da"}  # a loses to d alone, which loses to all others
    found = await scored(case(*"abcde"), Judge(lambda x, y: "A" if x + y in wins else "B"))
    (row,) = rows(found)
    assert isinstance(row, NoRow)
    assert "does not beat" in row.reason
    assert "cycles" in row.reason


async def test_equal_texts_are_one_contestant_and_tie() -> None:
    judge = Judge(longer)
    found = await scored(case("same", "same", "other one"), judge)
    assert len(judge.asked) == 2
    assert [score.value for score in found.scores] == pytest.approx([1 / 3, 1 / 3, 2.5 / 3])


async def test_a_comparison_that_cannot_be_read_leaves_the_item_unscored() -> None:
    """A win rate over fewer opponents would be another figure."""

    def rule(first: str, second: str) -> str:
        if "b" in (first, second):
            raise Unscored("no readable reply")
        return "A"

    found = await scored(case("a", "b", "c"), Judge(rule))
    assert {score.state for score in found.scores} == {"unscored"}
    assert found.scores[0].reason == "comparison of 0 with 1: no readable reply, and 3 more"
    assert isinstance(rows(found)[0], NoRow)


async def test_passages_are_shown_where_there_is_a_document() -> None:
    judge = Judge(longer)
    await scored(case("a", "ab", context="word", question="什么？"), judge)
    assert all("[文段1]\n~~~~\nword\n~~~~\n\n[回答A]" in prompt for prompt in judge.asked)
    assert judge.asked[0].startswith("任务：pairwise")
    without = Judge(longer)
    await scored(case("a", "ab"), without)
    assert not any("Passage" in prompt.partition("[Question]")[2] for prompt in without.asked)


@pytest.mark.parametrize(
    ("reply", "value"),
    [
        ("so [[A]]", 1.0),
        ("[[B]]", 0.0),
        ("[[ c ]].", 0.5),
        ("[[A]] no, [[B]]", 0.0),
        ("[[Answer A]]", 1.0),
        ("[[**B**]]", 0.0),
    ],
)
def test_the_last_mark_names_the_better(reply: str, value: float) -> None:
    assert read_preference(reply) == value


@pytest.mark.parametrize("reply", ["", "A", "[[A", "[[D]]", "[[A and B]]", "[[A]] or rather [[neither]]"])
def test_anything_else_is_unreadable(reply: str) -> None:
    with pytest.raises(Unreadable):
        read_preference(reply)


def test_several_prompts_are_tournaments_of_their_own() -> None:
    """Each yields its own row or reason."""
    scores = [
        Score(dimension="win_rate", k=k, prompt=p, value=v) for p, k, v in [(0, 0, 0.9), (0, 1, 0.1), (1, 0, 0.5)]
    ]
    responses = tuple(Response(text=str(score), k=score.k, prompt=score.prompt) for score in scores)
    of = Case(item=Item(id="1"), settings=SPPO.settings, responses=responses, scores=tuple(scores))
    first, second = rows(of)
    assert isinstance(first, Row)
    assert second == NoRow(reason="1 of 1 responses have a win rate, 2 needed")
