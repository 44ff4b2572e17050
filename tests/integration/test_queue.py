"""Messages, leases and stopping, with worker processes on a real broker."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import queue_worker
import redis
from queue_bench import Bench, bench, short_runtime, stop

from lrq.config import Settings
from lrq.ledger import open_ledger
from lrq.queue import BrokerDown, broker, connect, present, send
from lrq.queue.celery import VISIBILITY_SECONDS
from lrq.queue.leases import renew
from lrq.queue.routes import MOST_TASKS


@pytest.fixture
def slow_leases(tmp_path: Path) -> Iterator[Bench]:
    """Leases as in production."""
    with bench(tmp_path, VISIBILITY_SECONDS) as made:
        yield made


@pytest.fixture
def fast_leases(tmp_path: Path) -> Iterator[Bench]:
    with bench(tmp_path, 3) as made:
        yield made


def ready(workers: Bench, count: int) -> None:
    workers.wait(lambda: workers.said.read_text().count("ready.") == count, 60)


def answered(ask: Callable[[], Any]) -> Any:
    """What workers answer, asked again where the answer came too late."""
    for _ in range(20):
        if found := ask():
            return found
    pytest.fail("no worker answered")


def test_a_message_is_keys_and_small(slow_leases: Bench):
    """Even with the largest numbers a message takes at most 2 KB of Redis, and its id names the task."""
    slow_leases.send("judge.completeness", task=2**63 - 1, delivery=2**31)
    (raw,) = slow_leases.client.lrange("lrq:abc:judge.completeness", 0, -1)
    assert len(raw) <= 2048
    assert slow_leases.present() == {2**63 - 1}


def test_present_sees_waiting_and_held_messages(slow_leases: Bench):
    """A task is present while its message waits, also in a list of priority, and while a worker holds it."""
    slow_leases.send("judge.rubric", task=1)
    slow_leases.send("train", task=2)
    slow_leases.client.rename("lrq:abc:train", "lrq:abc:train\x06\x163")  # kombu's list of a lower priority
    assert slow_leases.present() == {1, 2}
    slow_leases.client.flushall()
    slow_leases.start_worker()
    slow_leases.send("judge.faithfulness", task=3, delivery=4)
    slow_leases.wait_for("begun 3")
    assert slow_leases.present() == {3}
    slow_leases.wait_for("done 3")
    slow_leases.wait(lambda: slow_leases.present() == set())


def test_ledgers_that_share_a_redis_do_not_meet(slow_leases: Bench):
    """Tasks, remote control and all keys stay with their ledger."""
    slow_leases.start_worker()
    slow_leases.start_worker(ledger="xyz")
    other = queue_worker.make(slow_leases.settings.broker(), "xyz", 10)
    slow_leases.send("judge.faithfulness", task=1, delivery=600)
    slow_leases.wait_for("begun 1")
    ready(slow_leases, 2)
    ours = answered(lambda: slow_leases.app.control.ping(timeout=1))
    theirs = answered(lambda: other.control.ping(timeout=1))
    assert len(ours) == len(theirs) == 1
    assert ours[0].keys() != theirs[0].keys()
    queues = answered(lambda: slow_leases.app.control.inspect(timeout=1).active_queues())
    assert queues.keys() == ours[0].keys()
    keys = {key.decode() for key in slow_leases.client.keys("*")}
    assert {key for key in keys if not key.startswith(("lrq:abc:", "lrq:xyz:"))} == set()
    assert {"lrq:abc:unacked", "lrq:abc:unacked_index"} <= keys
    assert present(slow_leases.client, other) == set()
    other.pool.force_close_all()


def test_a_task_longer_than_its_lease_is_started_once(fast_leases: Bench):
    """Tasks three times as long as the lease run once each, with threads and with -P solo, whoever sweeps."""
    fast_leases.start_worker(pool="threads", concurrency=1)
    fast_leases.start_worker(pool="solo", concurrency=1)
    ready(fast_leases, 2)
    fast_leases.send("judge.faithfulness", task=1, delivery=9)
    fast_leases.send("judge.faithfulness", task=2, delivery=9)
    fast_leases.wait_for("done", 2)
    assert len({line.split()[-1] for line in fast_leases.lines("begun")}) == 2  # each worker had one
    fast_leases.wait(lambda: fast_leases.present() == set())
    assert len(fast_leases.lines("begun")) == 2


def test_a_killed_workers_task_is_back_within_15_seconds(slow_leases: Bench):
    """With the leases of production, another worker begins it."""
    workers = {worker.pid: worker for worker in (slow_leases.start_worker(), slow_leases.start_worker())}
    ready(slow_leases, 2)
    slow_leases.send("judge.faithfulness", task=1, delivery=600)
    slow_leases.wait_for("begun 1")
    workers[int(slow_leases.lines("begun 1")[0].split()[-1])].kill()
    assert slow_leases.wait_for("begun 1", 2) < 15
    assert len({line.split()[-1] for line in slow_leases.lines("begun 1")}) == 2


def test_a_killed_broker_comes_back_with_everything(fast_leases: Bench):
    """What waits is done after the restart; what runs, or ends while the broker is away, is done once."""
    fast_leases.start_worker(concurrency=2)
    fast_leases.send("judge.faithfulness", task=1, delivery=2)
    fast_leases.send("judge.faithfulness", task=2, delivery=6)
    fast_leases.wait_for("begun", 2)
    for task in range(3, 9):
        fast_leases.send("judge.helpfulness", task=task)
    fast_leases.kill_broker()
    fast_leases.wait_for("done 1")
    fast_leases.broker = broker.start(fast_leases.settings)
    fast_leases.wait_for("done", 8)
    fast_leases.wait(lambda: fast_leases.present() == set())
    time.sleep(4)  # longer than a lease: nothing may come again
    assert sorted(fast_leases.lines("done")) == sorted(
        ["done 1 2", "done 2 6", *(f"done {task} 1" for task in range(3, 9))]
    )
    assert len(fast_leases.lines("begun")) == 2


def test_a_cut_connection_does_not_start_a_task_again(fast_leases: Bench):
    """The worker comes back to a broker that was never away, with its running task still its own."""
    fast_leases.start_worker()
    fast_leases.start_worker()  # would gladly take it
    ready(fast_leases, 2)
    fast_leases.send("judge.faithfulness", task=1, delivery=5)
    fast_leases.wait_for("begun 1")
    assert fast_leases.client.client_kill_filter(_type="normal", skipme=True) > 0
    fast_leases.wait_for("done 1")
    fast_leases.wait(lambda: fast_leases.present() == set())
    assert len(fast_leases.lines("begun")) == 1


def test_an_emptied_broker_learns_again_what_runs(fast_leases: Bench):
    """A running task is present again by the next renewal, so that nobody sends it a second time."""
    worker = fast_leases.start_worker()
    fast_leases.send("judge.faithfulness", task=1, delivery=8)
    fast_leases.wait_for("begun 1")
    worker.send_signal(signal.SIGSTOP)
    os.waitpid(worker.pid, os.WUNTRACED)
    fast_leases.client.flushall()
    assert fast_leases.present() == set()
    worker.send_signal(signal.SIGCONT)
    fast_leases.wait(lambda: fast_leases.present() == {1})
    assert fast_leases.lines("done 1") == []
    fast_leases.wait_for("done 1")
    fast_leases.wait(lambda: fast_leases.present() == set())


def test_sigterm_ends_a_worker_between_two_calls(slow_leases: Bench):
    """The call in flight is finished, no further one begun, the message acknowledged after its task returned."""
    worker = slow_leases.start_worker()
    slow_leases.send("judge.completeness", task=1)
    slow_leases.wait_for("called 1")
    worker.terminate()
    slow_leases.wait(lambda: "Warm shutdown" in slow_leases.said.read_text())
    called = len(slow_leases.lines("called"))
    assert worker.wait(30) == 0
    assert slow_leases.lines("stopped") == ["stopped 1"]
    assert len(slow_leases.lines("called")) <= called + 1
    assert slow_leases.present() == set()


def test_remote_control_stops_it_alike(slow_leases: Bench):
    """`celery control shutdown` is as orderly as SIGTERM, though no signal is sent."""
    worker = slow_leases.start_worker()
    slow_leases.send("judge.completeness", task=1)
    slow_leases.wait_for("called 1")
    slow_leases.app.control.shutdown()
    worker.wait(30)
    assert slow_leases.lines("stopped") == ["stopped 1"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_it_at_once(slow_leases: Bench, number: signal.Signals):
    """A task that does not listen holds up the first signal, not the second; its message stays with the broker."""
    worker = slow_leases.start_worker()
    slow_leases.send("judge.faithfulness", task=1, delivery=600)
    slow_leases.wait_for("begun 1")
    worker.send_signal(number)
    slow_leases.wait(lambda: "Warm shutdown" in slow_leases.said.read_text())
    time.sleep(1.5)
    assert worker.poll() is None
    stop(worker, number, seconds=30)
    assert worker.returncode == 128 + number
    assert slow_leases.present() == {1}


def test_a_task_that_raises_settles_its_message(slow_leases: Bench):
    """An error is not delivered again and again: the ledger decides what becomes of it."""
    slow_leases.start_worker()
    slow_leases.send("judge.rubric", task=1)
    slow_leases.wait_for("begun 1")
    slow_leases.wait(lambda: slow_leases.present() == set())
    assert slow_leases.lines("begun") == ["begun 1 1"]


def test_without_a_broker_sending_says_so(tmp_path: Path):
    """The error comes soon, in one line, and names no password."""
    app = queue_worker.make("redis://:secret@127.0.0.1:1/0", "abc", 10)
    began = time.monotonic()
    with pytest.raises(BrokerDown, match="lrq broker") as caught:
        send("train", task=1, delivery=1, app=app)
    assert time.monotonic() - began < 20
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_other_brokers_have_no_client():
    """What looks into Redis has to know that there is none."""
    assert connect(queue_worker.make("amqp://guest@host//", "abc", 10)) is None


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


def test_a_clock_that_was_set_back_holds_no_message_for_long(redis_server: Any) -> None:
    """What a dead worker held an hour ahead of us is given back as soon as what it holds now."""
    qos = SimpleNamespace(
        _delivered={},
        _dirty=set(),
        visibility_timeout=10,
        unacked_key="unacked",
        unacked_index_key="unacked_index",
        channel=SimpleNamespace(global_keyprefix="t:"),
    )
    with redis.Redis.from_url(redis_server.url) as client:
        client.zadd("t:unacked_index", {"ahead": time.time() + 3600, "held": time.time() - 5})
        renew(client, qos, lambda _: False)
        ahead, held = client.zmscore("t:unacked_index", ["ahead", "held"])
    assert abs(ahead - time.time()) < 5
    assert held < time.time() - 4
