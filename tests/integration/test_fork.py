"""Forks: what has changed is asked, what was asked before is reused, the run itself stays as it is."""

from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from inline import Judge, World
from journals import journals

from lrq.config import Settings
from lrq.domain.errors import UsageError
from lrq.domain.records import Item, Score
from lrq.ledger import Ledger, intakes
from lrq.ledger import items as items_
from lrq.ledger import runs as runs_
from lrq.ledger.forking import fork_run
from lrq.ledger.schema import calls, items, responses, runs, tasks
from lrq.operations.fork import fork_config
from lrq.recipes import load_recipe
from lrq.run_config import load_run_config, snapshot_config

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


def rescore(lrq: World, *words: object, run: str = "items") -> dict[str, Any]:
    """Rescore without processes: mark, then work."""
    return work(lrq, "rescore", run, *words)


def fork(lrq: World, name: str, *words: object) -> dict[str, Any]:
    return work(lrq, "fork", "items", "--name", name, *words)


def work(lrq: World, *words: object) -> dict[str, Any]:
    facts = lrq(*words, "--detach", "--json").json()
    if facts["fork"]:
        lrq.work(facts["fork"])
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
    assert {name: facts[name] for name in ("fork", "changed", "steps", "items")} == {
        "fork": "items-2",
        "changed": ["prompt en/support"],
        "steps": ["faithfulness"],
        "items": 3,
    }
    after = lrq.status("items-2")
    assert {kind for kind, count in bought(after).items() if count} == {"support"}
    reused = {row["kind"]: row["reused"] for row in after["usage"]}
    assert reused["statements"] == bought(before)["statements"]
    assert after["state"] == "done"
    assert after["pairs"] == before["pairs"]
    for line, old in zip(lrq.scores("items-2"), scores, strict=True):
        assert {name: line["scores"][name] for name in OTHERS} == {name: old["scores"][name] for name in OTHERS}
    assert lrq.scores("items") == scores


def test_another_margin_makes_pairs_anew_for_nothing(lrq: World) -> None:
    """What rows alone read opens no step: the very same scores, other pairs, not even an answer reused."""
    assert lrq.status("items")["pairs"] == 0  # four responses, and five are needed
    assert fork(lrq, "four", "--set", "settings.min_scored=4")["steps"] == []
    facts = work(lrq, "fork", "four", "--name", "strict", "--set", "settings.min_margin=9.5")
    assert facts["changed"] == ["settings.min_margin"]
    assert (lrq.status("four")["pairs"], lrq.status("strict")["pairs"]) == (3, 0)
    for name in ("four", "strict"):
        after = lrq.status(name)
        assert (after["state"], after["calls"]["calls"], after["calls"]["reused"]) == ("done", 0, 0)
        assert lrq.scores(name) == lrq.scores("items")


def test_forking_starts_what_it_needs(lrq: World) -> None:
    """Without --detach the work is done by processes of the command's own, and what it took is said."""
    facts = lrq("rescore", "items", "-d", "faithfulness", "--set", "settings.passages=1", "--json").json()
    assert facts["changed"] == ["settings.passages"]
    assert facts["bought"] > 0
    assert facts["reused"] > 0
    assert lrq.status("items-2")["state"] == "done"
    lines = (lrq.home / "runs" / "items-2" / "scores.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 12


def test_another_judge_scores_anew_and_rewards_follow(lrq: World, judge: Judge, tmp_path: Path) -> None:
    """A dimension by an endpoint of the settings: its calls name it, rewards and pairs are made of the new scores."""
    config = tmp_path / "strong.yaml"
    config.write_text(f"judge: {{endpoints: [{{name: strong, url: {judge.url}, model: large}}]}}\n")
    facts = rescore(lrq, "-d", "helpfulness", "--judge", "strong", "--config", config)
    assert facts["changed"] == ["judge.models", "judge.dimensions"]
    with lrq.ledger() as ledger, ledger.read() as tx:
        query = sa.select(calls.c.dimension, calls.c.model).where(calls.c.endpoint == "strong").distinct()
        assert [tuple(row) for row in tx.execute(query)] == [("helpfulness", "large")]
    for line in lrq.scores("items-2"):
        values = [value for value in line["scores"].values() if value is not None]
        assert line["reward"] == pytest.approx(sum(values) / len(values))


def test_a_fork_by_another_judge_is_all_of_it_and_compares_with_its_source(
    lrq: World, judge: Judge, tmp_path: Path
) -> None:
    """Without a dimension every step is judged again; before and after say on how many items they stand."""
    config = tmp_path / "strong.yaml"
    config.write_text(f"judge: {{endpoints: [{{name: strong, url: {judge.url}, model: large}}]}}\n")
    facts = fork(lrq, "strong", "--judge", "strong", "--config", config)
    assert facts["steps"] == ["helpfulness", "logicality", "faithfulness", "completeness"]
    bought_here = bought(lrq.status("strong"))
    assert bought_here == bought(lrq.status("items"))
    compared = lrq("report", "items", "--compare", "strong", "--json").json()["compared"]
    assert (compared["items"], compared["responses"]) == (3, 12)
    assert set(compared["dimensions"]) == {"faithfulness", *OTHERS}
    assert "on 3 items, 12 responses equal in both" in lrq("report", "items", "--compare", "strong").out
    lrq.run(lrq.write("others", [line | {"id": f"other {line['id']}"} for line in journals(3, 4, seed="others")]))
    said = lrq("report", "items", "--compare", "others", code=2)
    assert "have no item with the same responses in common" in said.err


def test_forks_of_forks_keep_what_each_changed(lrq: World) -> None:
    """The configuration of a step is its own; the first run's stands as it was frozen."""
    rescore(lrq, "-d", "faithfulness", "--set", "settings.passages=1")
    rescore(lrq, "-d", "logicality", "--set", "judge.votes=2", run="items-2")
    with lrq.ledger() as ledger, ledger.read() as tx:
        first, second = (runs_.get_run(tx, name).config for name in ("items", "items-2-2"))
    assert "steps" not in first
    assert second["forked_from"] == "items-2"
    assert {name: sorted(step) for name, step in second["steps"].items()} == {
        "faithfulness": ["settings"],
        "logicality": ["judge"],
    }
    assert second["steps"]["faithfulness"]["settings"]["passages"] == 1
    assert second["settings"]["passages"] == first["settings"]["passages"] == 5


def test_going_back_buys_nothing(lrq: World) -> None:
    """What was asked once is known for good: the old setting brings the old scores for no money."""
    rescore(lrq, "-d", "faithfulness", "--set", "settings.passages=1")
    rescore(lrq, "-d", "faithfulness", "--set", "settings.passages=5", run="items-2")
    after = lrq.status("items-2-2")
    assert after["calls"]["calls"] == 0
    assert after["calls"]["reused"] > 0
    assert lrq.scores("items-2-2") == lrq.scores("items")


def test_a_fork_has_the_limits_of_its_run_counted_anew(lrq: World) -> None:
    """Unless it names its own; in JSON and in words."""
    lrq("budget", "items", "--max-cost", "12.5", "--max-tokens", "9000000")
    lrq("fork", "items", "--name", "same", "--set", "settings.min_scored=4", "--detach")
    said = lrq("fork", "items", "--name", "less", "--set", "settings.min_scored=4", "--max-cost", "2", "--detach")
    assert "it may spend 2 and 9,000,000 tokens, beside what items has" in said.out
    facts = lrq(
        "rescore", "items", "-d", "logicality", "--set", "judge.votes=2", "--max-tokens", "7", "--detach", "--json"
    )
    assert (facts.json()["max_cost"], facts.json()["max_tokens"]) == (12.5, 7)
    with lrq.ledger() as ledger, ledger.read() as tx:
        made = [runs_.get_run(tx, name) for name in ("same", "less", "items-2")]
    assert [(run.max_cost, run.max_tokens) for run in made] == [
        (12_500_000, 9_000_000),
        (2_000_000, 9_000_000),
        (12_500_000, 7),
    ]
    assert {run.spent_tokens for run in made} == {0}


def test_a_fork_that_asks_for_other_steps_opens_those_alone(ledger: Ledger) -> None:
    """Janus judges where pairs are made by rubrics, and not where the system message decides."""
    forked = {}
    for before, after in (("system", "rubric"), ("rubric", "system")):
        config = snapshot_config(Settings(recipe="janus", settings={"pair_by": before}), train=False)
        with ledger.write() as tx:
            run = runs_.create_run(tx, before, config)
        asked = Settings(recipe="janus", settings={"pair_by": after})
        forked[after] = fork_config(run, load_run_config("janus", run.config), asked)
    assert {after: fork.steps for after, fork in forked.items()} == {"rubric": ["rubric"], "system": []}
    assert all("settings.pair_by" in fork.changes for fork in forked.values())


def test_without_a_change_nothing_is_done(lrq: World) -> None:
    """The same judge, prompts and settings: scores stand, and the command says what would make a difference."""
    before = lrq.status("items")
    said = lrq("rescore", "items", "-d", "completeness")
    assert "nothing has changed for completeness" in said.out
    assert lrq.status("items") | {"pace": before["pace"]} == before  # the pace is the clock's


def test_a_fork_takes_new_lines_by_the_new_words(lrq: World) -> None:
    """More lines of the same file are judged as it was forked; the settings of the run are still the same ones."""
    rescore(lrq, "-d", "faithfulness", "--set", "settings.batch_statements=true")
    file = lrq.write("items", [*journals(3, 4), journals(4, 4, seed="more")[3]])
    facts = lrq.run(file, "--name", "items-2")
    assert facts["items"] == {"done": 4}
    with lrq.ledger() as ledger, ledger.read() as tx:
        newest = tx.execute(sa.select(sa.func.max(calls.c.item_id))).scalar()
        query = sa.select(calls.c.kind).where(calls.c.item_id == newest, calls.c.dimension == "faithfulness")
        kinds = {row.kind for row in tx.execute(query)}
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
    """A later fork by another number of votes does not bring the packaged text back."""
    new = packaged("logicality") + "\nBe brief."
    rescore(lrq, "-d", "logicality", "--prompts", prompts(tmp_path / "texts", logicality=new))
    facts = rescore(lrq, "-d", "logicality", "--set", "judge.votes=2", run="items-2")
    assert facts["changed"] == ["judge.votes"]
    with lrq.ledger() as ledger, ledger.read() as tx:
        step = runs_.get_run(tx, "items-2-2").config["steps"]["logicality"]
    assert step["prompts"]["en/logicality"] == new
    assert step["own_prompts"] == ["en/logicality"]


def test_a_fork_is_one_transaction_on_each_database(ledger: Ledger) -> None:
    """Items and what they have are copied; the judged one is opened again without its scores of the step."""
    scores = [Score(dimension=name, k=k, value=float(k)) for name in ("wit", "wit/2", "form") for k in range(2)]
    with ledger.write() as tx:
        run = runs_.create_run(tx, "r", {"recipe": "longreward", "settings": {}})
        lines = [(n, Item(id=f"i{n}", context="c", question="q"), [(0, "a"), (1, "b")]) for n in range(3)]
        items_.add_items(tx, run.id, lines)
        first, second, third = items_.item_ids(tx, run.id)
        items_.add_scores(tx, [(first, 0, score) for score in scores])
        for id_, state in ((first, "done"), (second, "failed"), (third, "done")):
            tx.execute(items.update().where(items.c.id == id_).values(state=state))
        tx.execute(responses.update().where(responses.c.item_id == third).values(text=None, reason="empty"))
        tx.execute(runs.update().values(open_items=0, state="done"))
    with ledger.write() as tx:
        made = fork_run(tx, run, "f", {"settings": {"a": 1}}, steps={"s": "q"}, dimensions=["wit"])
    assert (made.config, made.state, made.open_items) == ({"settings": {"a": 1}}, "active", 2)
    with ledger.read() as tx:
        ids = items_.item_ids(tx, made.id)
        assert [score.dimension for score in items_.load_scores(tx, ids[0], 0)] == ["form", "form"]
        assert [each.text for each in items_.load_responses(tx, ids[0], 0)] == ["a", "b"]
        assert len(items_.load_scores(tx, first, 0)) == 6
        opened = [(row.item_id, row.name, row.queue, row.state) for row in tx.execute(sa.select(tasks))]
        assert opened == [(ids[0], "s", "q", "ready"), (ids[2], "aggregate", "aggregate", "ready")]
        states = tx.execute(sa.select(items.c.state).where(items.c.run_id == made.id).order_by(items.c.id))
        assert list(states.scalars()) == ["judging", "failed", "aggregating"]
    with ledger.write() as tx, pytest.raises(UsageError, match="still at work"):
        fork_run(tx, made, "g", {}, steps={}, dimensions=[])
    with ledger.write() as tx, pytest.raises(UsageError, match="a run named 'f' already"):
        fork_run(tx, run, "f", {}, steps={}, dimensions=[])
    with ledger.write() as tx:
        runs_.set_ingesting(tx, run.id, intakes.READING)
    with ledger.write() as tx, pytest.raises(UsageError, match="still at work"):
        fork_run(tx, run, "h", {}, steps={}, dimensions=[])
