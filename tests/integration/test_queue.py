"""Messages and stopping, with worker processes on a real broker."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import queue_worker
from queue_bench import Bench, bench, short_runtime, stop

from lrq.config import Settings
from lrq.ledger import open_ledger
from lrq.queue import BrokerDown, broker, send
from lrq.queue.routes import MOST_TASKS


@pytest.fixture
def workers(tmp_path: Path) -> Iterator[Bench]:
    with bench(tmp_path) as made:
        yield made


def ready(workers: Bench, count: int) -> None:
    workers.wait(lambda: workers.said.read_text().count("ready.") == count, 60)


def answered(ask: Callable[[], Any]) -> Any:
    """What workers answer, asked again where the answer came too late."""
    for _ in range(20):
        if found := ask():
            return found
    pytest.fail("no worker answered")


def test_a_message_is_keys_and_small(workers: Bench):
    """Even with the largest numbers a message takes at most 2 KB of Redis."""
    workers.send("judge.completeness", task=2**63 - 1, delivery=2**31)
    (raw,) = workers.client.lrange("lrq:abc:judge.completeness", 0, -1)
    assert len(raw) <= 2048


def test_what_waits_is_counted_and_what_was_begun_is_not(workers: Bench):
    """A message leaves the broker when its task begins; an emptied broker has none."""
    workers.send("train", task=1)
    workers.send("train", task=2)
    assert workers.waiting("train") == 2
    workers.client.flushall()
    assert workers.waiting("train") == 0
    workers.start_worker()
    workers.send("judge.faithfulness", task=3, delivery=4)
    workers.wait_for("begun 3")
    assert workers.waiting("judge.faithfulness") == 0
    workers.wait(lambda: not workers.client.keys("lrq:abc:unacked*"))
    assert workers.lines("done 3") == []


def test_a_worker_takes_no_more_messages_than_it_begins(workers: Bench):
    """What it has no thread for waits where others can have it."""
    workers.start_worker(concurrency=2)
    for task in range(1, 6):
        workers.send("judge.faithfulness", task=task, delivery=4)
    workers.wait_for("begun", 2)
    time.sleep(1)
    assert workers.waiting("judge.faithfulness") == 3
    workers.start_worker(concurrency=3)
    workers.wait_for("begun", 5)
    assert len(workers.lines("done")) < 5


def test_ledgers_that_share_a_redis_do_not_meet(workers: Bench):
    """Tasks, remote control and all keys stay with their ledger."""
    workers.start_worker()
    workers.start_worker(ledger="xyz")
    other = queue_worker.make(workers.settings.broker(), "xyz")
    workers.send("judge.faithfulness", task=1, delivery=600)
    workers.wait_for("begun 1")
    ready(workers, 2)
    ours = answered(lambda: workers.app.control.ping(timeout=1))
    theirs = answered(lambda: other.control.ping(timeout=1))
    assert len(ours) == len(theirs) == 1
    assert ours[0].keys() != theirs[0].keys()
    queues = answered(lambda: workers.app.control.inspect(timeout=1).active_queues())
    assert queues.keys() == ours[0].keys()
    keys = {key.decode() for key in workers.client.keys("*")}
    assert {key for key in keys if not key.startswith(("lrq:abc:", "lrq:xyz:"))} == set()
    assert "lrq:abc:_kombu.binding.lrq" in keys
    other.pool.force_close_all()


def test_a_killed_broker_comes_back_with_everything(workers: Bench):
    """What waits is done after the restart; what runs, or ends while the broker is away, is done once."""
    workers.start_worker(concurrency=2)
    workers.send("judge.faithfulness", task=1, delivery=2)
    workers.send("judge.faithfulness", task=2, delivery=6)
    workers.wait_for("begun", 2)
    for task in range(3, 9):
        workers.send("judge.helpfulness", task=task)
    workers.kill_broker()
    workers.wait_for("done 1")
    workers.broker = broker.start(workers.settings)
    workers.wait_for("done", 8)
    time.sleep(4)  # nothing may come again
    assert sorted(workers.lines("done")) == sorted(
        ["done 1 2", "done 2 6", *(f"done {task} 1" for task in range(3, 9))]
    )
    assert len(workers.lines("begun")) == 2


def test_a_cut_connection_does_not_start_a_task_again(workers: Bench):
    """The worker comes back to a broker that was never away, with its running task still its own."""
    workers.start_worker()
    workers.start_worker()  # would gladly take it
    ready(workers, 2)
    workers.send("judge.faithfulness", task=1, delivery=5)
    workers.wait_for("begun 1")
    assert workers.client.client_kill_filter(_type="normal", skipme=True) > 0
    workers.wait_for("done 1")
    assert len(workers.lines("begun")) == 1


def test_sigterm_ends_a_worker_between_two_calls(workers: Bench):
    """The call in flight is finished, no further one begun, the message acknowledged after its task returned."""
    worker = workers.start_worker()
    workers.send("judge.completeness", task=1)
    workers.wait_for("called 1")
    worker.terminate()
    workers.wait(lambda: "Warm shutdown" in workers.said.read_text())
    called = len(workers.lines("called"))
    assert worker.wait(30) == 0
    assert workers.lines("stopped") == ["stopped 1"]
    assert len(workers.lines("called")) <= called + 1


def test_remote_control_stops_it_alike(workers: Bench):
    """`celery control shutdown` is as orderly as SIGTERM, though no signal is sent."""
    worker = workers.start_worker()
    workers.send("judge.completeness", task=1)
    workers.wait_for("called 1")
    workers.app.control.shutdown()
    worker.wait(30)
    assert workers.lines("stopped") == ["stopped 1"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_it_at_once(workers: Bench, number: signal.Signals):
    """A task that does not listen holds up the first signal, not the second; its task is another's when it is dead."""
    worker = workers.start_worker()
    workers.send("judge.faithfulness", task=1, delivery=600)
    workers.wait_for("begun 1")
    worker.send_signal(number)
    workers.wait(lambda: "Warm shutdown" in workers.said.read_text())
    time.sleep(1.5)
    assert worker.poll() is None
    stop(worker, number, seconds=30)
    assert worker.returncode == 128 + number


def test_a_task_that_raises_settles_its_message(workers: Bench):
    """An error is not delivered again and again: the ledger decides what becomes of it."""
    workers.start_worker()
    workers.send("judge.rubric", task=1)
    workers.wait_for("begun 1")
    assert workers.lines("begun") == ["begun 1 1"]


def test_without_a_broker_sending_says_so(tmp_path: Path):
    """The error comes soon, in one line, and names no password."""
    app = queue_worker.make("redis://:secret@127.0.0.1:1/0", "abc")
    began = time.monotonic()
    with pytest.raises(BrokerDown, match="lrq broker") as caught:
        send("train", task=1, delivery=1, app=app)
    assert time.monotonic() - began < 20
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def _python(code: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], cwd=cwd, env={**os.environ, **env}, capture_output=True, text=True, check=False
    )


def test_importing_the_queue_touches_nothing(tmp_path: Path):
    """Settings are read when the app is first used: a broken file does not hinder an import."""
    (tmp_path / "lrq.yaml").write_text("judge: 5")
    code = "import lrq.queue as q; print(q.app.main)\ntry: q.app.conf.broker_url\nexcept Exception as e: print(e)"
    found = _python(code, tmp_path)
    assert found.stdout.startswith("lrq\nlrq.yaml, line 1: setting judge"), found.stderr


def test_a_judge_never_loads_torch(tmp_path: Path):
    """Everything a judge process imports at its start, and torch is not among it."""
    code = (
        "import sys; from lrq.config import Settings; from lrq.ledger import open_ledger; from lrq.queue import app;"
        "open_ledger(Settings(), create=True).close(); app.loader.import_default_modules(); import lrq.cli.worker;"
        "assert 'lrq.judge.faithfulness' in app.tasks;"
        "print(sorted({'torch', 'transformers', 'trl', 'deepspeed'} & set(sys.modules)))"
    )
    found = _python(code, tmp_path)
    assert found.stdout.strip() == "[]", found.stderr


def test_celerys_own_command_works(tmp_path: Path):
    """`celery -A lrq.queue worker -Q judge.faithfulness` needs no other flag: threads, as a judge has them."""
    argv = [sys.executable, "-m", "celery", "-A", "lrq.queue", "worker", "-Q", "judge.faithfulness", "-l", "INFO"]
    settings, log = Settings(home=tmp_path / ".lrq"), tmp_path / "log"
    open_ledger(settings, create=True).close()
    with short_runtime(), broker.running(settings):
        with log.open("wb") as out:
            worker = subprocess.Popen(argv, cwd=tmp_path, stdout=out, stderr=out)
        try:
            until = time.monotonic() + 60
            while "ready." not in log.read_text() and time.monotonic() < until and worker.poll() is None:
                time.sleep(0.05)
            said = log.read_text()
            assert "ready." in said, said
            assert f"concurrency: {MOST_TASKS} (thread)" in said
            assert ".> judge.faithfulness" in said
            assert ".> judge.helpfulness" not in said
            stop(worker, seconds=30)
        finally:
            worker.kill()
            worker.wait()
