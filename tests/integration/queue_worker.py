"""A worker of the real app with tasks made for tests. Run as a program: URL LEDGER_ID POOL CONCURRENCY LOG.

Every task notes what it did as a line of LOG; its queue decides what it does.
"""

import asyncio
import os
import sys
import time
from pathlib import Path

from celery import Celery

from lrq.domain.errors import Stopping
from lrq.queue.celery import configuration, make_app
from lrq.queue.routes import task_name
from lrq.workers import loop


def note(log: Path, *words: object) -> None:
    with log.open("a") as out:
        out.write(" ".join(map(str, words)) + "\n")


def make(url: str, ledger_id: str) -> Celery:
    return make_app(lambda: {**configuration(url, ledger_id), "include": []})


def add_tasks(app: Celery, log: Path) -> None:
    @app.task(name=task_name("judge.helpfulness"))
    def quick(task: int, delivery: int) -> None:
        note(log, "done", task, delivery)

    @app.task(name=task_name("judge.faithfulness"))
    def slow(task: int, delivery: int) -> None:
        note(log, "begun", task, delivery, os.getpid())
        time.sleep(delivery)
        note(log, "done", task, delivery)

    async def calls(task: int) -> None:
        while True:
            loop.check()
            await asyncio.sleep(0.3)
            note(log, "called", task)

    @app.task(name=task_name("judge.completeness"))
    def calling(task: int, delivery: int) -> None:
        note(log, "begun", task, delivery)
        try:
            loop.run(calls(task))
        except Stopping:
            note(log, "stopped", task)

    @app.task(name=task_name("judge.rubric"))
    def failing(task: int, delivery: int) -> None:
        note(log, "begun", task, delivery)
        raise ValueError("on purpose")


def main(url: str, ledger_id: str, pool: str, concurrency: str, log: str) -> None:
    app = make(url, ledger_id)
    add_tasks(app, Path(log))
    worker = app.Worker(
        hostname=f"judge@{os.getpid()}",
        pool=pool,
        concurrency=int(concurrency),
        loglevel="INFO",
        without_mingle=True,
        without_gossip=True,
    )
    worker.start()
    sys.exit(worker.exitcode)


if __name__ == "__main__":
    main(*sys.argv[1:])
