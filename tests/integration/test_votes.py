"""Votes: each score is asked for several times, its mean counts, its spread is kept; material is bought once."""

import random
from collections import Counter
from statistics import fmean, pstdev
from typing import Any

import pytest
import sqlalchemy as sa
from inline import World
from journals import journals

from lrq.domain.errors import Unscored
from lrq.domain.marks import read_score
from lrq.domain.records import Call, Choice, Purpose, Reply, Score
from lrq.judge.asking import AGAIN_TEMPERATURE, FIRST_TEMPERATURE, Asker, JudgeModel
from lrq.judge.votes import cast
from lrq.ledger import items as items_
from lrq.ledger import runs as runs_
from lrq.ledger.schema import calls

# ----- one question


class Moody:
    """A judge whose score is in another mood with each draw."""

    def __init__(self) -> None:
        self.asked: list[Call] = []
        self._random = random.Random(1)

    async def call(self, call: Call, purpose: Purpose) -> Reply:
        self.asked.append(call)
        return Reply(key=str(len(self.asked)), choices=[Choice(text=f"[[{self._random.randint(3, 9)}]]")])


def asker(caller: Any, vote: int, *shared: str) -> Asker:
    model = JudgeModel(endpoint="default", model="m")
    return Asker(caller=caller, models=lambda *_: model, purpose=Purpose(run=1), vote=vote, shared=frozenset(shared))


async def test_the_first_vote_is_the_single_one() -> None:
    """Further votes are other draws at a temperature; the first asks what would be asked without votes."""
    judge = Moody()
    for vote in range(3):
        await asker(judge, vote)("wit", "How witty?", read_score, dimension="wit", max_tokens=9)
    assert [call.draw for call in judge.asked] == [0, 1000, 2000]
    assert [call.temperature for call in judge.asked] == [FIRST_TEMPERATURE, AGAIN_TEMPERATURE, AGAIN_TEMPERATURE]


async def test_shared_kinds_are_one_question_for_all_votes() -> None:
    """What verdicts are made from is drawn once, whatever a vote's number."""
    judge = Moody()
    for vote in range(3):
        await asker(judge, vote, "reading")("reading", "Read.", read_score, dimension="wit", max_tokens=9)
    assert len({(call.draw, call.temperature) for call in judge.asked}) == 1


# ----- several scores


def score(value: float | None, **fields: Any) -> Score:
    evidence = {"calls": [f"key of {value}"]}
    return Score(dimension="wit", k=0, value=value, evidence=evidence, **fields)


async def test_the_mean_counts_and_the_spread_is_kept() -> None:
    """Votes 4, 7 and 10: mean 7, population standard deviation √6; every vote's calls stand in the evidence."""

    async def judge(vote: int) -> list[Score]:
        return [score((4.0, 7.0, 10.0)[vote])]

    (found,) = await cast(3, judge)
    assert found.value == fmean([4, 7, 10]) == 7
    assert found.evidence["spread"] == pytest.approx(pstdev([4, 7, 10])) == pytest.approx(6**0.5)
    assert [vote["value"] for vote in found.evidence["votes"]] == [4.0, 7.0, 10.0]
    assert found.evidence["calls"] == ["key of 4.0"]
    assert [vote.get("calls") for vote in found.evidence["votes"]] == [None, ["key of 7.0"], ["key of 10.0"]]


@pytest.mark.parametrize("state", ["unscored", "not_applicable"])
async def test_a_vote_without_a_value_is_no_value(state: Any) -> None:
    """A mean of some votes would not be comparable; the reason is that of the vote without one."""

    async def judge(vote: int) -> list[Score]:
        return [score(5.0) if vote else score(None, state=state, reason="nothing to go by")]

    (found,) = await cast(2, judge)
    assert (found.value, found.state, found.reason) == (None, state, "nothing to go by")


async def test_one_vote_is_the_score_itself() -> None:
    """No spread and no votes are added where there is but one."""

    async def judge(vote: int) -> list[Score]:
        return [score(5.0)]

    assert await cast(1, judge) == [score(5.0)]


async def test_a_failure_waits_for_the_other_votes() -> None:
    """Their replies are being paid for: only when all have ended it is raised."""
    ended = []

    async def judge(vote: int) -> list[Score]:
        if vote == 0:
            raise Unscored("broken")
        ended.append(vote)
        return [score(5.0)]

    with pytest.raises(Unscored):
        await cast(3, judge)
    assert ended == [1, 2]


# ----- a whole run


def test_a_run_with_votes_buys_each_verdict_so_often_and_material_once(lrq: World) -> None:
    """Extractions and statements as often as without votes, scores and checks three times; spreads are recorded."""
    file = lrq.write("items", journals(2, 3))
    single = lrq.run(file, "--name", "single")
    voted = lrq.run(file, "--name", "voted", "--set", "judge.votes=3")
    once, thrice = (Counter({row["kind"]: row["calls"] for row in facts["usage"]}) for facts in (single, voted))
    assert thrice["extraction"] == thrice["statements"] == 0  # known from the run without votes
    for kind in ("helpfulness", "logicality", "completeness", "support"):
        assert thrice[kind] == 2 * once[kind]  # and so is the first of three votes
    with lrq.ledger() as ledger, ledger.read() as tx:
        run = runs_.get_run(tx, "voted")
        draws = tx.execute(sa.select(calls.c.draw).where(calls.c.run_id == run.id).distinct()).scalars().all()
        scores = [one for id_ in items_.item_ids(tx, run.id) for one in items_.load_scores(tx, id_, 0)]
    assert sorted(draws) == [1000, 2000]
    assert all(
        len(one.evidence["votes"]) == 3 and one.evidence["spread"] >= 0 for one in scores if one.value is not None
    )
    assert [line["scores"] for line in lrq.scores("voted")] == [line["scores"] for line in lrq.scores("single")]


def test_a_vote_more_is_all_that_more_votes_cost(lrq: World) -> None:
    """A fork with another vote asks for that vote alone."""
    before = lrq.run(lrq.write("items", journals(2, 3)))
    lrq("rescore", "items", "-d", "helpfulness", "--set", "judge.votes=2", "--detach")
    lrq.work("items-2")
    after = lrq.status("items-2")
    (helpful,) = [row for row in before["usage"] if row["kind"] == "helpfulness"]
    assert after["calls"]["calls"] == helpful["calls"]
