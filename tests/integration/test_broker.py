"""The embedded broker: found, started, reachable for its owner alone, and back after a kill."""

import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from queue_bench import short_runtime

from lrq.config import Settings
from lrq.domain.errors import LrqError, UsageError
from lrq.queue import broker


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Settings]:
    with short_runtime():
        yield Settings(home=tmp_path / 'a home, "quoted"')


def _pid(settings: Settings) -> int:
    with redis.Redis.from_url(settings.redis()) as client:
        return int(client.info("server")["process_id"])


def test_it_is_reachable_for_its_owner_alone(settings: Settings):
    """No port, and socket and folder closed to others."""
    with broker.running(settings), redis.Redis.from_url(settings.redis()) as client:
        assert client.config_get("port") == {"port": "0"}
        socket = settings.runtime / "redis.sock"
        assert stat.S_IMODE(socket.stat().st_mode) == 0o700
        assert stat.S_IMODE(settings.runtime.stat().st_mode) == 0o700
    assert not broker.probe(settings)


def test_after_a_kill_it_has_everything_it_confirmed(settings: Settings):
    """kill -9 loses no confirmed write, even where the file's last entry was torn."""
    first = broker.start(settings)
    with redis.Redis.from_url(settings.redis()) as client:
        client.rpush("queue", *range(1000))
        first.process.kill()
        first.process.wait()
        (tail,) = (settings.home / "broker" / "appendonlydir").glob("*.incr.aof")
        with tail.open("ab") as file:
            file.write(b"*3\r\n$5\r\nRPUSH\r\n$5\r\nqu")
        with broker.running(settings):
            assert client.llen("queue") == 1000
            client.rpush("queue", "more")
        with broker.running(settings):  # an orderly stop keeps it all, too
            assert client.llen("queue") == 1001


def test_one_broker_for_one_home(settings: Settings):
    """Who comes second uses what runs, does not stop it, and cannot start another."""
    with broker.running(settings):
        second = broker.start(settings)
        assert second.process is None
        second.stop()
        assert broker.probe(settings)
        with pytest.raises(broker.BrokerRunning, match="running already"):
            broker.become(settings)


def test_many_starting_at_once_end_with_one(settings: Settings):
    """Whoever loses the race waits for the winner's."""
    code = (
        "import sys; from pathlib import Path; from lrq.config import Settings; from lrq.queue import broker;"
        "started = broker.start(Settings(home=Path(sys.argv[1]))); print(started.process is not None, flush=True)"
    )
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(settings.home)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        for _ in range(3)
    ]
    said = sorted(racer.communicate(timeout=60)[0].decode().split()[0] for racer in racers)
    try:
        assert said == ["False", "False", "True"]
    finally:
        os.kill(_pid(settings), signal.SIGTERM)


def test_it_outlives_whoever_started_it(settings: Settings):
    """A starter that is killed leaves the broker running for the others."""
    code = (
        "import os, sys; from pathlib import Path; from lrq.config import Settings; from lrq.queue import broker;"
        "broker.start(Settings(home=Path(sys.argv[1]))); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code, str(settings.home)], check=False)
    assert broker.probe(settings)
    os.kill(_pid(settings), signal.SIGTERM)


def test_the_users_redis_is_left_alone(tmp_path: Path):
    """With LRQ_REDIS_URL nothing is started, whether or not it answers."""
    settings = Settings.model_validate({"home": tmp_path, "redis_url": "redis://127.0.0.1:1"})
    assert broker.start(settings).process is None
    assert not broker.is_embedded(settings)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("said", ["Redis server v=7.2.4 sha=0", "Valkey server v=8.0.1 sha=0", "Redis server v=6.2.0"])
def test_a_server_on_the_path_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str):
    """A new enough server that the user installed is preferred to the wheel's."""
    _program(tmp_path, "redis-server", said)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert broker.find_server().path == str(tmp_path / "redis-server")


@pytest.mark.parametrize("said", ["Redis server v=6.0.16 sha=0", "Redis server v=5.0.7", "what?"])
def test_a_server_too_old_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str):
    """Celery needs 6.2; without another server the error says what was found and what to install."""
    _program(tmp_path, "redis-server", said)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(broker.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(LrqError, match=r"at least 6.2.*lrq\[broker\].*LRQ_REDIS_URL"):
        broker.find_server()


def _program(folder: Path, name: str, said: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\necho '{said}'\n")
    path.chmod(0o755)


def test_a_folder_that_others_may_enter_is_refused(settings: Settings):
    """Nor a link that somebody put in its place."""
    settings.runtime.mkdir(mode=0o777)
    settings.runtime.chmod(0o777)
    with pytest.raises(UsageError, match="not a folder of yours alone"):
        broker.runtime_folder(settings)
    settings.runtime.rmdir()
    elsewhere = settings.runtime.with_name("elsewhere")
    elsewhere.mkdir(mode=0o700)
    settings.runtime.symlink_to(elsewhere)
    with pytest.raises(UsageError, match="not a folder of yours alone"):
        broker.runtime_folder(settings)


def test_a_path_too_long_for_a_socket_is_refused(settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """With the remedy, not with the server's complaint."""
    monkeypatch.setenv("LRQ_RUNTIME", str(tmp_path / ("long" * 30)))
    with pytest.raises(UsageError, match="LRQ_RUNTIME"):
        broker.start(settings)


def test_a_server_that_fails_is_quoted(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """One that ends at its start gives its last words as the reason."""
    program = tmp_path / "redis-server"
    program.write_text(
        '#!/bin/sh\n[ "$1" = --version ] && echo "Redis server v=7.0.0" && exit\necho cannot do it\nexit 1\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(LrqError, match="did not start: cannot do it"):
        broker.start(settings)


def test_the_command_becomes_the_broker(settings: Settings):
    """`lrq broker` is the server itself: killing it kills the broker, SIGTERM ends it orderly, a second is refused."""
    argv = [sys.executable, "-c", "from lrq.cli import main; main()", "broker"]
    env = {**os.environ, "LRQ_HOME": str(settings.home)}
    process = subprocess.Popen(argv, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 30
        while not broker.probe(settings) and time.monotonic() < until:
            time.sleep(0.05)
        assert _pid(settings) == process.pid
        again = subprocess.run(argv, env=env, capture_output=True, text=True, check=False)
        assert again.returncode == 1
        assert "running already" in again.stderr
        process.terminate()
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()
