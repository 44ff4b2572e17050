"""`lrq audit`: what in a run's rewards cannot be trusted."""

from typing import Any

import pytest
import sqlalchemy as sa
from inline import Judge, World
from journals import journals

from lrq.ledger import runs as runs_
from lrq.ledger.labels import Label, add_label
from lrq.ledger.schema import calls, responses, scores
from lrq.reports.labels import label_candidates
from lrq.reports.run_sample import load_rewards, sample_items


def figures_of(lrq: World, run: str) -> dict[tuple[str, str], dict[str, Any]]:
    return {(one["check"], one["of"]): one for one in lrq("audit", run, "--json").json()["figures"]}


def test_an_audit_reads_the_ledger_and_sends_nothing(lrq: World, judge: Judge) -> None:
    """Shares are those of the exported scores and the calls of status; one score is taken away, one response cut."""
    lrq.run(lrq.write("items", journals(3, 5)))
    with lrq.ledger() as ledger, ledger.write() as tx:
        wanted = scores.c.dimension == "helpfulness", scores.c.k == 0
        tx.execute(sa.update(scores).where(*wanted).values(state="unscored", value=None, reason="cut off"))
        first = sa.select(sa.func.min(responses.c.id)).scalar_subquery()
        tx.execute(sa.update(responses).where(responses.c.id == first).values(finish="length"))
        call = sa.select(sa.func.min(calls.c.id)).where(calls.c.kind == "helpfulness").scalar_subquery()
        tx.execute(sa.update(calls).where(calls.c.id == call).values(attempt=1))
        asked = tx.execute(sa.select(calls.c.attempt).where(calls.c.kind == "helpfulness")).scalars().all()
    before = judge.stats()
    found = figures_of(lrq, "items")
    assert judge.stats() == before
    unscored = found["unscored", "helpfulness"]
    assert (unscored["value"], unscored["count"]) == (0.2, 15)  # one of five in each of three items
    assert unscored["doubt"] == "rewards lack scores"
    cut = found["cut", ""]
    assert (cut["value"], cut["count"]) == (round(1 / 15, 4), 15)
    lines = [line for line in lrq.scores("items") if line["scores"]["logicality"] is not None]
    values = [line["scores"]["logicality"] for line in lines]
    most = max(values.count(value) for value in values)
    assert found["commonest value", "logicality"]["value"] == round(most / len(values), 4)
    assert found["ties", "helpfulness"]["count"] == 3 * 6  # pairs of the four that are left
    reasks = found["re-asks", "helpfulness"]
    assert (reasks["value"], reasks["count"]) == (round(1 / len(asked), 4), len(asked))
    assert found["reward against length", "reward"]["count"] <= 3
    assert not {check for check, _ in found} & {"first preferred", "votes in one order", "agreement with people"}
    text = lrq("audit", "items").out
    assert "rewards lack scores" in text
    assert f"doubts in {len(found)} figures of 3 items" in text
    assert "no run named 'nothing'" in lrq("audit", "nothing", code=2).err


@pytest.mark.parametrize("votes", [1, 3])
def test_tournaments_and_votes_are_audited(lrq: World, votes: int) -> None:
    """Three texts of an item are three pairs and six comparisons; votes appear where there are several."""
    lrq.run(lrq.write("items", journals(2, 3)), "--recipe", "sppo", "--set", f"judge.votes={votes}")
    found = figures_of(lrq, "items")
    assert found["orders that disagree", "win_rate"]["count"] == 2 * 3
    assert found["first preferred", "win_rate"]["count"] == 2 * 6
    assert (("votes in one order", "win_rate") in found) == (votes > 1)


def test_people_who_contradict_the_rewards_are_a_doubt(lrq: World) -> None:
    """Whoever prefers what has the lower reward agrees in no label."""
    lrq.run(lrq.write("items", journals(3, 4)))
    with lrq.ledger() as ledger:
        with ledger.read() as tx:
            run = runs_.get_run(tx, "items")
            rewards = load_rewards(tx, sample_items(tx, run)[0])
        candidates = [(one, [rewards[one.item, 0, k] for k in one.pair]) for one in label_candidates(ledger, run)]
        for one, (first, second) in candidates:
            left, right = one.pair
            choice = "left" if first < second else "right"
            label = Label(item=one.item, round=0, prompt=0, left=left, right=right, choice=choice, who="ada")
            with ledger.write() as tx:
                add_label(tx, run.id, label)
    decided = sum(first != second for _, (first, second) in candidates)
    assert decided > 0
    found = figures_of(lrq, "items")["agreement with people", "reward"]
    assert (found["value"], found["count"], found["doubt"]) == (0.0, decided, "not above chance")
