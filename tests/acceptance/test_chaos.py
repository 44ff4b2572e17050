"""Killed at any moment, a run loses nothing and buys next to nothing twice."""

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from running import Crew, Lrq, Sim, assert_all_scored, until, write_lines

pytestmark = pytest.mark.timeout(900)

FAULTS = [word for fault in ("500", "reset", "hang", "unreadable") for word in (f"--fault-{fault}", "0.03")]
Items = Callable[[int, int], list[dict[str, Any]]]


def busy(judge: Sim, at_least: int = 5) -> int:
    """Wait until calls are in flight; how many."""
    return int(until(lambda: (n := judge.stats()["in_flight"]) >= at_least and n, "calls in flight"))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=lambda number: number.name)
def test_whoever_is_ended_nothing_is_lost(
    number: signal.Signals, lrq: Lrq, sim: Callable[..., Sim], journal_items: Items, tmp_path: Path
):
    """Every worker type, the broker and the supervisor end in turn while calls are in flight, the broker is emptied.

    Killed: at most the calls in flight are bought twice. Asked to end: none.
    """
    judge = sim("--latency", "100", "--jitter", "50", *FAULTS)
    lrq.judged_by(judge, timeout=5, concurrency=16)
    file = write_lines(tmp_path / "items.jsonl", journal_items(20, 10))
    run = lrq.start("run", file, "--no-train")
    crew = Crew(lrq, run)
    at_risk = 0
    for name in ("judge", "aggregator", "redis", "judge", "judge"):
        busy(judge)
        at_risk += crew.end(name, number)
    busy(judge)
    lrq.empty_broker()
    busy(judge)
    run.send_signal(number)
    lrq.ended(run, -signal.SIGKILL if number == signal.SIGKILL else 130)
    assert_not_finished(lrq)
    code = lrq("resume", "items", code=None).returncode
    stats = judge.stats()
    print(f"\n{number.name}: {stats['complete']} replies to {stats['received']} requests, faults {stats['faults']}")
    print(f"in flight at the kills: {at_risk}, bought twice: {stats['duplicates']}")
    unscored = assert_all_scored(lrq, "items", 200)
    assert code == (3 if unscored else 0)
    assert all(stats["faults"][fault] for fault in ("500", "reset", "hang", "unreadable"))
    assert stats["duplicates"] <= at_risk
    assert lrq.status("items")["queues"] == {}


def test_one_of_four_judges_is_killed_twenty_times(
    lrq: Lrq, sim: Callable[..., Sim], journal_items: Items, tmp_path: Path
):
    """Each time at most what it had in flight is bought twice; the server has charged no more than the ledger says."""
    judge = sim("--latency", "300", "--jitter", "200")
    lrq.judged_by(judge, timeout=30, concurrency=16)
    file = write_lines(tmp_path / "items.jsonl", journal_items(20, 10))
    Crew(lrq, lrq.start("up", "--only", "redis,aggregator"))
    run = lrq.start("run", file, "--no-train", "--price", "1,2")
    judges = [lrq.start("worker", "judge") for _ in range(4)]
    at_risk = hit = 0
    for _ in range(20):
        until(lambda: lrq.in_flight([judges[0].pid]), "calls of the oldest judge")
        held = kill(lrq, judges.pop(0))
        judges.append(lrq.start("worker", "judge"))
        at_risk, hit = at_risk + held, hit + (held > 0)
        assert judge.stats()["duplicates"] <= at_risk
    assert_not_finished(lrq)
    lrq.ended(run, 0)
    stats = judge.stats()
    print(f"\nin flight at {hit} of 20 kills: {at_risk}, bought twice: {stats['duplicates']}")
    assert hit > 5
    assert assert_all_scored(lrq, "items", 200) == 0
    assert stats["duplicates"] <= at_risk
    billed = (stats["tokens"]["prompt"] + 2 * stats["tokens"]["completion"]) / 1e6
    assert 0 < billed <= lrq.status("items")["money"]["spent"] + 1e-6


def kill(lrq: Lrq, judge: "subprocess.Popen[bytes]") -> int:
    """As `kill -9` does; how many calls were in flight, counted while the process stands still."""
    judge.send_signal(signal.SIGSTOP)
    held = lrq.in_flight([judge.pid])
    judge.kill()
    judge.wait()
    return held


def assert_not_finished(lrq: Lrq) -> None:
    ((left,),) = lrq.query("SELECT count(*) FROM items WHERE state != 'done'")
    assert left, "all was done before the last process ended: give the test more work"


def test_ctrl_c_is_orderly_and_the_same_command_goes_on(
    lrq: Lrq, sim: Callable[..., Sim], journal_items: Items, tmp_path: Path
):
    """Exit code 130, a line that says how to go on, no process left; then `lrq run` again ends well, nothing twice."""
    judge = sim("--latency", "200")
    lrq.judged_by(judge, timeout=30, concurrency=16)
    file = write_lines(tmp_path / "items.jsonl", journal_items(12, 6))
    run = lrq.start("run", file, "--no-train")
    crew = Crew(lrq, run)
    busy(judge)
    pids = [pid for name in ("redis", "judge", "aggregator") for pid in crew.pids(name)]
    assert len(pids) == 3
    run.send_signal(signal.SIGINT)
    lrq.ended(run, 130)
    assert "interrupted" in lrq.said().splitlines()[-1]
    assert "lrq resume items" in lrq.said().splitlines()[-1]
    assert not any(os.path.exists(f"/proc/{pid}") for pid in pids)
    bought = judge.stats()["complete"]
    assert_not_finished(lrq)
    lrq("run", file, "--no-train")
    assert assert_all_scored(lrq, "items", 72) == 0
    stats = judge.stats()
    assert stats["complete"] > bought > 0
    assert stats["duplicates"] == 0
    assert stats["aborted"] == 0


def test_ctrl_c_twice_ends_at_once(lrq: Lrq, sim: Callable[..., Sim], journal_items: Items, tmp_path: Path):
    """The second one waits for no call, and leaves no process."""
    judge = sim("--latency", "20000")
    lrq.judged_by(judge)
    run = lrq.start("run", write_lines(tmp_path / "items.jsonl", journal_items(1, 5)), "--no-train")
    crew = Crew(lrq, run)
    busy(judge)
    pids = [pid for name in ("redis", "judge", "aggregator") for pid in crew.pids(name)]
    run.send_signal(signal.SIGINT)
    until(lambda: "Warm shutdown" in lrq.logs(1000) or "stopping" in lrq.logs(1000), "the orderly stop")
    assert run.poll() is None
    assert judge.stats()["in_flight"] >= 5
    run.send_signal(signal.SIGINT)
    lrq.ended(run, 130, seconds=60)
    until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in pids), "the end of all")


def test_a_run_outlives_the_processes_it_borrowed(
    lrq: Lrq, sim: Callable[..., Sim], journal_items: Items, tmp_path: Path
):
    """`lrq run` works with a running `lrq up` and says what that lacks; when it is killed the run starts its own."""
    judge = sim("--latency", "200")
    lrq.judged_by(judge, concurrency=8)
    up = lrq.start("up", "--only", "aggregator")
    Crew(lrq, up)
    run = lrq.start("run", write_lines(tmp_path / "items.jsonl", journal_items(6, 6)), "--no-train")
    until(lambda: "has no judge" in lrq.said(), "what is missing")
    assert "`lrq worker judge` adds it" in lrq.said()
    lrq.start("worker", "judge")
    busy(judge)
    up.kill()
    lrq.ended(up, -signal.SIGKILL)
    assert_not_finished(lrq)
    lrq.ended(run, 0)
    assert assert_all_scored(lrq, "items", 36) == 0
    assert judge.stats()["duplicates"] == 0


@pytest.mark.parametrize("fault", ["500", "reset", "hang"])
def test_a_third_of_all_calls_may_fail(
    fault: str, lrq: Lrq, sim: Callable[..., Sim], journal_items: Items, tmp_path: Path
):
    """At 30 % of any fault that brings no reply everything is asked again until it is scored, and nothing is lost."""
    judge = sim(f"--fault-{fault}", "0.3")
    lrq.judged_by(judge, timeout=5, concurrency=16)
    file = write_lines(tmp_path / "items.jsonl", journal_items(2, 5))
    done = lrq("run", file, "--no-train", code=None)
    unscored = assert_all_scored(lrq, "items", 10)
    assert done.returncode == (3 if unscored else 0)
    assert judge.stats()["faults"][fault] > 10


def test_what_stays_unscored_is_asked_again_on_request(
    lrq: Lrq, sim: Callable[..., Sim], journal_items: Items, tmp_path: Path
):
    """A judge that talks nonsense leaves reasons, exit code 3; `resume --failed` with a better one scores all of it."""
    bad = sim("--fault-unreadable", "0.25", "--fault-empty", "0.3")  # far from 20 in a row, which pause the run
    lrq.judged_by(bad)
    file = write_lines(tmp_path / "items.jsonl", journal_items(4, 6))
    done = lrq("run", file, "--no-train", code=3)
    unscored = assert_all_scored(lrq, "items", 24)
    assert unscored
    failed = lrq("status", "items", "--failed").stdout.splitlines()
    assert len(failed) == unscored
    assert all("no readable reply in 5 attempts" in line for line in failed), failed
    assert done.stderr.count("\n") < 40
    good = sim()
    lrq.judged_by(good)
    lrq("resume", "items", "--failed")
    assert assert_all_scored(lrq, "items", 24) == 0
    assert lrq("status", "items", "--failed").stdout == "nothing was rejected, unscored or failed\n"
    assert 0 < good.stats()["complete"] < bad.stats()["distinct"]
    assert good.stats()["duplicates"] == 0
