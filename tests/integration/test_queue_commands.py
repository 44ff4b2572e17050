"""`lrq up` and `lrq worker` as a user runs them."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from queue_bench import short_runtime, stop

from lrq.config import Settings
from lrq.ledger import open_ledger
from lrq.queue import broker
from lrq.workers.supervisor import is_up


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """A project folder to stand in."""
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith("LRQ_"):
            monkeypatch.delenv(name)
    with short_runtime():
        yield Settings(home=tmp_path / ".lrq")


def lrq(*words: str, out: Path | None = None) -> "subprocess.Popen[bytes]":
    argv = [sys.executable, "-c", "from lrq.cli import main; main()", *words]
    with (out or Path(os.devnull)).open("ab") as file:
        return subprocess.Popen(argv, stdout=file, stderr=file)


def wait_for(file: Path, *texts: str, seconds: float = 60) -> str:
    until = time.monotonic() + seconds
    while not (file.exists() and all(text in file.read_text() for text in texts)):
        assert time.monotonic() < until, file.read_text() if file.exists() else "nothing"
        time.sleep(0.05)
    return file.read_text()


def test_up_starts_what_can_run_and_stops_it_in_order(settings: Settings, tmp_path: Path):
    """Workers named by type and process come up on a broker of their own; after SIGTERM nothing runs any more."""
    out = tmp_path / "out"
    process = lrq("up", "--only", "judge,aggregator", "--judges", "2", out=out)
    try:
        logs = settings.home / "logs"
        for name in ("judge", "judge-2", "aggregator"):
            said = wait_for(logs / f"{name}.log", " ready.")
            assert f"{name.split('-')[0]}@" in said
        assert is_up(settings)
        assert broker.probe(settings)
        wait_for(out, "judge-2    | ")
        assert stop(process, signal.SIGTERM, 30) < 20
        assert process.returncode == 0
        assert not is_up(settings)
        assert not broker.probe(settings)
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_a_worker_ends_orderly_at_its_first_signal(
    settings: Settings, tmp_path: Path, number: signal.Signals, code: int
):
    """Ctrl-C and SIGTERM alike; the exit code tells which."""
    out = tmp_path / "out"
    open_ledger(settings, create=True).close()
    with broker.running(settings):
        process = lrq("worker", "judge", "--concurrency", "2", out=out)
        try:
            assert f"-{process.pid} ready." in wait_for(out, " ready.")
            stop(process, number)
            assert process.returncode == code, out.read_text()
        finally:
            process.kill()
            process.wait()


def test_a_worker_that_cannot_run_says_why(settings: Settings, tmp_path: Path):
    """A usage error, or, for a Procfile's sake, a line and patience."""
    out = tmp_path / "out"
    process = lrq("worker", "sampler", out=out)
    assert process.wait(30) == 2
    assert "set LRQ_POLICY" in out.read_text()
    patient = lrq("worker", "sampler", "--idle", out=tmp_path / "patient")
    try:
        wait_for(tmp_path / "patient", "set LRQ_POLICY")
        time.sleep(0.3)
        assert patient.poll() is None
        stop(patient)
        assert patient.returncode == 0
    finally:
        patient.kill()
        patient.wait()


def test_up_refuses_names_it_does_not_know(settings: Settings, tmp_path: Path):
    """And those that cannot run here, before anything is started."""
    for only, reason in (("judge,jugde", "not jugde"), ("sampler", "set LRQ_POLICY")):
        out = tmp_path / only
        assert lrq("up", "--only", only, out=out).wait(30) == 2
        assert reason in out.read_text()
    assert not settings.home.exists()


def test_a_worker_that_cannot_use_its_ledger_says_so(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """One line, no traceback; one that is only away would be waited for."""
    monkeypatch.setenv("LRQ_DATABASE_URL", "mysql://h/d")
    out = tmp_path / "out"
    assert lrq("worker", "judge", out=out).wait(60) == 2
    assert out.read_text().startswith("lrq: LRQ_DATABASE_URL names a SQLite file")
    assert out.read_text().count("\n") == 1
