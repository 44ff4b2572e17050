"""Who works on what stands in the ledger: a dead worker's tasks are another's soon, a living one's never."""

import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from running import Crew, Lrq, Sim, assert_all_scored, until, write_lines

pytestmark = pytest.mark.timeout(300)

Items = Callable[[int, int], list[dict[str, Any]]]
STALL = 20  # seconds: twice what a process elsewhere may be silent, a third of what one on this machine may


def running(lrq: Lrq) -> dict[int, tuple[int, int]]:
    """Task → (pid of the process that works on it, its delivery)."""
    query = "SELECT t.id, p.pid, t.delivery FROM tasks t JOIN processes p ON p.id = t.owner WHERE t.state = 'running'"
    return {id_: (pid, delivery) for id_, pid, delivery in lrq.query(query)}


@pytest.fixture
def judge(lrq: Lrq, sim: Callable[..., Sim], journal_items: Items, tmp_path: Path) -> Sim:
    """A run of two items whose calls take 6 seconds, with everything up but judges."""
    made = sim("--latency", "6000")
    lrq.judged_by(made, timeout=120, concurrency=64)
    file = write_lines(tmp_path / "items.jsonl", journal_items(2, 4))
    lrq("enqueue", file, "--scores-only", "--no-train")
    Crew(lrq, lrq.start("up", "--only", "redis,aggregator"))
    return made


@pytest.fixture
def judges(lrq: Lrq, judge: Sim) -> tuple["subprocess.Popen[bytes]", "subprocess.Popen[bytes]"]:
    """One that has all the work, with calls in flight, and one that has none."""
    first = lrq.start("worker", "judge")
    until(lambda: len(running(lrq)) == 8 and judge.stats()["in_flight"] >= 8, "tasks at work", 60)
    second = lrq.start("worker", "judge")
    until(lambda: lrq.query(f"SELECT 1 FROM processes WHERE pid = {second.pid}"), "the second judge", 60)
    return first, second


def test_a_killed_workers_tasks_are_back_within_15_seconds(lrq: Lrq, judges: Any):
    """Another judge begins all of them, each as a further delivery."""
    first, second = judges
    first.send_signal(signal.SIGSTOP)
    expected = {id_: (second.pid, delivery + 1) for id_, (pid, delivery) in running(lrq).items() if pid == first.pid}
    assert expected
    first.kill()
    killed = time.monotonic()
    first.wait()
    until(lambda: expected.items() <= running(lrq).items(), "the tasks elsewhere", 60)
    seconds = time.monotonic() - killed
    print(f"\n{len(expected)} tasks are back after {seconds:.1f} s")
    assert seconds < 15


def test_a_stalled_worker_keeps_its_tasks(lrq: Lrq, judge: Sim, judges: Any):
    """One that stands still for a while lives: nobody takes its tasks, and nothing is asked twice."""
    first, _ = judges
    first.send_signal(signal.SIGSTOP)
    mine = {id_: begun for id_, begun in running(lrq).items() if begun[0] == first.pid}
    assert mine
    time.sleep(STALL)
    assert mine.items() <= running(lrq).items()
    first.send_signal(signal.SIGCONT)
    until(lambda: lrq.status("items")["state"] == "done", "the end", 120)
    assert judge.stats()["duplicates"] == 0
    assert assert_all_scored(lrq, "items", 8) == 0
