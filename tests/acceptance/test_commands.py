"""What the commands say and with which code they end."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from running import REPOSITORY, Lrq, Sim, assert_all_scored, write_lines

from lrq.cli import COMMANDS

pytestmark = pytest.mark.timeout(900)

EXAMPLE = REPOSITORY.parent / "shared" / "data" / "longreward-example"
Items = Callable[[int, int], list[dict[str, Any]]]
Sims = Callable[..., Sim]


@pytest.mark.skipif(not EXAMPLE.is_dir(), reason="the published example files of LongReward are not here")
def test_the_published_example(lrq: Lrq, sim: Sims):
    """Ten rewards, one pair; `show` explains every call; neither a second run nor a lost broker makes another call."""
    judge = sim()
    lrq.judged_by(judge)
    run = ("run", EXAMPLE / "sft.jsonl", "--responses", EXAMPLE / "sampled_responses.jsonl", "--no-train")
    lrq(*run)
    lines = lrq.scores("sft")
    assert [line["response"] for line in lines] == list(range(10))
    assert all(isinstance(line["reward"], float) for line in lines)
    (pair,) = lrq("export", "sft", "--format", "longreward").stdout.splitlines()
    rewards = {line["answer"]: line["reward"] for line in lines}
    chosen, rejected = (json.loads(pair)[name] for name in ("win_response", "lose_response"))
    assert rewards[chosen] == max(rewards.values()) > rewards[rejected] == min(rewards.values())
    bought = judge.stats()["complete"]
    assert_explained(json.loads(lrq("show", f"sft:{lines[0]['id']}", "--json").stdout), bought)
    for _ in range(2):
        again = lrq(*run)
        assert "1 pairs" in again.stdout
        assert judge.stats()["received"] == bought
        shutil.rmtree(lrq.home / "broker", ignore_errors=True)


def assert_explained(item: dict[str, Any], bought: int) -> None:
    """Each call stands there with its reply, and each score with the calls and the words that led to it."""
    calls = {call["key"]: call for call in item["calls"]}
    assert len(calls) == bought
    assert all(call["reply"] and call["state"] == "done" for call in calls.values())
    used = {key for part in item["extraction"] for key in part["calls"]}
    for score in (score for response in item["responses"] for score in response["scores"]):
        assert score["judge"] or score["state"] == "not_applicable"
        used.update(score["calls"])
        for statement in score.get("statements", ()):
            assert statement["judge"]
            assert statement["passages"]
            used.update(statement["calls"])
    assert used == set(calls)


def test_a_refused_key_pauses_the_run(lrq: Lrq, sim: Sims, journal_items: Items, tmp_path: Path):
    """Exit code 5 and one line that says what to mend; with the right key `resume` goes on. No key is kept anywhere."""
    judge = sim("--api-key", "right-key-4711")
    lrq.judged_by(judge)
    file = write_lines(tmp_path / "items.jsonl", journal_items(2, 5))
    done = lrq("run", file, "--no-train", code=5, LRQ_JUDGE_API_KEY="wrong-key-0815")
    said = [line for line in done.stderr.splitlines() if "paused" in line]
    assert len(said) == 1, done.stderr
    assert "401" in said[0]
    assert "lrq resume" in said[0]
    assert judge.stats()["complete"] == 0
    assert lrq.status("items")["halted_by"] == "account"
    lrq("resume", "items", LRQ_JUDGE_API_KEY="right-key-4711")
    assert assert_all_scored(lrq, "items", 10) == 0
    kept = b"".join(path.read_bytes() for path in lrq.home.rglob("*") if path.is_file())
    assert b"right-key-4711" not in kept
    assert b"wrong-key-0815" not in kept


def test_a_budget_stops_the_run_and_a_larger_one_lets_it_go_on(
    lrq: Lrq, sim: Sims, journal_items: Items, tmp_path: Path
):
    """Exit code 4 with what was spent under the cap; `lrq budget` raises it, and nothing is bought twice."""
    judge = sim()
    lrq.judged_by(judge)
    file = write_lines(tmp_path / "items.jsonl", journal_items(4, 6))
    options = ("--no-train", "--price", "1,2", "--max-cost", "0.10")
    done = lrq("run", file, *options, code=4)
    said = [line for line in done.stderr.splitlines() if "budget" in line]
    assert len(said) == 1, done.stderr
    assert "lrq budget" in said[0]
    money = lrq.status("items")["money"]
    assert 0 < money["spent"] <= 0.10
    assert money["reserved"] == 0
    lrq("run", file, *options, code=4)  # it may find calls that are small enough
    assert lrq.status("items")["money"]["spent"] <= 0.10
    assert judge.stats()["duplicates"] == 0
    facts = json.loads(lrq("budget", "items", "--max-cost", "5", "--json").stdout)
    assert (facts["state"], facts["max_cost"]) == ("active", 5.0)
    lrq("resume", "items", "--set", "judge.price={input: 1, output: 2}")
    assert assert_all_scored(lrq, "items", 24) == 0
    stats, money = judge.stats(), lrq.status("items")["money"]
    assert stats["duplicates"] == 0
    charged = (stats["tokens"]["prompt"] + 2 * stats["tokens"]["completion"]) / 1e6
    assert money["spent"] == pytest.approx(charged)
    assert money["spent"] <= 5


def test_a_cap_wants_a_price(lrq: Lrq, sim: Sims, journal_items: Items, tmp_path: Path):
    """A cap on money is refused where no price is known, before the first call."""
    judge = sim()
    lrq.judged_by(judge)
    file = write_lines(tmp_path / "items.jsonl", journal_items(1, 5))
    assert_one_line(lrq("run", file, "--no-train", "--max-cost", "1", code=2), "--price")
    assert judge.stats()["received"] == 0


def test_bad_lines_are_rejected(lrq: Lrq, sim: Sims, journal_items: Items, tmp_path: Path):
    """The rest goes on, the exit code is 3, and `status --failed` names line and reason; --strict stops instead."""
    lrq.judged_by(sim())
    good, other = journal_items(2, 5)
    file = tmp_path / "items.jsonl"
    bad = [b'{"id": 7, "context": "c"}', b"\xff\xfe", json.dumps(good).encode(), b'{"id": "torn", "conte']
    file.write_bytes(b"\n".join([json.dumps(good).encode(), *bad[:3], json.dumps(other).encode(), bad[3]]))
    assert_one_line(lrq("enqueue", file, "--name", "strict", "--strict", code=2), "line 2")
    assert "4 rejected" in lrq("enqueue", file, "--no-train", code=3).stdout
    lrq("run", file, "--no-train", code=3)
    failed = json.loads(lrq("status", "items", "--failed", "--json").stdout)
    assert [one["what"] for one in failed] == [f"items.jsonl, line {line}" for line in (2, 3, 4, 6)]
    assert all(one["reason"] for one in failed)
    assert assert_all_scored(lrq, "items", 10) == 0


def test_an_end_tells_what_was_made(lrq: Lrq, sim: Sims, journal_items: Items, tmp_path: Path):
    """Nothing to read, nothing usable, no pair: never 0, and a line with the reasons; the estimate comes first."""
    lrq.judged_by(sim())
    (item,) = journal_items(1, 5)
    empty = write_lines(tmp_path / "empty.jsonl", [])
    assert_one_line(lrq("run", empty, "--no-train", code=2), "is empty")
    bad = lrq("run", write_lines(tmp_path / "bad.jsonl", [{"id": 1}, {"id": 2}]), "--no-train", code=3)
    assert "no line could be read" in bad.stderr
    assert "2 lines rejected: 2 × context is missing" in bad.stderr
    same = write_lines(tmp_path / "same.jsonl", [item | {"responses": item["responses"][:1] * 5}])
    done = lrq("run", same, "--no-train", code=3)
    assert "no pair was made: 1 × all scored responses have the same text" in done.stderr
    assert done.stdout.index("estimate: ") < done.stdout.index("dimension")
    lrq("run", same, "--no-train", "--scores-only")
    lrq("resume", "same", code=3)


def test_enqueue_needs_no_broker(lrq: Lrq, sim: Sims, journal_items: Items, tmp_path: Path):
    """Items are recorded and go out when one starts; the same file again adds nothing, a longer one its new lines."""
    lrq.judged_by(sim())
    items = journal_items(3, 5)
    file = write_lines(tmp_path / "items.jsonl", items[:2])
    done = lrq("enqueue", file, "--no-train")
    assert "2 items added" in done.stdout
    assert "no broker is up" in done.stderr
    assert "0 items added, 2 known" in lrq("enqueue", file, "--no-train").stdout
    write_lines(file, items)
    assert "1 items added, 2 known" in lrq("enqueue", file, "--no-train").stdout
    lrq("resume", "items")
    assert assert_all_scored(lrq, "items", 15) == 0


def test_a_judge_named_later_is_the_runs(lrq: Lrq, sim: Sims, journal_items: Items, tmp_path: Path):
    """Without a judge a run says what to set, and is not frozen without one for ever."""
    file = write_lines(tmp_path / "items.jsonl", journal_items(1, 5))
    assert_one_line(lrq("run", file, "--no-train", code=1), "LRQ_JUDGE_URL")
    lrq.judged_by(sim())
    lrq("run", file, "--no-train")
    assert assert_all_scored(lrq, "items", 5) == 0


def test_other_settings_want_another_name(lrq: Lrq, sim: Sims, journal_items: Items, tmp_path: Path):
    """A run is frozen; what differs is named."""
    lrq.judged_by(sim())
    file = write_lines(tmp_path / "items.jsonl", journal_items(1, 5))
    lrq("enqueue", file, "--no-train")
    assert_one_line(lrq("enqueue", file, "--no-train", "--set", "judge.votes=2", code=2), "judge.votes")
    lrq("enqueue", file, "--no-train", "--set", "judge.votes=2", "--name", "other")
    elsewhere = {"LRQ_JUDGE_MODEL": "another"}
    assert_one_line(lrq("enqueue", file, "--no-train", code=2, **elsewhere), "judge.models")
    both = {run["run"] for run in json.loads(lrq("status", "--json").stdout)["runs"]}
    assert both == {"items", "other"}


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example(command: str, lrq: Lrq):
    """Every command explains itself."""
    said = lrq(command, "--help").stdout
    assert f"lrq {command}" in said
    assert "Example: " in said
    assert f"lrq {command}" in said.partition("Example: ")[2]


def test_all_commands_are_listed(lrq: Lrq):
    """`lrq --help` names each with a line."""
    said = lrq("--help").stdout
    listed = [line.split()[0] for line in said.partition("Commands:")[2].splitlines() if line.strip()]
    assert listed == list(COMMANDS)


def test_errors_are_one_line(lrq: Lrq, journal_items: Items, tmp_path: Path):
    """Whatever is wrong, one line says so and what to do, without a traceback."""
    file = write_lines(tmp_path / "items.jsonl", journal_items(1, 5))
    for words in (("status",), ("show", "1"), ("pause", "x"), ("export", "x")):
        assert_one_line(lrq(*words, code=1), "no ledger at")
    lrq("enqueue", file, "--no-train")
    judge = {"LRQ_JUDGE_URL": "http://127.0.0.1:9/v1", "LRQ_JUDGE_MODEL": "any"}
    for words, hint in (
        (("run", "missing.jsonl"), "missing.jsonl"),
        (("run", file, "--no-such-option"), "--no-such-option"),
        (("no-such-command",), "no-such-command"),
        (("status", "x"), "no run named 'x'; there is items"),
        (("resume", "x"), "no run named 'x'"),
        (("pause", "x"), "no run named 'x'"),
        (("budget", "x"), "no run named 'x'"),
        (("export", "x"), "no run named 'x'"),
        (("show", "x"), "'x'"),
        (("budget", "items", "--max-cost", "much"), "12.50"),
        (("run", file, "--set", "judge.rpm"), "key=value"),
        (("run", file, "--set", "judge.rpm=-1"), "judge.rpm"),
        (("run", file, "--recipe", "nonesuch"), "nonesuch"),
        (("run", file, "--no-train", "--name", "a/b"), "--name"),
        (("run", file), "--no-train"),
        (("worker", "cleaner"), "cleaner"),
        (("up", "--only", "cleaner"), "--only"),
        (("judge-sim", "--fault-500", "0.6", "--fault-reset", "0.6"), "--fault"),
    ):
        assert_one_line(lrq(*words, code=2, **judge), hint)
    assert_one_line(lrq("worker", "sampler", code=2), "LRQ_POLICY")  # with a judge it asks that, as rubric scoring does
    (tmp_path / "lrq.yaml").write_text("judge: [")
    assert_one_line(lrq("status", code=2), "lrq.yaml")
    (tmp_path / "lrq.yaml").unlink()
    dead = {"LRQ_REDIS_URL": "redis://127.0.0.1:9/0"}
    assert_one_line(lrq("run", file, "--no-train", code=1, **dead, **judge), "LRQ_REDIS_URL")
    assert_one_line(lrq("up", code=1, **dead), "LRQ_REDIS_URL")
    assert_one_line(lrq("broker", code=2, **dead), "LRQ_REDIS_URL")
    none = {"LRQ_DATABASE_URL": "postgresql+psycopg://nobody@127.0.0.1:9/none"}
    assert_one_line(lrq("status", code=1, **none), "cannot open the ledger")


def assert_one_line(done: Any, hint: str) -> None:
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert done.stderr.startswith("lrq"), done.stderr
    assert hint in done.stderr, done.stderr


def test_doctor_finds_what_is_missing(lrq: Lrq, sim: Sims):
    """Without a judge it ends with 1 and names the variables; with one, with 0 and no call made."""
    said = lrq("doctor", code=1).stdout
    assert "LRQ_JUDGE_URL" in said
    judge = sim()
    lrq.judged_by(judge)
    found = json.loads(lrq("doctor", "--json").stdout)
    assert not [one for one in found if one["state"] == "wrong"]
    assert judge.stats()["received"] == 0
