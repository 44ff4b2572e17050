"""Rescoring: what has changed is asked, what was asked before is reused, what stood before is kept."""

from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from inline import Judge, World
from journals import journals

from lrq.domain.errors import UsageError
from lrq.domain.records import Item, Score
from lrq.ledger import Ledger
from lrq.ledger import items as items_
from lrq.ledger import runs as runs_
from lrq.ledger.rescoring import reopen_step, revise
from lrq.ledger.schema import calls, items, past_scores, runs, tasks
from lrq.recipes import load_recipe

OTHERS = ("helpfulness", "logicality", "completeness")


@pytest.fixture
def lrq(lrq: World) -> World:
    """With a run that is done."""
    lrq.run(lrq.write("items", journals(3, 4)))
    return lrq


def bought(facts: dict[str, Any]) -> dict[str, int]:
    """Calls bought so far, by kind of prompt."""
    found: dict[str, int] = {}
    for row in facts["usage"]:
        found[row["kind"]] = found.get(row["kind"], 0) + row["calls"]
    return found


def rescore(lrq: World, *words: object) -> dict[str, Any]:
    """Rescore without processes: mark, then work."""
    facts = lrq("rescore", "items", *words, "--detach", "--json").json()
    lrq.work("items")
    return dict(facts)


def prompts(folder: Path, **texts: str) -> Path:
    for name, text in texts.items():
        path = folder / "en" / f"{name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n", encoding="utf-8")
    return folder


def packaged(name: str) -> str:
    return load_recipe("longreward").prompt_texts()[f"en/{name}"]


def test_a_new_prompt_is_asked_and_nothing_else(lrq: World, tmp_path: Path) -> None:
    """Checking statements in new words buys those checks alone; listing them is known, other dimensions stand."""
    before, scores = lrq.status("items"), lrq.scores("items")
    new = packaged("support").replace("You check one statement", "You look into one statement")
    facts = rescore(lrq, "-d", "faithfulness", "--prompts", prompts(tmp_path / "texts", support=new))
    after = lrq.status("items")
    assert facts["changed"] == ["prompt en/support"]
    assert facts["items"] == 3
    more = {kind: count - bought(before)[kind] for kind, count in bought(after).items()}
    assert more["support"] > 0
    assert {kind for kind, count in more.items() if count} == {"support"}
    reused = {row["kind"]: row["reused"] for row in after["usage"]}
    statements = {row["kind"]: row["calls"] for row in before["usage"]}["statements"]
    assert reused["statements"] == statements
    assert after["state"] == "done"
    assert after["pairs"] == before["pairs"]
    for line, old in zip(lrq.scores("items"), scores, strict=True):
        assert {name: line["scores"][name] for name in OTHERS} == {name: old["scores"][name] for name in OTHERS}


def test_rescoring_starts_what_it_needs(lrq: World) -> None:
    """Without --detach the work is done by processes of the command's own, and what it took is said."""
    facts = lrq("rescore", "items", "-d", "faithfulness", "--set", "settings.passages=1", "--json").json()
    assert facts["changed"] == ["settings.passages"]
    assert facts["bought"] > 0
    assert facts["reused"] > 0
    assert lrq.status("items")["state"] == "done"
    lines = (lrq.home / "runs" / "items" / "scores.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 12


def test_another_judge_scores_anew_and_rewards_follow(lrq: World, judge: Judge, tmp_path: Path) -> None:
    """A dimension by an endpoint of the settings: its calls name it, rewards and pairs are made of the new scores."""
    config = tmp_path / "strong.yaml"
    config.write_text(f"judge: {{endpoints: [{{name: strong, url: {judge.url}, model: large}}]}}\n")
    facts = rescore(lrq, "-d", "helpfulness", "--judge", "strong", "--config", config)
    assert facts["changed"] == ["judge.models", "judge.dimensions"]
    with lrq.ledger() as ledger, ledger.reading() as conn:
        query = sa.select(calls.c.dimension, calls.c.model).where(calls.c.endpoint == "strong").distinct()
        assert [tuple(row) for row in conn.execute(query)] == [("helpfulness", "large")]
    for line in lrq.scores("items"):
        values = [value for value in line["scores"].values() if value is not None]
        assert line["reward"] == pytest.approx(sum(values) / len(values))


def test_old_scores_and_words_are_kept(lrq: World, tmp_path: Path) -> None:
    """Two revisions: each put its predecessor's scores aside, and the configuration holds all three."""
    first = {(line["id"], line["response"]): line["scores"]["faithfulness"] for line in lrq.scores("items")}
    rescore(lrq, "-d", "faithfulness", "--set", "settings.passages=1")
    second = {(line["id"], line["response"]): line["scores"]["faithfulness"] for line in lrq.scores("items")}
    rescore(lrq, "-d", "faithfulness", "--set", "settings.passages=2")
    with lrq.ledger() as ledger, ledger.reading() as conn:
        run = runs_.get_run(conn, "items")
        rows = conn.execute(sa.select(past_scores).order_by(past_scores.c.id)).all()
    assert [one["changed"]["settings"]["passages"] for one in run.config["revisions"]] == [1, 2]
    assert run.config["settings"]["passages"] == 5
    assert {row.dimension for row in rows} == {"faithfulness"}
    for number, scores in ((1, first), (2, second)):
        kept = [row.value for row in rows if row.revision == number]
        assert sorted(map(str, kept)) == sorted(map(str, scores.values()))
    assert all(row.evidence for row in rows)


def test_going_back_buys_nothing(lrq: World) -> None:
    """What was asked once is known for good: the old setting brings the old scores for no money."""
    scores = lrq.scores("items")
    rescore(lrq, "-d", "faithfulness", "--set", "settings.passages=1")
    before = lrq.status("items")
    rescore(lrq, "-d", "faithfulness", "--set", "settings.passages=5")
    after = lrq.status("items")
    assert after["calls"]["calls"] == before["calls"]["calls"]
    assert after["calls"]["reused"] > before["calls"]["reused"]
    assert lrq.scores("items") == scores


def test_without_a_change_nothing_is_done(lrq: World) -> None:
    """The same judge, prompts and settings: scores stand, and the command says what would make a difference."""
    before = lrq.status("items")
    said = lrq("rescore", "items", "-d", "completeness")
    assert "nothing has changed for completeness" in said.out
    assert lrq.status("items") | {"pace": before["pace"]} == before  # the pace is the clock's


def test_a_revised_run_takes_new_lines_by_the_new_words(lrq: World) -> None:
    """More lines of the same file are judged as revised; the settings of the run are still the same ones."""
    rescore(lrq, "-d", "faithfulness", "--set", "settings.batch_statements=true")
    facts = lrq.run(lrq.write("items", [*journals(3, 4), journals(4, 4, seed="more")[3]]))
    assert facts["items"] == {"done": 4}
    with lrq.ledger() as ledger, ledger.reading() as conn:
        newest = conn.execute(sa.select(sa.func.max(calls.c.item_id))).scalar()
        query = sa.select(calls.c.kind).where(calls.c.item_id == newest, calls.c.dimension == "faithfulness")
        kinds = {row.kind for row in conn.execute(query)}
    assert "support_batch" in kinds


def test_a_run_at_work_is_refused(lrq: World) -> None:
    """No item is judged half by the old words and half by the new."""
    lrq("enqueue", lrq.write("items", journals(3, 4) + journals(5, 2, seed="more")[3:]), "--no-train")
    said = lrq("rescore", "items", "-d", "logicality", "--set", "judge.votes=2", code=2)
    assert said.err == "lrq: run 'items' is still at work; let it end first (`lrq resume items`)\n"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("-d", "wit"), "this run has no dimension 'wit'; it has helpfulness, logicality, faithfulness, completeness"),
        (("-d", "logicality", "--judge", "nobody"), "no judge endpoint named 'nobody'; the settings have default"),
        (("-d", "logicality", "--set", "settings.wit=1"), "setting settings.wit: there is no such setting"),
    ],
)
def test_what_cannot_be_is_one_line(lrq: World, words: tuple[str, ...], says: str) -> None:
    """Exit code 2, and nothing has begun."""
    said = lrq("rescore", "items", *words, code=2)
    assert says in said.err
    assert said.err.count("\n") == 1
    assert lrq.status("items")["state"] == "done"


def test_prompt_texts_are_checked_before_anything_begins(lrq: World, tmp_path: Path) -> None:
    """A text that no prompt of the recipe is named after, or that lacks a placeholder, is refused."""
    unknown = lrq("rescore", "items", "-d", "logicality", "--prompts", prompts(tmp_path / "a", wit="Be witty."), code=2)
    assert "this recipe has no prompt 'en/wit'" in unknown.err
    lacking = prompts(tmp_path / "b", logicality="Score {{answer}}.")
    said = lrq("rescore", "items", "-d", "logicality", "--prompts", lacking, code=2)
    assert "has other placeholders than it takes: {{answer}}, {{question}}" in said.err


def test_own_prompts_stay_when_something_else_changes(lrq: World, tmp_path: Path) -> None:
    """A later revision of the judge does not bring the packaged text back."""
    new = packaged("logicality") + "\nBe brief."
    rescore(lrq, "-d", "logicality", "--prompts", prompts(tmp_path / "texts", logicality=new))
    facts = rescore(lrq, "-d", "logicality", "--set", "judge.votes=2")
    assert facts["changed"] == ["judge.votes"]
    with lrq.ledger() as ledger, ledger.reading() as conn:
        run = runs_.get_run(conn, "items")
    assert [sorted(one["changed"]) for one in run.config["revisions"]] == [["own_prompts", "prompts"], ["judge"]]


def test_reopening_is_one_transaction_on_each_database(ledger: Ledger) -> None:
    """Of three items the judged one is reopened, its scores of the step are put aside, those of others stay."""
    scores = [Score(dimension=name, k=k, value=float(k)) for name in ("wit", "form") for k in range(2)]
    with ledger.writing() as conn:
        run = runs_.create_run(ledger, conn, "r", {"recipe": "longreward", "settings": {}})
        lines = [(n, Item(id=f"i{n}", context="c", question="q"), [(0, "a"), (1, "b")]) for n in range(3)]
        items_.add_items(ledger, conn, run.id, lines)
        first, second, _ = items_.item_ids(conn, run.id)
        items_.add_scores(ledger, conn, [(first, 0, score) for score in scores])
        conn.execute(items.update().where(items.c.id == first).values(state="done"))
        conn.execute(items.update().where(items.c.id == second).values(state="failed"))
        conn.execute(runs.update().values(open_items=0, state="done"))
    with ledger.writing() as conn:
        number = revise(ledger, conn, run, {"settings": {"a": 1}}, step="s", dimensions=["wit"], prices={})
        assert reopen_step(ledger, conn, run.id, number, step="s", queue="q", dimensions=["wit"]) == 1
    with ledger.reading() as conn:
        assert [score.dimension for score in items_.load_scores(conn, first, 0)] == ["form", "form"]
        kept = conn.execute(sa.select(past_scores).order_by(past_scores.c.k)).all()
        assert [(row.dimension, row.k, row.value, row.revision) for row in kept] == [
            ("wit", 0, 0.0, 1),
            ("wit", 1, 1.0, 1),
        ]
        (task,) = conn.execute(sa.select(tasks)).all()
        assert (task.item_id, task.name, task.queue, task.state) == (first, "s", "q", "ready")
        again = runs_.get_run(conn, "r")
        assert (again.state, again.open_items) == ("active", 1)
        assert again.config["revisions"][0]["changed"] == {"settings": {"a": 1}}
    with ledger.writing() as conn, pytest.raises(UsageError, match="still at work"):
        revise(ledger, conn, again, {}, step="s", dimensions=["wit"], prices={})
