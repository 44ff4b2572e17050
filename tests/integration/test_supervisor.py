"""The supervisor: it starts, restarts, collects and stops processes, and leaves none behind."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from queue_bench import short_runtime

from lrq.config import Settings
from lrq.domain.errors import LrqError
from lrq.queue import broker
from lrq.workers import supervisor as supervisor_
from lrq.workers.supervisor import AlreadyUp, Supervisor, command, is_up, running_processes

STAYS = "import time; print('I stay', flush=True); time.sleep(600)"
ENDS = "print('I cannot'); raise SystemExit(3)"
DEAF = "import signal, time; signal.signal(15, signal.SIG_IGN); print('deaf', flush=True); time.sleep(600)"
NOTES = (
    "import os, signal, sys, time; from pathlib import Path\n"
    "def end(*_):\n"
    "    time.sleep({wait}); open({notes!r}, 'a').write(f'{{os.getpid()}} {name} ends\\n'); sys.exit()\n"
    "signal.signal(signal.SIGTERM, end); open({notes!r}, 'a').write(f'{{os.getpid()}} {name} begins\\n')\n"
    "time.sleep(600)"
)


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Settings]:
    with short_runtime():
        yield Settings(home=tmp_path / "home")


def programs(**codes: str) -> Callable[[str], list[str]]:
    return lambda name: [sys.executable, "-c", codes[name]]


def until(what: Callable[[], object], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_it_starts_as_many_as_told_and_collects_what_they_say(settings: Settings):
    """Each process has a log of its own name, and a session of its own."""
    made = Supervisor(settings, ["judge", "trainer"], {"judge": 2}, command=programs(judge=STAYS, trainer=STAYS))
    made.start()
    try:
        logs = settings.home / "logs"
        until(lambda: all("I stay" in path.read_text() for path in logs.iterdir()))
        assert sorted(path.name for path in logs.iterdir()) == ["judge-2.log", "judge.log", "trainer.log"]
        assert len({os.getsid(child.process.pid) for child in made.children} | {os.getsid(0)}) == 4
        assert made.poll() == []
    finally:
        made.stop()
    assert all(child.process.returncode == -signal.SIGTERM for child in made.children)


def test_what_ends_is_started_again_later_and_later(settings: Settings, monkeypatch: pytest.MonkeyPatch):
    """The waits double; after three quick ends in a row it says who fails and why. Others are left alone."""
    clock = [1000.0]
    monkeypatch.setattr(supervisor_.time, "monotonic", lambda: clock[0])
    made = Supervisor(settings, ["judge", "trainer"], command=programs(judge=ENDS, trainer=STAYS))
    made.start()
    bad, good = made.children
    try:
        waits = []
        for _ in range(8):
            bad.process.wait()
            (said,) = made.poll()
            assert said.startswith("judge ended with code 3")
            waits.append(bad.due - clock[0])
            clock[0] = bad.due - 0.01
            assert made.poll() == []
            clock[0] = bad.due
            assert made.poll() == ["judge started"]
        assert waits == [0.5, 1, 2, 4, 8, 16, 30, 30]
        assert made.failing.startswith("judge does not stay up: I cannot")
        bad.process.wait()
        clock[0] += 100  # this time it stayed long enough
        made.poll()
        assert bad.due - clock[0] == 0.5
        assert made.failing is None
        assert good.process.poll() is None
    finally:
        monkeypatch.undo()
        made.stop()


def test_one_that_is_killed_is_given_more_starts(settings: Settings, monkeypatch: pytest.MonkeyPatch):
    """Accidents happen: only the eighth quick kill in a row makes it a failing one, where three errors do."""
    clock = [1000.0]
    monkeypatch.setattr(supervisor_.time, "monotonic", lambda: clock[0])
    made = Supervisor(settings, ["judge"], command=programs(judge=STAYS))
    made.start()
    (child,) = made.children
    try:
        for _ in range(8):
            assert made.failing is None
            os.kill(child.process.pid, signal.SIGKILL)
            child.process.wait()
            (said,) = made.poll()
            assert said.startswith("judge ended with SIGKILL")
            clock[0] = child.due
            made.poll()
        assert made.failing.startswith("judge does not stay up")
    finally:
        monkeypatch.undo()
        made.stop()


def test_the_broker_starts_first_and_stops_last(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A worker may take its time; the broker is there until it has ended."""
    notes = str(tmp_path / "notes")
    codes = {"judge": NOTES.format(notes=notes, name="judge", wait=1)}
    made = Supervisor(
        settings, ["redis", "judge"], command=lambda name: programs(**codes)(name) if name in codes else command(name)
    )
    monkeypatch.setenv("LRQ_HOME", str(settings.home))
    try:
        made.start()
        assert broker.probe(settings)
        until(lambda: Path(notes).exists() and "begins" in Path(notes).read_text())
        began = time.time()
        made.stop()
        assert [line.split()[1:] for line in Path(notes).read_text().splitlines()] == [
            ["judge", "begins"],
            ["judge", "ends"],
        ]
        assert time.time() - began > 1
        assert not broker.probe(settings)
    finally:
        made.kill()


def test_a_broker_that_runs_already_is_used_and_left(settings: Settings):
    """Somebody's own `lrq broker` is neither doubled nor stopped; should it end, ours takes its place."""
    with broker.running(settings):
        made = Supervisor(settings, ["redis", "judge"], command=programs(redis=STAYS, judge=STAYS))
        made.start()
        try:
            assert made.children[0].process is None
            assert made.poll() == []
        finally:
            made.stop()
        assert broker.probe(settings)


def test_one_supervisor_for_one_home(settings: Settings):
    """What it runs can be asked, also in another process; a second is refused; after the end there is none."""
    made = Supervisor(settings, ["judge"], command=programs(judge=STAYS))
    assert not is_up(settings)
    made.start()
    try:
        assert is_up(settings)
        with pytest.raises(AlreadyUp, match="up already"):
            Supervisor(settings, ["aggregator"], command=programs(aggregator=STAYS)).start()
        assert running_processes(settings) == {"judge"}
    finally:
        made.stop()
    assert running_processes(settings) is None
    assert not is_up(settings)


def test_killing_it_ends_the_deaf_too(settings: Settings):
    """`kill`, as a second Ctrl-C calls it while `stop` waits, ends all sessions at once."""
    made = Supervisor(settings, ["judge"], command=programs(judge=DEAF))
    made.start()
    until(lambda: "deaf" in made.children[0].log.read_text())
    before = signal.signal(signal.SIGALRM, lambda *_: made.kill())
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.5)
        began = time.monotonic()
        made.stop()
        assert time.monotonic() - began < 5
        assert made.children[0].process.returncode == -signal.SIGKILL
    finally:
        signal.signal(signal.SIGALRM, before)


def test_a_killed_supervisor_leaves_no_orphans(settings: Settings, tmp_path: Path):
    """kill -9 of the supervisor ends its children orderly."""
    notes = str(tmp_path / "notes")
    child = "from lrq.workers.supervisor import follow_supervisor; follow_supervisor()\n" + NOTES.format(
        notes=notes, name="judge", wait=0
    )
    code = (
        "import sys, time; from pathlib import Path; from lrq.config import Settings\n"
        "from lrq.workers.supervisor import Supervisor\n"
        f"made = Supervisor(Settings(home=Path({str(settings.home)!r})), ['judge'], {{'judge': 2}},"
        f" command=lambda _: [sys.executable, '-c', {child!r}])\n"
        "made.start(); time.sleep(600)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code])
    try:
        until(lambda: Path(notes).exists() and Path(notes).read_text().count("begins") == 2)
        parent.kill()
        parent.wait()
        until(lambda: Path(notes).read_text().count("ends") == 2)
        assert not is_up(settings)
    finally:
        parent.kill()
        parent.wait()


def test_children_inherit_the_overrides(settings: Settings):
    """Settings given to the supervisor reach its children over their own."""
    code = "from lrq.config import load_settings; print(load_settings().judge_threads, flush=True)"
    made = Supervisor(settings, ["judge"], overrides={"judge_threads": 77}, command=programs(judge=code))
    made.start()
    try:
        until(lambda: made.children[0].log.read_text().endswith("\n"))
        assert made.children[0].log.read_text().split() == ["77"]
    finally:
        made.stop()


def test_a_broker_that_cannot_start_is_an_error(settings: Settings):
    """With its last words, and nothing left running."""
    made = Supervisor(settings, ["redis", "judge"], command=programs(redis=ENDS, judge=STAYS))
    with pytest.raises(LrqError, match="the broker did not start: I cannot"):
        made.start()
    assert made.children[1].process is None
    assert not is_up(settings)


def test_a_named_redis_that_does_not_answer_is_an_error(tmp_path: Path):
    """Said at once: workers would wait for it without a word."""
    absent = Settings(home=tmp_path / "home", redis_url=f"unix://{tmp_path}/none.sock")
    made = Supervisor(absent, ["judge"], command=programs(judge=STAYS))
    with pytest.raises(LrqError, match="its socket"):
        made.start()
    assert made.children[0].process is None
    assert not is_up(absent)


def test_who_cannot_run_here_is_told(monkeypatch: pytest.MonkeyPatch):
    """The extras, a policy, the user's own Redis: each decides about its process, in words that say what to do."""
    installed = {"flower"}
    monkeypatch.setattr(supervisor_, "_installed", lambda *modules: set(modules) <= installed)
    bare = supervisor_.unavailable_processes(Settings.model_validate({"redis_url": "redis://h"}))
    assert sorted(bare) == ["redis", "sampler", "scorer", "trainer"]
    assert "judge.path" in bare["scorer"]
    assert "LRQ_POLICY" in bare["sampler"]
    assert "lrq[train]" in bare["trainer"]
    served = Settings.model_validate({"policy": {"url": "http://policy/v1"}})
    assert sorted(supervisor_.unavailable_processes(served)) == ["scorer", "trainer"]
    local = Settings.model_validate({"policy": {"path": "model"}, "judge": {"path": "PairRM-hf"}})
    assert "lrq[train]" in supervisor_.unavailable_processes(local)["sampler"]
    assert "lrq[train]" in supervisor_.unavailable_processes(local)["scorer"]
    installed |= {"torch", "transformers", "trl", "deepspeed"}
    assert supervisor_.unavailable_processes(local) == {}
