"""SPPO's tournament of K responses, judged by a fake that compares by rule."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pytest

from lrq.domain.errors import Unreadable, Unscored
from lrq.domain.records import Item, NoRow, Passage, Response, Row, Score
from lrq.recipes.pairwise import read_preference
from lrq.recipes.ports import Answer, Case
from lrq.recipes.recipe import mean_rewards
from lrq.recipes.sppo import SPPO

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "win_rates.json").read_text(encoding="utf-8"))
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


class Model:
    """Fulfils Prefer: the rows of a table, one for each text."""

    def __init__(self, rows: Sequence[Sequence[float]]) -> None:
        self.rows = rows
        self.asked: list[tuple[str, ...]] = []

    async def __call__(self, prompt: str, responses: Sequence[str], *, dimension: str) -> Answer[list[list[float]]]:
        self.asked.append((prompt, *responses))
        return Answer(value=[list(row) for row in self.rows], text="", calls=("key",))


class Mute:
    """Fulfils Prefer, and cannot."""

    async def __call__(self, prompt: str, responses: Sequence[str], *, dimension: str) -> Answer[list[list[float]]]:
        raise Unscored("win_rate, preference: too long")


def case(*texts: str, context: str = "", question: str = "Which?", **settings: Any) -> Case:
    responses = tuple(Response(text=text, k=k) for k, text in enumerate(texts))
    item = Item(id="1", question=question, context=context)
    return Case(item=item, texts=SPPO.prompt_texts(), settings={**SPPO.settings, **settings}, responses=responses)


async def scored(of: Case, judge: Judge | None, model: Model | Mute | None = None) -> Case:
    step = SPPO.step("pairwise")
    scores = await step.procedure(step.judge(of, judge, nearest, model))  # type: ignore[arg-type]
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


def of_row(row: Row | NoRow) -> tuple[int, int, Mapping[str, float]]:
    """Chosen and rejected of a row, and its figures."""
    assert isinstance(row, Row), row
    [turn] = row.turns
    assert isinstance(turn.chosen, tuple)
    assert isinstance(turn.rejected, tuple)
    return turn.chosen[1], turn.rejected[1], row.figures


@pytest.mark.parametrize("golden", GOLDEN["cases"], ids=lambda golden: golden["name"])
@pytest.mark.parametrize("formula", ["paper", "released"])
async def test_logits_of_a_preference_model_pair_as_in_the_paper_and_in_the_released_code(
    golden: dict[str, Any], formula: str
) -> None:
    """The best and the worst, their win rates, and the probability of the pair alone; ties make no row."""
    of = case(*"abcde", win_rates=formula)
    model = Model(golden["logits"])
    done = await scored(of, None, model)
    assert model.asked == [("Which?", *"abcde")]
    expected = golden["official" if formula == "released" else "paper"]
    assert [score.value for score in done.scores] == pytest.approx(expected["win_rate"], abs=1e-6)
    evidence = done.scores[0].evidence
    assert evidence["logits"] == golden["logits"]
    for row, wanted in zip(evidence["matrix"], expected["probability"], strict=True):
        assert row == pytest.approx(wanted, abs=1e-6)
    (row,) = rows(done)
    if max(expected["win_rate"]) - min(expected["win_rate"]) < 1e-6:
        assert isinstance(row, NoRow)
        assert "equally often" in row.reason
        return
    official = golden["official"]
    if isinstance(row, NoRow):
        assert "does not beat" in row.reason
        assert formula == "paper"
        return
    chosen, rejected, figures = of_row(row)
    assert figures["p_w"] == pytest.approx(max(expected["win_rate"]), abs=1e-6)
    assert figures["p_l"] == pytest.approx(min(expected["win_rate"]), abs=1e-6)
    if formula == "released":
        assert (f"r{chosen}", f"r{rejected}") == (official["chosen"], official["rejected"])
        pair = await scored(case(*"abcde", win_rates=formula, opponents="pair"), None, model)
        _, _, figures = of_row(rows(pair)[0])
        assert figures["p_w"] == pytest.approx(official["chosen_probs"], abs=1e-6)
        assert figures["p_l"] == pytest.approx(1 - official["chosen_probs"], abs=1e-6)


async def test_rewards_are_compared_by_their_differences() -> None:
    """A reward model gives one number for each: P = σ(r_i - r_j); what it gave is kept."""
    done = await scored(case("a", "b"), None, Model([[1.5], [0.5]]))
    assert [score.value for score in done.scores] == pytest.approx([(0.5 + 0.7310585786) / 2, (0.5 + 0.2689414214) / 2])
    assert done.scores[0].evidence["rewards"] == [1.5, 0.5]


async def test_more_or_fewer_responses_than_five_are_paired_alike() -> None:
    """Of eight the best is chosen and the worst rejected, wherever they stand."""
    rewards = [0.1, 0.5, -2.0, 0.3, 0.0, 0.2, 4.0, 0.4]
    done = await scored(case(*"abcdefgh"), None, Model([[reward] for reward in rewards]))
    assert of_row(rows(done)[0])[:2] == (6, 2)


async def test_equal_texts_are_scored_once_by_a_model_too() -> None:
    """They tie under either formula."""
    for formula in ("paper", "released"):
        model = Model([[0.0, 2.0], [-2.0, 0.0]])
        done = await scored(case("a", "b", "a", win_rates=formula), None, model)
        assert model.asked == [("Which?", "a", "b")]
        assert done.scores[0].evidence["matrix"][0][2] == pytest.approx(0.5)
        assert done.scores[0].value == done.scores[2].value
    alone = Model([])
    done = await scored(case("a", "a"), None, alone)
    assert alone.asked == []
    assert rows(done) == [NoRow(reason="all responses win equally often")]


async def test_a_model_that_does_not_answer_leaves_the_responses_unscored() -> None:
    done = await scored(case("a", "b"), None, Mute())
    assert {(score.state, score.reason) for score in done.scores} == {("unscored", "win_rate, preference: too long")}


async def test_released_win_rates_want_logits() -> None:
    """A judge that writes letters gives none; nothing is asked of it."""
    judge = Judge(longer)
    done = await scored(case("a", "ab", win_rates="released"), judge)
    assert judge.asked == []
    assert {score.state for score in done.scores} == {"unscored"}


@pytest.mark.parametrize("question", GOLDEN["prompts"])
def test_a_question_is_asked_whole(question: str) -> None:
    """The released script cuts it at the first "None"."""
    [prompt] = SPPO.prompts(Case(item=Item(id="1", question=question)))
    assert prompt.messages[-1]["content"] == question
