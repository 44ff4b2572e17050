"""A Redis server of the tests' own, on a unix socket in a short folder."""

import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import redis
from calling import Scene, answering
from inline import Judge, World, world

from lrq.ledger import Ledger
from lrq.queue.broker import find_server
from lrq.sim.options import Options


class RedisServer:
    """A server that can be flushed, killed, frozen and started again; its URL stays the same."""

    def __init__(self, binary: str, folder: Path) -> None:
        self._binary = binary
        self._folder = folder
        self.socket = folder / "s"
        self.url = f"unix://{self.socket}"
        self._process: subprocess.Popen[bytes] | None = None

    def __str__(self) -> str:
        return self.url

    def start(self) -> None:
        options = ["--port", "0", "--unixsocket", str(self.socket), "--save", "", "--dir", str(self._folder)]
        self._process = subprocess.Popen([self._binary, *options], stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 30
        while not self._answers():
            assert time.monotonic() < deadline, "the Redis server did not start"
            time.sleep(0.02)

    def _answers(self) -> bool:
        try:
            with redis.Redis.from_url(self.url) as client:
                return bool(client.ping())
        except redis.ConnectionError:
            return False

    def flush(self) -> None:
        with redis.Redis.from_url(self.url) as client:
            client.flushall()

    def kill(self) -> None:
        """As `kill -9` does; nothing is kept."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
            self.socket.unlink(missing_ok=True)

    def freeze(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)


@pytest.fixture(scope="session")
def _redis_server() -> Iterator[RedisServer]:
    with tempfile.TemporaryDirectory(prefix="lrq") as folder:
        server = RedisServer(find_server().path, Path(folder))
        server.start()
        yield server
        server.kill()


@pytest.fixture
def redis_server(_redis_server: RedisServer) -> RedisServer:
    """An empty server; `.url`, `.flush()`, `.kill()` and `.start()`."""
    if not _redis_server._answers():
        _redis_server.start()
    _redis_server.flush()
    return _redis_server


@pytest.fixture
def scene(ledger: Ledger, redis_server: RedisServer) -> Scene:
    """`async with scene(respond) as bench`: a Caller whose server answers as `respond` says."""
    return partial(answering, ledger, redis_server.url)


@pytest.fixture
def judge() -> Iterator[Judge]:
    """A judge-sim of the test's own: its prompt cache is cold."""
    made = Judge(Options(latency_ms=20))
    yield made
    made.close()


@pytest.fixture
def lrq(tmp_path: Path, redis_server: RedisServer, judge: Judge, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """An LRQ_HOME in which commands are called and all work is done in this process."""
    with world(tmp_path, redis_server.url, judge, monkeypatch) as made:
        yield made
