"""policy.serve in this process: a real server for each model, asked by calls as any; trainings copy their model."""

import os
import shlex
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from inline import World
from journals import questions
from test_rounds import POLICY, SAMPLING, Trainings, select, trainings  # noqa: F401 - a fixture

pytest.importorskip("torch")

from lrq.domain.errors import LrqError, Stopping
from lrq.ledger.schema import calls
from lrq.policy.folder import fingerprint
from lrq.policy.served import ServedPolicy
from lrq.workers import sampler, trainer

pytestmark = pytest.mark.torch

STUB = Path(__file__).with_name("policy_stub.py")
SLEEPER = (sys.executable, "-c", "import time; time.sleep(60)")
SERVE = shlex.join([sys.executable, "-I", str(STUB), "{model}", "{port}"])


def servers() -> list[int]:
    """Processes of the stub, and of what keeps it."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                words = (entry / "cmdline").read_bytes().decode(errors="replace")
            except OSError:
                continue
            found += [int(entry.name)] if str(STUB) in words else []
    return found


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A process that has sampled nothing yet, on a machine where nobody else trains."""
    monkeypatch.setattr(sampler, "_policies", {})
    monkeypatch.setattr(sampler, "_accelerator", None)
    monkeypatch.setenv("LRQ_RUNTIME", str(tmp_path))
    monkeypatch.setattr(trainer.Accelerator, "alone", lambda *_: nullcontext(True))  # the sampler is this very process
    yield
    assert servers() == []


@pytest.mark.usefixtures("fresh")
def test_each_round_has_a_server_on_its_model(
    lrq: World,
    trainings: Trainings,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Calls name it and its model's fingerprint, cost nothing, and none is made twice; evaluate is served alike."""
    monkeypatch.setenv("LRQ_POLICY", str(POLICY))
    monkeypatch.setattr("lrq.cli.enqueue.note_probe", lambda *_: None)
    words = ("--set", f"policy.serve={SERVE}", *SAMPLING)
    lrq("enqueue", lrq.write("items", questions(2)), "--name", "r", "--rounds", 2, *words)
    lrq.work("r")
    facts = lrq.status("r")
    assert (facts["state"], facts["round"], facts["items"]) == ("done", 1, {"done": 2}), facts["reason"]
    rows = select(lrq, sa.select(calls).where(calls.c.role == "policy"))
    folders = [POLICY.resolve(), trainings.jobs[0]["output"]]
    assert [(row.endpoint, row.model, row.state, row.cost) for row in rows] == [
        ("served", str(folder), "done", 0) for folder in folders for _ in range(2)
    ]
    monkeypatch.setattr("lrq.cli.evaluate.finish", lambda _ledger, _settings, run, **_: lrq.work(run) or 0)
    held_out = lrq.write("held", questions(1))
    policies = [word for n, folder in enumerate(folders) for word in ("--policy", f"p{n}={folder}")]
    means = lrq("evaluate", held_out, *policies, "--responses", 2, *words, "--json").json()
    assert [(one["policy"], one["items"]) for one in means] == [("p0", 1), ("p1", 1)]


def policy(tmp_path: Path, *words: object, **fields: Any) -> ServedPolicy:
    """A policy whose connection is its URL."""
    made: Callable[[str, str], Any] = lambda url, _model: url  # noqa: E731
    settings = {"seconds": 20.0, "api_key": None, "connect": made, **fields}
    command = shlex.join(map(str, words))
    return ServedPolicy(
        POLICY, command=command, environment=os.environ, log=tmp_path / "logs" / "server.log", **settings
    )


@pytest.mark.usefixtures("fresh")
def test_a_server_is_ended_with_all_that_it_has_started(tmp_path: Path) -> None:
    """A child that minds no SIGTERM, too; and where what keeps it was killed, there are never two."""
    stubborn = "trap '' TERM; sleep 600 & exec \"$@\""
    served = policy(tmp_path, "bash", "-c", stubborn, "sh", sys.executable, "-I", STUB, "{model}", "{port}")
    assert served.fingerprint == fingerprint(POLICY)
    served.restore()
    first = set(servers())
    served.restore()
    assert set(servers()) == first, "it was running"
    assert served._process is not None
    os.kill(served._process.pid, signal.SIGKILL)  # what keeps the server, and not the server itself
    served._process.wait()
    served.restore()
    assert servers()
    assert not set(servers()) & first
    served.release()
    assert servers() == []
    served.release()


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("no-such-server",), r"ended with code 127; its last words: no-such-server: No such file or directory"),
        (
            (sys.executable, "-c", "print('first\\nno memory'); raise SystemExit(7)"),
            "code 7; its last words: no memory",
        ),
        (
            (sys.executable, "-c", "import time; time.sleep(60)"),
            r"within 1 s \(policy.serve_timeout\); its last words: none",
        ),
    ],
)
def test_a_server_that_does_not_come_up_is_one_line(tmp_path: Path, words: tuple[str, ...], problem: str) -> None:
    """With the last line that it wrote this time, and where the rest is."""
    served = policy(tmp_path, *words, "{model}", "{port}", seconds=1.0 if words == SLEEPER else 20.0)
    for _ in range(2):
        with pytest.raises(LrqError, match=problem) as failed:
            served.restore()
        assert "\n" not in str(failed.value)


def test_a_stop_does_not_wait_for_a_server(tmp_path: Path) -> None:
    served = policy(
        tmp_path, sys.executable, "-c", "import time; time.sleep(60)", "{model}", "{port}", should_stop=lambda: True
    )
    with pytest.raises(Stopping):
        served.restore()
