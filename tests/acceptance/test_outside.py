"""What is outside of lrq fails: a fresh machine, a Redis that fails over, a disk that fills up."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from running import Lrq, Sim, assert_all_scored, until, write_lines

from lrq.queue.broker import find_server

pytestmark = pytest.mark.timeout(900)

Items = Callable[[int, int], list[dict[str, Any]]]
Sims = Callable[..., Sim]


class Server:
    """A Redis of the test's own on a port, which can become a replica, or go and come back."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._folder = folder
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.start()

    def start(self) -> None:
        argv = [find_server().path, "--port", str(self.port), "--dir", str(self._folder), "--appendonly", "yes"]
        self.process = subprocess.Popen(argv, stdout=subprocess.DEVNULL)
        until(self.answers, "the Redis server")

    def answers(self) -> bool:
        try:
            with redis.Redis(port=self.port) as client:
                return bool(client.ping())
        except redis.RedisError:
            return False

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()

    def follow(self, *primary: str) -> None:
        with redis.Redis(port=self.port) as client:
            client.replicaof(*primary)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    folder = tmp_path / "redis"
    folder.mkdir()
    made = Server(folder)
    yield made
    made.stop()


def begun(lrq: Lrq, judge: Sim, calls: int) -> None:
    until(lambda: judge.stats()["complete"] >= calls, f"{calls} calls\n{lrq.said()}")


def test_a_failover_of_redis_is_waited_out(lrq: Lrq, sim: Sims, journal_items: Items, server: Server, tmp_path: Path):
    """Twelve seconds of READONLY, then the server killed and back: `run` goes on, and buys nothing twice."""
    judge = sim("--latency", "200")
    lrq.judged_by(judge, concurrency=4)
    file = write_lines(tmp_path / "items.jsonl", journal_items(6, 5))
    run = lrq.start("run", file, "--no-train", LRQ_REDIS_URL=server.url)
    begun(lrq, judge, 10)
    server.follow("127.0.0.1", "1")
    time.sleep(12)
    server.follow("no", "one")
    begun(lrq, judge, judge.stats()["complete"] + 10)
    server.stop()
    time.sleep(5)
    server.start()
    lrq.ended(run, 0)
    assert_all_scored(lrq, "items", 30)
    assert judge.stats()["duplicates"] == 0


def test_workers_of_a_fresh_machine_make_the_ledger(
    lrq: Lrq, sim: Sims, journal_items: Items, server: Server, postgres_url: str, tmp_path: Path
):
    """Started at once by a Procfile, before anything is enqueued, with an empty PostgreSQL."""
    lrq.judged_by(sim())
    lrq.env |= {"LRQ_DATABASE_URL": postgres_url, "LRQ_REDIS_URL": server.url}
    workers = [lrq.start("worker", name) for name in ("judge", "aggregator", "judge")]
    file = write_lines(tmp_path / "items.jsonl", journal_items(2, 5))
    lrq("enqueue", file, "--no-train")
    until(lambda: lrq.status("items")["state"] == "done", f"the end of the run\n{lrq.said()}")
    assert [worker.poll() for worker in workers] == [None] * 3
    assert_all_scored(lrq, "items", 10)


def test_a_worker_is_told_why_its_broker_refuses_it(lrq: Lrq, server: Server):
    """In one line, with code 1, instead of trying for ever; the password is not in it."""
    with redis.Redis(port=server.port) as client:
        client.config_set("requirepass", "right")
    url = server.url.replace("redis://", "redis://:wrong@")
    for words in (("worker", "judge"), ("up", "--only", "judge"), ("doctor",)):
        done = lrq(*words, code=1, LRQ_REDIS_URL=url)
        assert "refuses user or password" in done.stderr + done.stdout
        assert "wrong@" not in done.stderr + done.stdout


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A file system of 16 MB."""
    folder = Path(tempfile.mkdtemp(prefix="lrqdisk"))
    mounted = os.getuid() == 0 and shutil.which("mount")
    if (
        not mounted
        or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", folder], check=False).returncode
    ):
        folder.rmdir()
        pytest.skip("this user may not mount a file system")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)
    folder.rmdir()


def fill(folder: Path) -> Path:
    """Fill the disk to its last byte."""
    filler = folder / "filler"
    with filler.open("ab", buffering=0) as file:
        for size in (2**16, 2**10, 1):
            try:
                while True:
                    file.write(b"\0" * size)
            except OSError:
                continue
    return filler


def test_a_full_disk_is_waited_out(lrq: Lrq, sim: Sims, journal_items: Items, small_disk: Path, tmp_path: Path):
    """It is said in a line; once there is room the run goes on to its end, and nothing is bought twice."""
    judge = sim("--latency", "200")
    lrq.judged_by(judge, concurrency=4)
    lrq.env["LRQ_HOME"] = str(small_disk / "home")
    lrq.home = small_disk / "home"
    file = write_lines(tmp_path / "items.jsonl", journal_items(4, 5))
    run = lrq.start("run", file, "--no-train")
    begun(lrq, judge, 20)
    filler = fill(small_disk)
    until(lambda: "no space left" in lrq.said(), "the words")
    time.sleep(12)
    assert run.poll() is None, lrq.said()
    filler.unlink()
    lrq.ended(run, 0)
    assert_all_scored(lrq, "items", 20)
    assert judge.stats()["duplicates"] == 0


def test_one_signal_ends_a_run_on_a_full_disk(
    lrq: Lrq, sim: Sims, journal_items: Items, small_disk: Path, tmp_path: Path
):
    """Within the time that calls in flight are given there, not within that of the longest call."""
    judge = sim("--latency", "200")
    lrq.judged_by(judge, concurrency=4)
    lrq.env["LRQ_HOME"] = str(small_disk / "home")
    lrq.home = small_disk / "home"
    file = write_lines(tmp_path / "items.jsonl", journal_items(4, 5))
    run = lrq.start("run", file, "--no-train")
    begun(lrq, judge, 20)
    filler = fill(small_disk)
    until(lambda: "no space left" in lrq.said(), "the words")
    run.send_signal(signal.SIGINT)
    lrq.ended(run, 130, seconds=120)
    filler.unlink()
    lrq("run", file, "--no-train")
    assert_all_scored(lrq, "items", 20)
