"""A file whose reader is stopped: what was read stays, what is left is said, and nothing waits for it for ever."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ledgers import BOTH, opened, some_ledger

from lrq.ledger import Ledger, intakes, runs
from lrq.ledger.processes import Presence

MAIN = [sys.executable, "-c", "from lrq.cli import main; main()"]
LINES = 2_000  # of 3 kB: more than the reader keeps before it writes a batch of them into the ledger


class Command:
    """lrq with a home and runtime folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.env = {name: value for name, value in os.environ.items() if not name.startswith("LRQ_")}
        self.env |= {"LRQ_HOME": str(folder), "LRQ_RUNTIME": str(folder / "r"), "COLUMNS": "200"}
        self.env |= {"LRQ_JUDGE_URL": "http://127.0.0.1:1/v1", "LRQ_JUDGE_MODEL": "m"}

    def __call__(self, *words: str) -> str:
        done = subprocess.run([*MAIN, *words], env=self.env, capture_output=True, text=True, timeout=120, check=False)
        assert "Traceback" not in done.stderr, done.stderr
        return done.stdout + done.stderr

    def run(self) -> dict[str, object]:
        return dict(json.loads(self("status", "r", "--json"))["runs"][0])


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
def test_a_reader_that_is_stopped_leaves_a_run_that_says_so(tmp_path: Path, sent: signal.Signals) -> None:
    """By Ctrl-C or for good: status says that the file was not read to its end, and `resume` goes on without it."""
    lrq = Command(tmp_path)
    command = [*MAIN, "enqueue", "-", "--name", "r", "--no-train"]
    process = subprocess.Popen(command, env=lrq.env, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdin is not None
    for number in range(LINES):
        item = {"id": number, "context": f"Text {number}. " * 250, "question": "Why?", "responses": list("abcde")}
        process.stdin.write(json.dumps(item) + "\n")
    process.stdin.flush()
    deadline = time.monotonic() + 60
    while "of 200" not in (words := lrq("status")) and not re.search("of [1-9],[0-9]{3}", words):
        assert time.monotonic() < deadline, words
    assert "not read to the end" not in words
    process.send_signal(sent)
    _, message = process.communicate(timeout=60)
    if sent == signal.SIGINT:
        assert "`lrq resume r` goes on with the items there are" in message
    assert "not read to the end" in str(lrq.run()["reason"])
    assert re.search("not read to its end: it goes on with the [0-9,]+ items", lrq("resume", "r", "--detach"))
    assert lrq.run()["reason"] == ""


@pytest.fixture(params=BOTH)
def ledger(request: pytest.FixtureRequest, home: Path) -> Iterator[Ledger]:
    with some_ledger(request, home) as settings, opened(settings) as made:
        yield made


def test_a_run_without_a_living_reader_is_paused_and_the_same_command_goes_on(ledger: Ledger) -> None:
    """Others that are read, or wait for more after a pilot, are left as they are."""
    frozen = {"recipe": "longreward", "train": None}
    living, dead = Presence(ledger, "reader"), Presence(ledger, "reader")
    with ledger.write() as tx:
        made = {name: runs.create_run(tx, name, frozen) for name in ("read", "left", "pilot", "whole")}
        intakes.begin(tx, made["read"].id, living.id)
        intakes.begin(tx, made["left"].id, dead.id)
        intakes.begin(tx, made["whole"].id, living.id)
        intakes.end(tx, made["whole"].id, living.id)
        runs.set_ingesting(tx, made["pilot"].id, intakes.PILOT)
    dead.close()
    with ledger.write() as tx:
        assert intakes.pause_interrupted(tx) == ["left"]
        assert intakes.pause_interrupted(tx) == []
        left = runs.get_run(tx, "left")
        assert (left.state, left.halt) == ("paused", "interrupted")
        assert "`lrq resume left`" in left.reason
        intakes.begin(tx, left.id, living.id)
        assert runs.get_run(tx, "left").state == "active"
        assert not intakes.is_interrupted(tx, left.id)
        intakes.end(tx, left.id, living.id)
    living.close()
    with ledger.read() as tx:
        assert not intakes.is_interrupted(tx, left.id)
        assert intakes.is_interrupted(tx, made["read"].id), "its reader has left"


def test_two_readers_of_a_run_do_not_end_it_for_each_other(ledger: Ledger) -> None:
    """The run can end when the second has read its last line."""
    one, two = Presence(ledger, "reader"), Presence(ledger, "reader")
    with ledger.write() as tx:
        run = runs.create_run(tx, "r", {"recipe": "longreward", "train": None})
        for each in (one, two):
            intakes.begin(tx, run.id, each.id)
        intakes.end(tx, run.id, one.id)
        assert intakes.is_read(tx, run.id)
        intakes.end(tx, run.id, two.id)
        assert not intakes.is_read(tx, run.id)
    for each in (one, two):
        each.close()
