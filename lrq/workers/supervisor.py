"""The processes of one machine: started, watched, started again, and stopped in order.

`lrq up` and `lrq run` use it alike. Every child is a process of the Procfile, in a session of its own, so that Ctrl-C
in a terminal reaches the supervisor alone.
"""

import ctypes
import fcntl
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from lrq.config import OVERRIDES, Settings, without_keys
from lrq.domain.commands import fill_command
from lrq.domain.environment import COMPUTE, PROXIES, SYSTEM, pick
from lrq.domain.errors import LrqError
from lrq.domain.records import ROLES, Role
from lrq.queue import broker
from lrq.queue.diagnosis import check_servers
from lrq.trainer.job import REPORTERS
from lrq.trainer.launch import PATIENT_THREADS

PROCFILE: dict[str, tuple[str, ...]] = {
    "redis": ("broker",),
    "sampler": ("worker", "sampler"),
    "judge": ("worker", "judge"),
    "scorer": ("worker", "scorer"),
    "aggregator": ("worker", "aggregator"),
    "trainer": ("worker", "trainer"),
    "flower": ("flower",),
}

_STEADY_SECONDS = 30.0  # who lived that long starts anew at once, without the memory of earlier failures
_LONGEST_WAIT = 30.0  # seconds between two starts: 0.5, 1, 2, … 30
_READY_SECONDS = 60.0
_BROKER_SECONDS = 30.0
# Quick ends in a row that make a process a failing one. With an error of its own it would fail again; one that was
# killed may have met with accidents, unless these do not end: the kernel kills what does not fit into memory.
_ERRORS, _ENDS = 3, 8
_LEAST_FREE = 1 << 20  # bytes; with less a ledger's next transaction may not fit
_FULL_DISK_SECONDS = 20.0  # that calls in flight get at the end to be committed where nothing can be written
_LARGEST_LOG = 16 * 2**20  # bytes; a larger one makes way when its process starts
_KEYS = (*(f"LRQ_{role.upper()}_{tail}" for role in ROLES for tail in ("API_KEY", "PROXY")), "OPENAI_API_KEY")
# What each process is given of the environment, besides SYSTEM and the LRQ_ variables that are no keys.
_NEEDS: dict[str, tuple[Sequence[str], ...]] = {
    "redis": (),
    "sampler": (COMPUTE, _KEYS, PROXIES),
    "judge": (_KEYS, PROXIES),
    "scorer": (COMPUTE,),
    "aggregator": (),
    "trainer": (COMPUTE, [f"{prefix}*" for prefix in REPORTERS.values()]),
    "flower": (("FLOWER_*",),),
}
_SUPERVISOR = "LRQ_SUPERVISOR"  # the supervisor's process id, for its children
_PROGRAM = (
    "import sys; sys.argv[0] = 'lrq'; from lrq.workers.supervisor import follow_supervisor; follow_supervisor(); "
    "from lrq.cli import main; main()"
)


class AlreadyUp(LrqError):
    """A supervisor of this LRQ_HOME is running already."""


def unavailable_processes(settings: Settings, asked: Collection[Role] = ("policy", "teacher")) -> dict[str, str]:
    """Return the processes of the Procfile that cannot run here, and why.

    `asked`: the roles that a sampler would ask. A judge is among them for few recipes, and the sampler of a machine
    that has a judge alone would take the prompts that another machine's policy is to answer.
    """
    reasons: dict[str, str] = {}
    if not broker.is_embedded(settings):
        reasons["redis"] = "LRQ_REDIS_URL names the broker"
    policy = settings.policy
    if not (policy.path or any(settings.endpoints(role) for role in asked)):
        reasons["sampler"] = "no policy is named; set LRQ_POLICY to a folder or a URL"
    elif policy.serve and not shutil.which(server := fill_command(policy.serve, {"model": "", "port": ""})[0]):
        reasons["sampler"] = f"policy.serve runs {server}, which is not found here; install it, or name its path"
    elif policy.path and not policy.serve and not _installed("torch", "transformers"):
        reasons["sampler"] = "it needs the training extra; pip install 'lrq[train]'"
    if not settings.judge.path:
        reasons["scorer"] = "no preference model is named; set judge.path to its folder"
    elif not _installed("torch", "transformers"):
        reasons["scorer"] = "it needs the training extra; pip install 'lrq[train]'"
    if not _installed("torch", "transformers", "trl", "deepspeed"):
        reasons["trainer"] = "it needs the training extra; pip install 'lrq[train]'"
    if not _installed("flower"):
        reasons["flower"] = "it needs the monitoring extra; pip install 'lrq[monitor]'"
    return reasons


def full_disk(home: Path) -> str:
    """Say that nothing more fits on the disk that holds LRQ_HOME; empty while something does."""
    try:
        free = shutil.disk_usage(home).free
    except OSError:
        return ""
    return f"no space left on the disk of {home}; waiting until some is freed" if free < _LEAST_FREE else ""


def _installed(*modules: str) -> bool:
    return all(importlib.util.find_spec(module) for module in modules)


def running_processes(settings: Settings) -> frozenset[str] | None:
    """Return what the supervisor of this LRQ_HOME keeps running, of `lrq up` or `lrq run`; None: there is none."""
    path = settings.home / "up.lock"
    if not path.exists():
        return None
    lock = os.open(path, os.O_RDWR)
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return frozenset(os.read(lock, 1000).decode().split())
    finally:
        os.close(lock)
    return None


def is_up(settings: Settings) -> bool:
    return running_processes(settings) is not None


def command(name: str) -> list[str]:
    """Return how a process of the Procfile is started; -P keeps the current folder out of its imports."""
    return [sys.executable, "-P", "-c", _PROGRAM, *PROCFILE[name]]


@dataclass
class Child:
    """One process that is to be kept running."""

    name: str  # judge, judge-2
    argv: list[str]
    log: Path
    process: "subprocess.Popen[bytes] | None" = None
    started: float = 0.0
    ends: int = 0  # quick ones in a row
    errors: int = 0  # of these, with an exit code that says so
    due: float = 0.0  # when to start it again

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def spawn(self, env: Mapping[str, str]) -> None:
        if self.log.exists() and self.log.stat().st_size > _LARGEST_LOG:
            self.log.replace(self.log.with_suffix(".log.1"))
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(
                self.argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=dict(env), start_new_session=True
            )
        self.started = time.monotonic()

    def note_end(self) -> str:
        """Decide when to start again; say so."""
        assert self.process is not None  # noqa: S101
        code, self.process = self.process.returncode, None
        now = time.monotonic()
        if now - self.started >= _STEADY_SECONDS:
            self.ends = self.errors = 0
        self.ends += 1
        self.errors += code > 0
        wait = min(_LONGEST_WAIT, 0.5 * 2 ** (self.ends - 1))
        self.due = now + wait
        return f"{self.name} ended with {_named(code)}; it starts again in {wait:g} s (see {self.log})"

    @property
    def is_failing(self) -> bool:
        return self.errors >= _ERRORS or self.ends >= _ENDS

    def last_log_line(self) -> str:
        if not self.log.exists():
            return "it logged nothing"
        lines = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return lines[-1] if lines else "it logged nothing"

    def terminate(self) -> None:
        if self.process is not None:
            self.process.terminate()

    def kill(self) -> None:
        """Kill it with its whole session. Safe in a signal handler: it only sends."""
        if self.process is not None and self.process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)


def _named(code: int) -> str:
    return f"code {code}" if code >= 0 else signal.Signals(-code).name


@dataclass
class Supervisor:
    """Keeps the named processes running. Start, poll and stop it from one thread, which outlives the children.

    counts: how many of each, one where it does not say. overrides: settings for the children over their own.
    """

    settings: Settings
    names: Sequence[str]
    counts: Mapping[str, int] = field(default_factory=dict)
    overrides: Mapping[str, Any] = field(default_factory=dict)
    command: Callable[[str], list[str]] = command
    children: list[Child] = field(default_factory=list, init=False)
    _lock: int | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        logs = self.settings.home / "logs"
        self.children = [
            Child(name=each, argv=self.command(name), log=logs / f"{each}.log")
            for name in self.names
            for each in _each(name, self.counts.get(name, 1))
        ]

    def start(self) -> None:
        """Start everything, the broker first. Raises AlreadyUp, or LrqError where the broker does not come up."""
        self._take_lock()
        (self.settings.home / "logs").mkdir(parents=True, exist_ok=True)
        try:
            self._start_broker()
            for child in self._workers():
                child.spawn(self._environment(child.name))
        except BaseException:
            self.kill()
            self.stop()
            raise

    def poll(self) -> list[str]:
        """Start again what has ended and is due; return what happened, a sentence each."""
        lines = []
        for child in self.children:
            if child.process is not None and not child.is_running:
                lines.append(child.note_end())
            elif child.process is None and time.monotonic() >= child.due and not self._is_elsewhere(child):
                child.spawn(self._environment(child.name))
                lines.append(f"{child.name} started")
        return lines

    @property
    def failing(self) -> str | None:
        """Name a process that ended quickly several times in a row, with its last line; None when all is well."""
        young = time.monotonic() - _STEADY_SECONDS
        for child in self.children:
            if child.is_failing and (not child.is_running or child.started > young):
                return f"{child.name} does not stay up: {child.last_log_line()} (see {child.log})"
        return None

    def stop(self) -> None:
        """Stop the workers orderly, with time to commit the calls in flight; then the broker."""
        _end(self._workers(), self._grace())
        _end([child for child in self.children if child.name == "redis"], _BROKER_SECONDS)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def kill(self) -> None:
        """End all at once. A signal handler may do so while `stop` waits, which then returns."""
        for child in self.children:
            child.kill()

    def _take_lock(self) -> None:
        self.settings.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(self.settings.home / "up.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            raise AlreadyUp(f"the processes of {self.settings.home} are up already; use them, or stop them") from None
        os.ftruncate(lock, 0)
        os.write(lock, " ".join(self.names).encode())
        self._lock = lock

    def _start_broker(self) -> None:
        redis = next((child for child in self.children if child.name == "redis"), None)
        check_servers(self.settings)
        if redis is None or broker.probe(self.settings):
            return
        redis.spawn(self._environment(redis.name))
        until = time.monotonic() + _READY_SECONDS
        while not broker.probe(self.settings):
            if not redis.is_running or time.monotonic() > until:
                raise LrqError(f"the broker did not start: {redis.last_log_line()}")
            time.sleep(0.05)

    def _workers(self) -> list[Child]:
        return [child for child in self.children if child.name != "redis"]

    def _is_elsewhere(self, child: Child) -> bool:
        """Tell whether the broker is up without us: somebody runs `lrq broker`."""
        if child.name != "redis":
            return False
        child.due = time.monotonic() + 5
        return broker.probe(self.settings)

    def _environment(self, name: str) -> dict[str, str]:
        """Return what a process of that name is given: settings, but keys of endpoints only where it calls them."""
        plain = [key for key in os.environ if key.startswith("LRQ_") and key not in _KEYS]
        needs = _NEEDS[name.partition("-")[0]]
        # Variables that headers name are keys, too; whoever makes no calls only reads that they are set.
        keys = {key: os.environ.get(key, "") if _KEYS in needs else "***" for key in self.settings.variables()}
        env = {**keys, **PATIENT_THREADS, **pick(os.environ, SYSTEM, plain, *needs), _SUPERVISOR: str(os.getpid())}
        overrides = self.overrides or orjson.loads(os.environ.get(OVERRIDES, "{}"))
        if overrides:
            env[OVERRIDES] = orjson.dumps(overrides if _KEYS in needs else without_keys(overrides)).decode()
        return env

    def _grace(self) -> float:
        """Longer than the longest call: those in flight are paid for and shall be committed."""
        if full_disk(self.settings.home):
            return _FULL_DISK_SECONDS
        timeouts = [endpoint.timeout for role in ROLES for endpoint in self.settings.endpoints(role)]
        return 30 + max(timeouts, default=60)


def _each(name: str, count: int) -> list[str]:
    return [name if number == 1 else f"{name}-{number}" for number in range(1, count + 1)]


def _end(children: Sequence[Child], seconds: float) -> None:
    """Ask them to end, wait that long, kill who is left."""
    for child in children:
        child.terminate()
    until = time.monotonic() + seconds
    while any(child.is_running for child in children) and time.monotonic() < until:
        time.sleep(0.05)
    for child in children:
        child.kill()
        if child.process is not None:
            child.process.wait()


def follow_supervisor() -> None:
    """End this process orderly when the supervisor that started it is killed; nothing where none did."""
    supervisor = int(os.environ.pop(_SUPERVISOR, "0"))
    if not supervisor:
        return
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG: also after exec
    else:
        threading.Thread(target=_watch, args=(supervisor,), name="supervisor", daemon=True).start()
    if os.getppid() != supervisor:
        os.kill(os.getpid(), signal.SIGTERM)


def _watch(supervisor: int) -> None:
    while os.getppid() == supervisor:
        time.sleep(1)
    os.kill(os.getpid(), signal.SIGTERM)
