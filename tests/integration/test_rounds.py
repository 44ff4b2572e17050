"""Rounds: each begins with the model of the one before. Samples and judgements are real; trainings copy their model."""

import json
import shutil
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from inline import World
from journals import EXAMPLES, journals, questions

pytest.importorskip("torch")

from lrq.ledger.schema import items, prompts, responses, rows, scores
from lrq.policy.folder import fingerprint
from lrq.trainer.job_folder import NOTE, JobFolder, Result
from lrq.workers import trainer

pytestmark = pytest.mark.torch

POLICY = EXAMPLES / "small_policy" / "model"
SAMPLING = ("--set", "sample.max_new_tokens=40", "--set", "sample.responses=3", "--set", "settings.min_scored=2")


class Trainings:
    """Stand-ins for trainings: the model is copied, with a note that makes it another."""

    def __init__(self) -> None:
        self.jobs: list[dict[str, Any]] = []
        self.failing = 0  # how many fail from now on

    def run(self, folder: JobFolder, **_: Any) -> Result:
        job = folder.load()
        rows = len(job.rows.read_text().splitlines())
        known = {"model": job.model, "reference": job.reference_model, "rows": rows, "output": job.output}
        self.jobs.append(known)
        if self.failing:
            self.failing -= 1
            return Result(state="failed", reason="out of memory")
        shutil.copytree(job.model, job.output)
        (job.output / NOTE).write_text(json.dumps({"training": len(self.jobs)}))
        return Result(state="done", model=job.output)


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> Trainings:
    made = Trainings()
    monkeypatch.setattr(trainer.launch, "run", made.run)
    return made


@pytest.fixture
def enqueue(lrq: World, trainings: Trainings, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """Put lines into the run `r`, work on it to its end, and return its facts."""
    monkeypatch.setenv("LRQ_POLICY", str(POLICY))
    monkeypatch.setenv("LRQ_POLICY_DEVICE", "cpu")
    monkeypatch.setattr("lrq.cli.enqueue.note_probe", lambda *_: None)  # takes a training step; has tests of its own

    def to_its_end(lines: list[dict[str, Any]], *words: object) -> dict[str, Any]:
        lrq("enqueue", lrq.write("items", lines), "--name", "r", *SAMPLING, *words)
        lrq.work("r")
        return lrq.status("r")

    return to_its_end


def select(lrq: World, query: sa.Select[Any]) -> list[Any]:
    with lrq.ledger() as ledger, ledger.read() as tx:
        return list(tx.execute(query))


def test_a_round_samples_and_trains_the_model_of_the_one_before(
    lrq: World, enqueue: Callable[..., dict[str, Any]], trainings: Trainings
) -> None:
    """All items anew; earlier models stay, and `model` is the last."""
    facts = enqueue(questions(3), "--rounds", 3)
    assert (facts["state"], facts["round"], facts["items"]) == ("done", 2, {"done": 3}), facts["reason"]
    runs = lrq.home.resolve() / "runs" / "r"
    models = [runs / "models" / f"round-{number}" for number in range(3)]
    assert [job["model"] for job in trainings.jobs] == [POLICY.resolve(), *models[:2]]
    assert [job["output"] for job in trainings.jobs] == models
    assert [one["model"] for one in facts["rounds"]] == [str(model) for model in models]
    assert (runs / "model").resolve() == models[2]
    sampled_by = {
        (row.round, json.loads(row.body)["policy"]) for row in select(lrq, sa.select(prompts.c.round, prompts.c.body))
    }
    assert sampled_by == {(n, fingerprint(folder)) for n, folder in enumerate([POLICY, *models[:2]])}
    texts: dict[int, set[str]] = {}
    for row in select(lrq, sa.select(responses.c.round, responses.c.text)):
        texts.setdefault(row.round, set()).add(row.text)
    assert texts[0] != texts[1] != texts[2], "the noise is the round's"


def test_export_and_show_know_the_rounds(lrq: World, enqueue: Callable[..., dict[str, Any]]) -> None:
    """All rounds by default, each line with its round; or one of them."""
    facts = enqueue(questions(2), "--rounds", 2)
    scores = lrq.scores("r")
    assert [(line["id"], line["round"]) for line in scores[::3]] == [
        (item, number) for item in ("asked-001", "asked-002") for number in (0, 1)
    ]
    pairs = [json.loads(line) for line in lrq("export", "r").out.splitlines()]
    assert len(pairs) == facts["pairs"] == sum(one["pairs"] for one in facts["rounds"])
    assert [pair["round"] for pair in pairs] == sorted(pair["round"] for pair in pairs)
    (last,) = {json.loads(line)["round"] for line in lrq("export", "r", "--round", 1).out.splitlines()}
    assert last == 1
    assert "has no round 2" in lrq("export", "r", "--round", 2, code=2).err
    first, latest = (lrq("show", "asked-001", "--json", *words).json()["responses"] for words in (("--round", 0), ()))
    assert [one["text"] for one in first] == [line["answer"] for line in scores[:3]]
    assert [one["text"] for one in latest] == [line["answer"] for line in scores[3:6]]
    assert [one["round"] for one in lrq("report", "r", "--json").json()["rounds"]] == [0, 1]


def test_split_items_have_a_round_each_and_bring_responses_to_the_first_alone(
    lrq: World, enqueue: Callable[..., dict[str, Any]], trainings: Trainings
) -> None:
    """SPPO's own three rounds: dealt out in turn; what later items bring is left out."""
    lines = [{**line, "id": f"i{n}"} for n, line in enumerate(journals(5, 3))]
    facts = enqueue(lines, "--recipe", "sppo")
    assert (facts["state"], facts["items"]) == ("done", {"done": 5})
    rounds = {row.key: row.round for row in select(lrq, sa.select(items.c.key, items.c.round))}
    assert rounds == {"i0": 0, "i1": 1, "i2": 2, "i3": 0, "i4": 1}
    answers = {(line["id"], line["round"]): [] for line in lrq.scores("r")}
    for line in lrq.scores("r"):
        answers[line["id"], line["round"]].append(line["answer"])
    assert answers.keys() == set(rounds.items())
    given = {line["id"]: line["responses"] for line in lines}
    assert {id_ for (id_, _), texts in answers.items() if texts == given[id_]} == {"i0", "i3"}
    assert len(trainings.jobs) == sum(bool(one["pairs"]) for one in facts["rounds"]) == 3


def test_a_run_without_training_is_one_round(lrq: World, enqueue: Callable[..., dict[str, Any]]) -> None:
    """A recipe's rounds are its training's: without it all items are judged once, as they are."""
    facts = enqueue(journals(3, 3), "--recipe", "sppo", "--no-train")
    assert (facts["state"], facts["items"], facts["responses"]["count"]) == ("done", {"done": 3}, 9)
    assert (facts["round"], facts["rounds"]) == (0, [])
    assert "leave out --no-train" in lrq("enqueue", lrq.folder / "items.jsonl", "--rounds", 2, "--no-train", code=2).err


def test_a_round_without_rows_ends_the_run_with_its_reason(
    lrq: World, enqueue: Callable[..., dict[str, Any]], trainings: Trainings
) -> None:
    """Margins that no pair has: one round, no model, and the words for it."""
    facts = enqueue(questions(2), "--rounds", 3, "--set", "settings.min_margin=99")
    assert (facts["state"], facts["round"], trainings.jobs) == ("done", 0, [])
    assert facts["reason"] == "round 0 is the last, for it made no model: no item has brought a row"
    assert facts["reason"] in lrq("report", "r").out


def test_a_training_that_failed_is_tried_again_and_the_rounds_go_on(
    lrq: World, enqueue: Callable[..., dict[str, Any]], trainings: Trainings
) -> None:
    """No round begins from a model that should have been another."""
    trainings.failing = 1
    facts = enqueue(questions(2), "--rounds", 2)
    assert (facts["state"], facts["round"]) == ("done", 0)
    assert facts["reason"] == "round 0 is the last, for a training of its failed: out of memory"
    lrq("resume", "r", "--failed", "--detach")
    lrq.work("r")
    facts = lrq.status("r")
    assert (facts["state"], facts["round"], facts["reason"]) == ("done", 1, "")
    assert len(trainings.jobs) == 3


def test_new_lines_join_the_round_where_the_run_is(
    lrq: World, enqueue: Callable[..., dict[str, Any]], trainings: Trainings
) -> None:
    """They are sampled by its policy, and their rows go to a training that follows its last."""
    lines = questions(4)
    enqueue(lines[:2], "--rounds", 2)
    facts = enqueue([*lines[:2], {**lines[2], "responses": ["One.", "Two."]}], "--rounds", 2)
    assert (facts["state"], facts["items"]) == ("done", {"done": 3})
    rounds = {row.key: row.round for row in select(lrq, sa.select(items.c.key, items.c.round))}
    assert set(rounds.values()) == {1}
    texts = [row.text for row in select(lrq, sa.select(responses.c.text))]
    assert "One." not in texts
    assert [job["output"].name for job in trainings.jobs] == ["round-0", "round-1", "round-1-window-1"]
    assert trainings.jobs[-1]["model"].name == "round-1"


def test_pairs_that_a_repair_makes_in_an_earlier_round_are_named(
    lrq: World, enqueue: Callable[..., dict[str, Any]], trainings: Trainings
) -> None:
    """Of split items: their round is over, and the models of later rounds stand; status and report say what to do."""
    facts = enqueue([{**line, "id": f"i{n}"} for n, line in enumerate(journals(5, 3))], "--recipe", "sppo")
    assert [one["untrained"] for one in facts["rounds"]] == [0, 0, 0]
    first = sa.select(items.c.id).where(items.c.key == "i0").scalar_subquery()
    with lrq.ledger() as ledger, ledger.write() as tx:  # as if the judge had not been readable
        tx.execute(rows.delete().where(rows.c.item_id == first))
        tx.execute(scores.update().where(scores.c.item_id == first).values(state="unscored", value=None, reason="?"))
    count = len(trainings.jobs)
    lrq("resume", "r", "--failed", "--detach")
    lrq.work("r")
    facts = lrq.status("r")
    assert (facts["state"], [one["untrained"] for one in facts["rounds"]]) == ("done", [1, 0, 0])
    assert len(trainings.jobs) == count
    for command in ("status", "report"):
        said = " ".join(lrq(command, "r").out.split())
        assert "1 rows of round 0 came of a repair" in said
        assert "`lrq train r` does" in said


def test_windows_of_a_round_have_its_start_as_their_reference(
    lrq: World, enqueue: Callable[..., dict[str, Any]], trainings: Trainings
) -> None:
    """Each goes on from the model before it; the first begins with the reference itself."""
    facts = enqueue(questions(3), "--rounds", 2, "--set", "train.every_rows=1")
    assert (facts["state"], facts["round"]) == ("done", 1), facts["reason"]
    start = POLICY.resolve()
    for round_ in range(2):
        of_round = [job for job in trainings.jobs if job["output"].name.startswith(f"round-{round_}")]
        assert len(of_round) > 1, "one window is no window"
        assert [job["model"] for job in of_round] == [start, *(job["output"] for job in of_round[:-1])]
        assert [job["reference"] for job in of_round] == [None, *[start] * (len(of_round) - 1)]
        start = of_round[-1]["output"]


def test_rounds_of_a_policy_behind_a_url_are_refused(lrq: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is paid or even taken in: no server there has the model of a round."""
    monkeypatch.setenv("LRQ_POLICY", "http://127.0.0.1:9/v1")
    monkeypatch.setenv("LRQ_POLICY_MODEL", "m")
    file = lrq.write("items", questions(1))
    for words in (("--rounds", 2), ("--recipe", "sppo")):
        for command in ("enqueue", "run"):
            assert "the policy is behind a URL" in lrq(command, file, *words, code=2).err
    assert lrq("status", "--json").json()["runs"] == []


def test_policies_of_the_rounds_are_evaluated_beside_the_first(
    lrq: World, enqueue: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """--rounds-of names the policy before and after each round."""
    enqueue(questions(1), "--rounds", 2)
    monkeypatch.setattr("lrq.cli.evaluate.finish", lambda _ledger, _settings, run, **_: lrq.work(run) or 0)
    held_out = lrq.write("held", questions(2))
    said = lrq(
        "evaluate", held_out, "--rounds-of", "r", "--responses", 2, "--set", "sample.max_new_tokens=40", "--json"
    )
    assert [one["policy"] for one in said.json()] == ["before", "round_0", "round_1"]
