"""`lrq agreement` on a run of conversations with reference scores."""

from pathlib import Path

import orjson
import pytest
from inline import Judge, World
from journals import journals

from lrq.ledger import runs as runs_
from lrq.ledger.labels import Label, add_label
from lrq.reports.labels import label_candidates

SETTINGS = """
settings:
  rubrics:
    - {name: GV, criteria: Range and control of words and forms}
    - {name: DM, criteria: Length and order of what is said}
"""


def test_scores_are_compared_with_those_that_the_items_bring(
    lrq: World, judge: Judge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Accurate where the references are the judge's own scores, beside the judge that always says the same."""
    config = tmp_path / "lrq.yaml"
    config.write_text(SETTINGS)
    talks = [{"id": f"talk {n}", "turns": [{"speaker": "Candidate", "text": f"I have {n} cats."}]} for n in range(6)]
    lrq.run(lrq.write("blind", talks), "--recipe", "rubric", "--config", config)
    said = {line["id"]: line["scores"] for line in lrq.scores("blind")}
    none = lrq("agreement", "blind", code=2)
    assert "no item of run 'blind' has scores and reference scores" in none.err
    for talk in talks:
        scores = {name.partition("/")[2]: int(value) for name, value in said[str(talk["id"])].items()}
        talk["answer"] = orjson.dumps(scores).decode()
    talks[0]["answer"] = "{'GV': 1, 'DM': 5}"
    lrq.run(lrq.write("open", talks), "--recipe", "rubric", "--config", config)
    facts = lrq("agreement", "open", "--json").json()
    assert facts["items"] == 6
    assert facts["criteria"] == ["rubric/GV", "rubric/DM"]
    assert facts["counts"]["accurate"] >= 5
    assert facts["best_constant"]["accurate"] <= facts["accurate"]
    low, high = facts["intervals"]["accurate"]
    assert low <= facts["accurate"] <= high
    assert len(facts["intervals"]["kappa"]) == len(facts["kappa"]) == 2
    assert "always the same" in lrq("agreement", "open").out
    both = lrq("agreement", "open", "open", "--json").json()
    assert both["runs"] == [facts, facts]
    assert both["mean"] == {name: facts[name] for name in ("accurate", "acceptable", "variation")}
    assert "mean of 2 runs: accurate, share" in lrq("agreement", "open", "open").out


def test_rewards_are_compared_with_what_people_prefer(lrq: World) -> None:
    """Two people label the same three pairs, of which they see one turned round; both prefer the lower k."""
    lrq.run(lrq.write("items", journals(3, 4)))
    assert "has no labels" in lrq("agreement", "items", code=2).err
    with lrq.ledger() as ledger:
        with ledger.read() as tx:
            run = runs_.get_run(tx, "items")
        chosen = {one.item: one for one in label_candidates(ledger, run)}.values()
        for who, turns in (("ada", False), ("bo", True)):
            for one in chosen:
                left, right = reversed(one.pair) if turns else one.pair
                choice = "right" if turns else "left"
                label = Label(item=one.item, round=0, prompt=0, left=left, right=right, choice=choice, who=who)
                with ledger.write() as tx:
                    add_label(tx, run.id, label)
                    add_label(tx, run.id, label)
    facts = lrq("agreement", "items", "--json").json()["labels"]
    assert (facts["labels"], facts["ties"], facts["left_chosen"]) == (6, 0, 0.5)
    assert facts["between_people"] == {"pairs": 3, "agree": 1.0}
    assert facts["people"]["ada"]["agree"] == facts["people"]["bo"]["agree"]
    lines = [orjson.loads(line) for line in lrq("export", "items", "--format", "labels").out.splitlines()]
    assert [line["who"] for line in lines] == ["ada"] * 3 + ["bo"] * 3
    assert lines[0]["left_answer"] == lines[3]["right_answer"]
    decided = [line for line in lines if line["left_reward"] != line["right_reward"]]
    agreeing = [(line["left_reward"] > line["right_reward"]) == (line["choice"] == "left") for line in decided]
    assert facts["decided"] == len(decided)
    assert facts["agree"] == (sum(agreeing) / len(agreeing) if agreeing else None)
    text = lrq("agreement", "items").out
    assert "6 labels: 0 ties" in text
    assert "two people agree on 100% of 3 pairs" in text


def test_a_run_becomes_one_file(lrq: World, tmp_path: Path) -> None:
    """`report -o` says how many items it wrote; it does not go with a comparison."""
    lrq.run(lrq.write("items", journals(3, 2)))
    path = tmp_path / "items.html"
    assert "2 items of 3; --items raises that" in lrq("report", "items", "-o", path, "--items", 2).err
    assert path.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert "leave --compare and --json out" in lrq("report", "items", "-o", path, "--json", code=2).err
