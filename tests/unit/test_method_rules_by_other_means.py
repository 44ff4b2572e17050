"""Rules of the methods against plain restatements of their papers, on values that no published example has."""

import random
from fractions import Fraction
from itertools import product
from typing import Any

import pytest

from lrq.domain.agreement import category, compare
from lrq.domain.lines import parse_entry
from lrq.domain.records import Item, NoRow, Reward
from lrq.domain.win_rates import cycles, preference_matrix, rates_by_reward, win_rates
from lrq.recipes.longpo_filters import read_questions, unfit
from lrq.recipes.ports import Case
from lrq.recipes.sppo import SPPO


def stated_category(reference: tuple[int, ...], predicted: tuple[int, ...]) -> str:
    """As the paper's words have it, in their order."""
    pairs = list(zip(reference, predicted, strict=True))
    if all(a == b for a, b in pairs):
        return "accurate"
    if any(a == b for a, b in pairs):
        return "partly accurate"
    all_above, all_below = all(b == a + 1 for a, b in pairs), all(b == a - 1 for a, b in pairs)
    return "acceptable" if all_above or all_below else "inaccurate"


@pytest.mark.parametrize("criteria", [1, 2])
def test_categories_are_those_of_the_definition_for_all_scores(criteria: int) -> None:
    """All of 1 to 5 against all: 25 pairs of one criterion, 625 of two."""
    vectors = list(product(range(1, 6), repeat=criteria))
    for reference, predicted in product(vectors, repeat=2):
        assert category(reference, predicted) == stated_category(reference, predicted), (reference, predicted)


@pytest.mark.parametrize("seed", range(5))
def test_kappa_is_one_less_the_ratio_of_weighted_disagreements(seed: int) -> None:
    """In fractions: pairs that were seen against all that chance would bring, each by its squared distance."""
    rng = random.Random(seed)
    references = [rng.randint(1, 5) for _ in range(30)]
    predictions = [min(5, max(1, score + rng.choice((-1, 0, 0, 1, 2)))) for score in references]
    observed = Fraction(sum((a - b) ** 2 for a, b in zip(references, predictions, strict=True)), 30)
    chance = Fraction(sum((a - b) ** 2 for a, b in product(references, predictions)), 900)
    (kappa,) = compare([(n,) for n in references], [(n,) for n in predictions]).kappa
    assert kappa == pytest.approx(float(1 - observed / chance), abs=1e-12)


def test_a_judge_that_reverses_the_scale_is_worse_than_chance() -> None:
    """1 to 5 said as 5 to 1: kappa −1, and only the middle is right."""
    report = compare([(n,) for n in range(1, 6)], [(6 - n,) for n in range(1, 6)])
    assert report.kappa == [-1.0]
    assert (report.counts["accurate"], report.variation) == (1, 12 / 5)


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_win_rates_of_any_number_add_up_to_half_of_it(count: int) -> None:
    """Each pair shares one win, and each response ties with itself: K²/2 over K."""
    rng = random.Random(count)
    asked = {(i, j): rng.random() for i in range(count) for j in range(count) if i != j}
    matrix = preference_matrix(asked, count)
    assert sum(win_rates(matrix)) == pytest.approx(count / 2)
    for (i, j), first in asked.items():
        assert matrix[i][j] == pytest.approx((first + 1 - asked[j, i]) / 2)


def test_all_ties_are_half_and_no_cycle() -> None:
    """Equal rewards, and pairs where both orders cancel out."""
    assert rates_by_reward({"a": 4.0, "b": 4.0, "c": 4.0}) == {"a": 0.5, "b": 0.5, "c": 0.5}
    assert rates_by_reward({}) == {}
    assert cycles(preference_matrix({(0, 1): 0.8, (1, 0): 0.8, (0, 2): 0.5, (1, 2): 0.5}, 3)) == []


def test_a_tie_of_all_responses_makes_no_row_and_says_so() -> None:
    """Nothing is preferred: neither the first of them, nor none without a word."""
    rewards = [Reward(prompt=0, k=k, value=0.5) for k in range(5)]
    (made,) = SPPO.rows(Case(item=Item(id="1", question="?"), settings=SPPO.settings), rewards)
    assert isinstance(made, NoRow)
    assert made.reason


@pytest.mark.parametrize(
    ("reply", "questions"),
    [
        ("1：1914年发生了什么？\n2：第3节和第4节有何不同？", ["1914年发生了什么？", "第3节和第4节有何不同？"]),
        ("问题1：甲？\n问题2：乙？", ["甲？", "乙？"]),
        ("1) Qu'est-ce que A ?\n2) Was ist 2:1?", ["Qu'est-ce que A ?", "Was ist 2:1?"]),
        ("1: \n2: B?", []),
        ("2: B?\n1: A?", []),
    ],
)
def test_questions_of_other_languages_are_read_by_their_numbers(reply: str, questions: list[str]) -> None:
    assert read_questions(reply, 2) == questions


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("对不起，我找不到相关内容。", "a refusal"),
        ("很遗憾，文中没有提到船长的名字。", "a refusal"),
        ("As an artificial intelligence, I read only a part of it.", "a refusal"),
        ("船长是李强。船东是马超。", ""),
        ("？！。", "empty"),
        ("123 456 789", "empty"),
    ],
)
def test_answers_of_both_languages_are_sifted_alike(answer: str, reason: str) -> None:
    assert unfit(answer) == reason


RUBRIC = {"criteria": "c", "score_descriptions": {str(n): "d" for n in range(1, 6)}}


@pytest.mark.parametrize(
    ("line", "fields", "ignored", "dropped"),
    [
        # Multifaceted-Bench: the older revision's name, and without what it need not have
        ({"system": "s", "prompt": "p", "rubric": [RUBRIC]}, {"system", "rubrics"}, (), {}),
        ({"system": "s", "prompt": "p", "rubrics": []}, {"system"}, (), {}),
        ({"system": "s", "prompt": "p", "rubric": RUBRIC}, {"system"}, (), {"rubric"}),
        # Multifaceted-Collection and its pairs, a side of which is missing
        ({"main_source": "m", "system": "s", "prompt": "p", "output": "o"}, {"system"}, ("main_source",), {}),
        ({"system": "s", "prompt": "p", "chosen": "a"}, {"system"}, ("chosen",), {}),
        # LongPO's text rows, of which one list is shorter
        ({"context": "c", "questions": ["q"], "short_contexts": ["a", "b"]}, {"questions", "short_contexts"}, (), {}),
        # EvalYaks' CSVs under another column's name
        ({"TEXT": "<s>[INST] Conversation: … [/INST]"}, set(), ("TEXT",), {}),
    ],
)
def test_published_lines_with_missing_columns_say_what_was_read(
    line: dict[str, Any], fields: set[str], ignored: tuple[str, ...], dropped: dict[str, str] | set[str]
) -> None:
    """What nobody reads is named, what cannot be read is named with its reason, and nothing is made up."""
    entry = parse_entry(line, (), "7")
    assert entry.item.id == "7"
    assert set(entry.item.fields) == fields
    assert tuple(entry.ignored) == ignored
    assert set(entry.dropped) == set(dropped)
