"""Reports: what a run came to, and how far two runs on the same items agree."""

import re
from statistics import fmean, pstdev

import pytest
from inline import World
from journals import journals

from lrq.cli.terminal import amount
from lrq.domain.comparison import agreement, spearman
from lrq.view.server import STATIC

# Columns of figures that the viewer draws in another way.
ONLY_HERE = {"dimension", "mean", "deviation", "values", "reused", "an item", "saved"}
DIMENSIONS = ["completeness", "faithfulness", "helpfulness", "logicality"]


def test_a_report_sums_a_run_up(lrq: World) -> None:
    """Means and deviations are those of the exported scores; calls, tokens and money are those of status."""
    lrq.run(lrq.write("items", journals(3, 5)), "--price", "1,4,0.1")
    status, facts = lrq.status("items"), lrq("report", "items", "--json").json()
    lines = lrq.scores("items")
    assert sorted(facts["dimensions"]) == DIMENSIONS
    for name in DIMENSIONS:
        values = [line["scores"][name] for line in lines if line["scores"][name] is not None]
        one = facts["dimensions"][name]
        assert one["values"] == len(values)
        assert one["mean"] == pytest.approx(fmean(values), abs=1e-4)
        assert one["deviation"] == pytest.approx(pstdev(values), abs=1e-3)
    rewards = [line["reward"] for line in lines if line["reward"] is not None]
    assert facts["reward"]["mean"] == pytest.approx(fmean(rewards), abs=1e-4)
    for name in ("calls", "reused", "prompt_tokens", "cached_tokens"):
        assert sum(one[name] for one in facts["dimensions"].values()) == status["calls"][name]
    assert sum(one["cost"] for one in facts["dimensions"].values()) == pytest.approx(status["money"]["spent"])
    saved = sum(one["saved"] for one in facts["dimensions"].values())
    assert saved == pytest.approx(status["money"]["saved_by_caches"])
    rounding = status["calls"]["calls"] / 1e6  # a call's cost is rounded up to whole micro-units
    assert saved == pytest.approx(status["calls"]["cached_tokens"] * 0.9 / 1e6, abs=rounding)
    text = lrq("report", "items").out
    assert re.split(r"\s{2,}", text.splitlines()[4].strip()) == [
        "3 of 3",
        "15",
        f"{facts['reward']['mean']:.2f}",
        str(status["pairs"]),
        f"{facts['pairs']['margin']:.2f}",
        f"{status['calls']['calls']:,}",
        f"{100 * status['calls']['cache_hit_rate']:.0f} %",
        amount(status["money"]["spent"]),
    ]
    assert f"Prompt caches saved {amount(saved)}." in text


@pytest.mark.parametrize(
    ("words", "titles"),
    [
        (("report", "items"), {"Scores", "Errors"}),
        (("show", "item-00", "--full"), {"Responses", "For all responses", "Calls"}),
    ],
)
def test_headings_are_those_of_the_viewer(lrq: World, words: tuple[str, ...], titles: set[str]) -> None:
    """Titles and heads of columns are words of the viewer's pages, but for names of dimensions."""
    lrq.run(lrq.write("items", journals(2, 3)))
    lines = lrq(*words).out.splitlines()
    heads = [lines[n - 1] for n, line in enumerate(lines) if re.fullmatch(r" ?─+ *", line)]
    columns = {name for head in heads for name in re.split(r"\s{2,}", head.strip())} - set(DIMENSIONS)
    page = set(re.findall(r'"([^"]+)": "', (STATIC / "strings.js").read_text(encoding="utf-8")))
    assert {"reward", "money"} & columns
    assert columns <= page | ONLY_HERE
    assert titles <= set(lines) & page


def test_money_of_an_unpriced_run_is_not_nought(lrq: World) -> None:
    """Cost and savings are null, and the text says unpriced."""
    lrq.run(lrq.write("items", journals(2, 2)))
    facts = lrq("report", "items", "--json").json()
    assert {one["cost"] for one in facts["dimensions"].values()} == {None}
    assert {one["saved"] for one in facts["dimensions"].values()} == {None}
    assert facts["money"]["saved_by_caches"] is None
    assert "unpriced" in lrq("report", "items").out


def test_both_ways_of_checking_statements_are_compared(lrq: World) -> None:
    """On the same sample: as many scores, fewer calls and tokens for faithfulness, how far they agree."""
    file = lrq.write("items", journals(4, 6))
    lrq.run(file, "--name", "single")
    lrq.run(file, "--name", "batched", "--set", "settings.batch_statements=true")
    facts = lrq("report", "single", "--compare", "batched", "--json").json()["compared"]
    assert (facts["with"], facts["items"], facts["responses"]) == ("batched", 4, 24)
    first, other = facts["took"]["single"], facts["took"]["batched"]
    assert other["faithfulness"]["calls"] < first["faithfulness"]["calls"]
    assert other["faithfulness"]["tokens"] < first["faithfulness"]["tokens"]
    for name in ("helpfulness", "logicality", "completeness"):
        assert first[name] == other[name]  # bought by the first run, and counted for both
        one = facts["dimensions"][name]
        assert one["difference"] == one["absolute_difference"] == 0
        assert one["same_order"] in {None, 1.0}
    assert facts["dimensions"]["helpfulness"]["rank_correlation"] == pytest.approx(1)
    assert facts["dimensions"]["faithfulness"]["count"] > 10
    assert abs(facts["dimensions"]["faithfulness"]["difference"]) < 1
    text = lrq("report", "single", "--compare", "batched").out
    assert "single (A) and batched (B) on 4 items, 24 responses equal in both" in text
    assert "same order" in text


def test_what_both_needed_is_counted_once_for_each(lrq: World) -> None:
    """The calls that a run's scores rest on are those it would have bought alone."""
    file = lrq.write("items", journals(2, 3))
    single = lrq.run(file, "--name", "single")
    lrq.run(file, "--name", "again")
    facts = lrq("report", "single", "--compare", "again", "--json").json()["compared"]
    assert facts["took"]["single"]["all"] == facts["took"]["again"]["all"]
    assert facts["took"]["single"]["all"]["calls"] == single["calls"]["calls"]
    assert facts["same_pairs"] in {None, 1.0}


def test_runs_without_common_responses_cannot_be_compared(lrq: World) -> None:
    """Other texts under the same ids are no basis; one line says so."""
    lrq.run(lrq.write("items", journals(1, 2)))
    lrq.run(lrq.write("others", journals(1, 2, seed="other")))
    said = lrq("report", "items", "--compare", "others", code=2)
    assert "have no item with the same responses in common" in said.err


# ----- the figures alone


def test_agreement_by_hand() -> None:
    """Three responses of one item, one of another; the second judge is one point stricter on one of them."""
    first = {("a", 0, 0): 8.0, ("a", 0, 1): 6.0, ("a", 0, 2): 4.0, ("b", 0, 0): 5.0, ("b", 0, 1): 1.0}
    other = {("a", 0, 0): 5.0, ("a", 0, 1): 6.0, ("a", 0, 2): 4.0, ("b", 0, 0): 5.0}
    found = agreement(first, other)
    assert found.count == 4
    assert (found.mean, found.other_mean) == (5.75, 5.0)
    assert (found.difference, found.absolute_difference) == (-0.75, 0.75)
    assert found.pairs == 3  # within item a: (8,6)→(5,6) turns round, (8,4)→(5,4) and (6,4)→(6,4) stay
    assert found.same_order == pytest.approx(2 / 3)
    # ranks 3 2 0 1 against 1.5 3 0 1.5: covariance 0.75, variances 1.25 and 1.125
    assert found.rank_correlation == pytest.approx(0.75 / (1.25 * 1.125) ** 0.5)


def test_ties_are_no_order_and_constants_no_rank() -> None:
    """Where a judge separates nothing there is nothing to agree on."""
    first = {("a", 0, k): float(k) for k in range(3)}
    flat = dict.fromkeys(first, 5.0)
    found = agreement(first, flat)
    assert (found.pairs, found.same_order, found.rank_correlation) == (0, None, None)
    assert agreement(first, {}).count == 0


@pytest.mark.parametrize(
    ("xs", "ys", "rho"),
    [
        ([1, 2, 3, 4], [10, 20, 30, 40], 1.0),
        ([1, 2, 3, 4], [4, 3, 2, 1], -1.0),
        ([1, 2, 3], [1, 3, 2], 0.5),  # 1 − 6·2 / (3·8)
        ([1], [1], None),
    ],
)
def test_rank_correlation(xs: list[float], ys: list[float], rho: float | None) -> None:
    """Spearman's, known cases."""
    assert spearman(xs, ys) == (None if rho is None else pytest.approx(rho))
