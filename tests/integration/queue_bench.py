"""A broker and workers to try the queue on: real processes, real sockets."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import queue_worker
import redis
from celery import Celery

from lrq.config import Settings
from lrq.queue import broker, count_waiting, send

LEDGER = "abc"


class Bench:
    """Workers of tests/integration/queue_worker.py on an embedded broker."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self.settings = settings
        self.log = folder / "log"
        self.log.touch()
        self.said = folder / "worker.log"
        self.broker = broker.start(settings)
        self.app: Celery = queue_worker.make(settings.broker(), LEDGER)
        self.client = redis.Redis.from_url(settings.redis())
        self.workers: list[subprocess.Popen[bytes]] = []

    def start_worker(
        self, pool: str = "threads", concurrency: int = 4, ledger: str = LEDGER
    ) -> subprocess.Popen[bytes]:
        argv = [sys.executable, queue_worker.__file__, self.settings.broker(), ledger, pool]
        with self.said.open("ab") as out:
            worker = subprocess.Popen([*argv, str(concurrency), str(self.log)], stdout=out, stderr=out)
        self.workers.append(worker)
        return worker

    def send(self, queue: str, task: int, delivery: int = 1) -> None:
        send(queue, task=task, delivery=delivery, app=self.app)

    def waiting(self, queue: str) -> int:
        return count_waiting([queue], self.app)[queue]

    def lines(self, begin: str = "") -> list[str]:
        return [line for line in self.log.read_text().splitlines() if line.startswith(begin)]

    def wait(self, what: Callable[[], bool], seconds: float = 30) -> float:
        """Seconds until it is so."""
        began = time.monotonic()
        while not what():
            assert time.monotonic() - began < seconds, f"{self.lines()}\n{self.said.read_text()}"
            time.sleep(0.02)
        return time.monotonic() - began

    def wait_for(self, begin: str, count: int = 1, seconds: float = 30) -> float:
        return self.wait(lambda: len(self.lines(begin)) >= count, seconds)

    def kill_broker(self) -> None:
        self.broker.process.kill()
        self.broker.process.wait()

    def close(self) -> None:
        for worker in self.workers:
            worker.kill()
            worker.wait()
        self.client.close()
        self.app.pool.force_close_all()
        self.broker.stop()


@contextmanager
def short_runtime() -> Iterator[None]:
    """Sockets of this test in a folder of its own, whose path is short enough for one."""
    before = os.environ.get("LRQ_RUNTIME")
    with tempfile.TemporaryDirectory(prefix="lrq") as folder:
        os.environ["LRQ_RUNTIME"] = folder
        try:
            yield
        finally:
            os.environ.pop("LRQ_RUNTIME")
            if before is not None:
                os.environ["LRQ_RUNTIME"] = before


@contextmanager
def bench(folder: Path) -> Iterator[Bench]:
    with short_runtime():
        made = Bench(Settings(home=folder / "home"), folder)
        try:
            yield made
        finally:
            made.close()


def stop(process: subprocess.Popen[bytes], number: int = signal.SIGTERM, seconds: float = 20) -> float:
    """Send the signal; seconds until the process ends."""
    began = time.monotonic()
    process.send_signal(number)
    process.wait(seconds)
    return time.monotonic() - began
