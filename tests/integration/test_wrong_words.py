"""What commands say to words that cannot be meant: one line, before anything is begun or paid."""

import json
import re
from pathlib import Path

import pytest
from inline import World
from journals import journals

from lrq.config import load_settings
from lrq.domain.errors import LrqError
from lrq.ledger.runs import get_run
from lrq.operations.execute import check_able


@pytest.mark.parametrize("price", ["1", "1,2,3,4", "inf,1", "nan,1", "a,b", ""])
def test_half_a_price_is_none(lrq: World, price: str) -> None:
    """Replies for nothing would make of a cap no cap."""
    path = lrq.write("items", journals(1, 2))
    said = lrq("enqueue", path, "--no-train", f"--price={price}", "--max-cost", "1", code=2)
    assert "--price wants IN,OUT" in said.err


def test_a_run_without_a_folder_to_train_from_is_not_begun(lrq: World) -> None:
    """The judging would be paid for, and the training fail."""
    said = lrq("run", lrq.write("items", journals(1, 2)), code=2)
    assert "the policy to train is not named" in said.err
    assert "--no-train" in said.err


def test_an_estimate_counts_the_lines_that_an_intake_takes(lrq: World) -> None:
    """A repeated id and a torn line are none of them."""
    lines = journals(3, 2)
    path = lrq.write("items", [*lines, lines[0]])
    path.write_text(path.read_text() + "{\n")
    facts = json.loads(lrq("estimate", path, "--no-train", "--json", code=3).out)
    assert (facts["items"], facts["set_aside"]) == (3, 2)
    taken = json.loads(lrq("enqueue", path, "--no-train", "--json", code=3).out)
    assert (taken["added"], taken["set_aside"]) == (3, 2)


def test_a_comparison_asks_the_policies(lrq: World, tmp_path: Path) -> None:
    """Not for nothing: a folder that is none is named before anything is judged."""
    path = lrq.write("items", journals(1, 2))
    policy = tmp_path / "policy"
    policy.mkdir()
    for name in ("config.json", "model.safetensors"):
        (policy / name).touch()
    said = lrq("evaluate", path, "--policy", f"a={policy}", "--policy", f"b={tmp_path}/nowhere", code=2)
    assert "there is no folder" in said.err


def test_the_doctor_looks_for_the_policy(lrq: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Before a run does."""
    monkeypatch.setenv("LRQ_POLICY", f"{tmp_path}/nowhere")
    assert f"policy: there is no folder {tmp_path}/nowhere" in lrq("doctor", code=1).out


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("show", "journal-0", "-k", "99"), 2, "has no response 99; it has 0, 1"),
        (("export", "items", "-o", "/nowhere/at/all.jsonl"), 1, "/nowhere/at/all.jsonl: No such file"),
        (("budget", "items", "--max-cost", "inf"), 2, "no amount of money"),
        (("train", "nowhere.jsonl"), 2, "nowhere.jsonl is no file"),
        (("status", "--set", "judge.rpm=[1"), 2, "the value of --set judge.rpm is not YAML"),
        (("enqueue", "items.txt"), 2, "items.txt"),
        (("status", "--set", "foo.bar=1"), 2, "setting foo: there is no such setting"),
        (("status", "--set", "redis_url=foo"), 2, "setting redis_url: a Redis is named redis://"),
    ],
)
def test_what_cannot_be_is_one_line(lrq: World, words: tuple[str, ...], code: int, said: str) -> None:
    """Without a traceback, and without the name of an exception."""
    lines = journals(1, 2)
    lrq("enqueue", lrq.write("items", lines), "--no-train")
    words = tuple(lines[0]["id"] if word == "journal-0" else word for word in words)
    err = lrq(*words, code=code).err.strip()
    assert said in err
    assert "Error:" not in err
    assert "\n" not in err


def test_a_file_that_cannot_be_read_begins_no_run(lrq: World, tmp_path: Path) -> None:
    """Else an empty one would stand as active for ever."""
    for name in ("items.txt", "items.jsonl.gz"):
        (tmp_path / name).write_text("x")
        lrq("enqueue", tmp_path / name, "--no-train", code=2)
    assert lrq("status", "--json").json()["runs"] == []


@pytest.mark.parametrize("command", ["enqueue", "estimate", "run"])
def test_an_empty_file_is_a_wrong_word_to_all_commands(lrq: World, tmp_path: Path, command: str) -> None:
    """An empty file, and one of blank lines, is refused in the same words and with the same code."""
    for name, text in (("nothing.jsonl", ""), ("blank.jsonl", "\n\n")):
        (tmp_path / name).write_text(text)
        assert f"{name} is empty: it holds no line" in lrq(command, tmp_path / name, "--no-train", code=2).err


def test_items_that_cannot_make_a_pair_are_known_before_the_first_call(lrq: World) -> None:
    """By estimate, enqueue and run alike; where scores alone are wanted, or fewer do, they are taken."""
    path = lrq.write("items", journals(2, 4))
    for command in ("estimate", "enqueue", "run"):
        said = lrq(command, path, "--no-train", code=2, pairs=True).err.strip()
        assert "no item of" in said
        assert "--set settings.min_scored=4, or --scores-only" in said
        assert "\n" not in said
    assert lrq("status", "--json").json()["runs"] == []
    said = lrq("estimate", path, "--no-train", "--json", "--scores-only").json()
    assert said["cannot_pair"] == 2
    assert lrq("enqueue", path, "--no-train", "--set", "settings.min_scored=4", pairs=True).code == 0


def test_some_items_without_a_pair_do_not_stop_the_others(lrq: World) -> None:
    """They are counted, and so are empty responses that leave too few."""
    lines = journals(3, 5)
    lines[0]["responses"] = lines[0]["responses"][:4]
    lines[1]["responses"][2] = "  \n"
    path = lrq.write("items", lines)
    words = "2 of 3 items cannot make a pair: they have fewer than 5 responses (min_scored)"
    assert words in lrq("estimate", path, "--no-train", pairs=True).out
    assert words in lrq("enqueue", path, "--no-train", pairs=True).out
    assert lrq.run(path)["pairs"] <= 1


def test_sampling_fewer_than_a_pair_needs_is_known_too(lrq: World) -> None:
    """Of items without responses all have as many as are sampled."""
    lines = [{name: value for name, value in line.items() if name != "responses"} for line in journals(2, 1)]
    path = lrq.write("items", lines)
    said = lrq("enqueue", path, "--no-train", "--set", "sample.responses=3", code=2, pairs=True).err
    assert "3 responses at most and 5 are needed" in said


def test_a_limit_below_the_estimate_is_said(lrq: World) -> None:
    """With the share of it that the run will get."""
    path = lrq.write("items", journals(2, 5))
    words = ("--no-train", "--price", "1,2", "--max-cost", "0.001")
    for command in ("estimate", "enqueue"):
        assert re.search(r"--max-cost 0.001 is \d+% of that", lrq(command, path, *words).out)


def test_what_a_run_is_frozen_with_is_not_changed_by_resume(lrq: World) -> None:
    """It says so instead of passing over it; limits and prices may change, and so may what no flag names."""
    lrq("enqueue", lrq.write("items", journals(1, 5)), "--no-train")
    for flag in ("judge.votes=2", "settings.min_scored=3", "sample.seed=5", "recipe=other.py:X"):
        said = lrq("resume", "items", "--detach", "--set", flag, code=2).err.strip()
        assert "is frozen" in said
        assert "\n" not in said
    lrq("resume", "items", "--detach", "--set", "judge.rpm=5", "--set", "judge.price={input: 1, output: 2}")
    lrq("resume", "items", "--detach", "--set", "settings.min_scored=5")


def test_too_few_samples_for_a_pair_are_told_with_what_to_set(lrq: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """One response to each system message has nothing to be paired with by rubrics."""
    monkeypatch.setenv("LRQ_POLICY", "http://127.0.0.1:9/v1")
    monkeypatch.setenv("LRQ_POLICY_MODEL", "m")
    line = {"id": "a", "question": "Why?", "system": ["Be short.", "Be kind."], "rubrics": ["Is it short?"]}
    path = lrq.write("asked", [line])
    words = (path, "--recipe", "janus", "--set", "settings.pair_by=rubric", "--no-train")
    for command in ("estimate", "enqueue", "run"):
        assert "--set sample.responses=2, or --scores-only" in lrq(command, *words, code=2, pairs=True).err
    lrq("enqueue", *words, "--set", "sample.responses=2", pairs=True)


def test_a_teacher_that_a_recipe_asks_is_wanted_before_anything_is_paid(
    lrq: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only where items lack what it would write; the policy that then answers is wanted too."""
    path = lrq.write("asked", [{"id": "a", "question": "Why?"}])
    words = ("run", path, "--recipe", "janus", "--no-train")
    monkeypatch.setenv("LRQ_POLICY", "http://127.0.0.1:9/v1")
    monkeypatch.setenv("LRQ_POLICY_MODEL", "m")
    assert "recipe janus asks a teacher: set LRQ_TEACHER_URL" in lrq(*words, code=1).err
    monkeypatch.setenv("LRQ_TEACHER_URL", "http://127.0.0.1:9/v1")
    monkeypatch.setenv("LRQ_TEACHER_MODEL", "m")
    for name in ("LRQ_POLICY", "LRQ_POLICY_MODEL"):
        monkeypatch.delenv(name)
    assert "no policy is named" in lrq(*words, "--name", "b", code=1).err


def test_a_judge_that_writes_alone_wants_no_policy(lrq: World) -> None:
    """The recipe rubric asks the judge as policies are asked."""
    turns = [{"speaker": "Candidate", "text": "I went there."}]
    path = lrq.write("talks", [{"id": "a", "turns": turns}])
    lrq("enqueue", path, "--recipe", "evalyaks-1", "--no-train", "--name", "r")
    settings = load_settings()
    with lrq.ledger() as ledger:
        with ledger.read() as tx:
            run = get_run(tx, "r")
        check_able(ledger, settings, run, ["judge", "aggregator", "sampler"])
        plain = lrq.write("asked", [{"id": "b", "question": "Why?", "context": "So."}])
        lrq("enqueue", plain, "--no-train", "--name", "p")
        with ledger.read() as tx:
            run = get_run(tx, "p")
        with pytest.raises(LrqError, match="no policy is named"):
            check_able(ledger, settings, run, ["judge", "aggregator", "sampler"])


def test_the_doctor_misses_no_judge_that_nobody_asks(lrq: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """LongPO has none; with its comparison of answers it has."""
    for name in ("LRQ_JUDGE_URL", "LRQ_JUDGE_MODEL"):
        monkeypatch.delenv(name, raising=False)
    assert "recipe longpo asks none" in lrq("doctor", "--set", "recipe=longpo").out
    compared = ("--set", "recipe=longpo", "--set", "settings.compare_answers=true")
    for words in ((), compared):
        assert "none is named: set LRQ_JUDGE_URL" in lrq("doctor", *words, code=1).out
