"""Runs that stopped short, and what brings them to their end."""

import os
import socket

import pytest
from calling import SOON
from inline import WINDOW, Judge, World
from journals import journals

from lrq.calls import client
from lrq.config import load_settings
from lrq.ledger import backlog
from lrq.ledger import runs as runs_
from lrq.queue.celery import use
from lrq.run_config import load_run_config
from lrq.workers import loop, tasks


def test_a_run_whose_longer_file_was_refused_can_be_rescored_to_its_end(lrq: World) -> None:
    """`--strict` stops at a torn line; the run does not wait for the rest of that file for ever."""
    lines = journals(3, 4)
    lrq.run(lrq.write("items", lines[:2]))
    path = lrq.write("items", lines)
    path.write_text(path.read_text() + "not json\n")
    lrq("enqueue", path, "--no-train", "--strict", code=2)
    lrq("rescore", "items", "-d", "faithfulness", "--set", "settings.passages=1", "--detach")
    lrq.work("items-2")
    assert lrq.status("items-2")["state"] == "done"


def test_failed_embeddings_are_asked_again(lrq: World, judge: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody answers at first; `resume --failed` asks the server that does."""
    monkeypatch.setattr(client, "Patience", lambda: SOON)
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        monkeypatch.setenv("LRQ_EMBEDDING_URL", f"http://127.0.0.1:{nobody.getsockname()[1]}/v1")
        monkeypatch.setenv("LRQ_EMBEDDING_MODEL", "judge-sim")
        assert lrq.run(lrq.write("items", journals(1, 2)))["scores"]["faithfulness"]["unscored"] == 2
    monkeypatch.setenv("LRQ_EMBEDDING_URL", judge.url)
    lrq("resume", "items", "--failed", "--detach")
    lrq.work("items")
    assert lrq.status("items")["scores"]["faithfulness"]["unscored"] == 0


def test_workers_that_run_learn_of_a_judge_named_later(lrq: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run was made without one, and paused; with a judge and `resume` the same workers do it."""
    use(load_settings())  # the workers' settings have a judge
    judge = {name: os.environ[name] for name in ("LRQ_JUDGE_URL", "LRQ_JUDGE_MODEL")}
    for name in judge:
        monkeypatch.delenv(name)
    path = lrq.write("items", journals(1, 2))
    lrq("enqueue", path, "--no-train")
    try:
        turn(lrq)
        halted = lrq.status("items")
        assert halted["state"] == "paused"
        assert "names no judge: set LRQ_JUDGE_URL" in halted["reason"]
        for name, value in judge.items():
            monkeypatch.setenv(name, value)
        lrq("resume", "items", "--detach")
        while turn(lrq):
            pass
        assert lrq.status("items")["state"] == "done"
    finally:
        loop.close()
        loop.stopping.clear()


def turn(lrq: World) -> int:
    """What a feeder and running workers would do; how many tasks."""
    with lrq.ledger() as ledger:
        with ledger.write() as tx:
            run = runs_.get_run(tx, "items")
            if run.state != "active":
                return 0
            backlog.requeue_all(tx, run.id)  # what the command has sent itself
            backlog.start_items(tx, run.id, load_run_config(run.recipe, run.config).steps, WINDOW)
            taken = backlog.take_ready(tx, run.id, WINDOW)
        for task in taken:
            tasks.work(task.id, task.delivery)
        return len(taken)
