"""lrq as a user runs it: the console script and `lrq judge-sim` as processes, counted at the server's /stats.

Nothing here looks inside lrq; a test waits for a condition until a deadline that a loaded machine keeps.
"""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import redis

REPOSITORY = Path(__file__).parents[2]
LRQ = Path(sys.executable).with_name("lrq")
PATIENCE = 240.0  # seconds for what takes a few on a machine of one's own


def until(what: Callable[[], Any], why: str, seconds: float = PATIENCE) -> Any:
    """Wait for it to be true, and return it."""
    end = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < end, f"not within {seconds:.0f} s: {why}"
        time.sleep(0.05)
    return found


def _arguments(pid: int) -> list[str]:
    with suppress(OSError):
        return (Path("/proc") / str(pid) / "cmdline").read_bytes().decode(errors="replace").split("\0")
    return []


def _children(pid: int) -> list[int]:
    with suppress(OSError):
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def processes_naming(text: str) -> list[int]:
    """The processes whose command line holds a text, this one apart."""
    pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return [pid for pid in pids if pid != os.getpid() and any(text in word for word in _arguments(pid))]


class Sim:
    """A judge-sim of one's own."""

    def __init__(self, folder: Path, *options: str) -> None:
        with (folder / "judge-sim.log").open("ab") as log:
            self.process = subprocess.Popen(
                [LRQ, "judge-sim", "--port", "0", *options], stdout=subprocess.PIPE, stderr=log, text=True
            )
        assert self.process.stdout is not None
        said = self.process.stdout.readline()
        assert "listening on" in said, (folder / "judge-sim.log").read_text()
        self.url = said.split()[-1]

    def stats(self) -> dict[str, Any]:
        with urllib.request.urlopen(self.url.removesuffix("/v1") + "/stats", timeout=60) as reply:
            return dict(json.load(reply))

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()


class Lrq:
    """One LRQ_HOME and the commands run in it."""

    def __init__(self, folder: Path, runtime: str, probes: Path) -> None:
        """`probes` is shared: what was found of a model in one test holds in the next."""
        self.folder = folder
        self.home = folder / "lrq"
        self.home.mkdir(mode=0o700)
        (self.home / "probes").symlink_to(probes)
        # LRQ_RUNTIME: sockets want a short path, and a test leaves nothing in the user's own
        self.env = {"LRQ_HOME": str(self.home), "LRQ_RUNTIME": runtime, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
        self._started: list[subprocess.Popen[bytes]] = []
        self._settings: dict[str, Mapping[str, Any]] = {}

    def judged_by(self, sim: Sim, **settings: Any) -> None:
        self.env |= {"LRQ_JUDGE_URL": sim.url, "LRQ_JUDGE_MODEL": "judge-sim"}
        self.configure(judge=settings)

    def configure(self, **sections: Mapping[str, Any]) -> None:
        """Write sections of lrq.yaml, which all commands read."""
        self._settings |= sections
        (self.folder / "lrq.yaml").write_text(json.dumps(self._settings))

    def __call__(self, *words: object, code: int | None = 0, **env: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end and check its exit code, if one is given."""
        argv = [str(LRQ), *map(str, words)]
        done = subprocess.run(
            argv, env=self._environment(env), cwd=self.folder, capture_output=True, text=True, timeout=900, check=False
        )
        assert "Traceback" not in done.stderr, done.stderr
        assert code in (None, done.returncode), f"{argv[1:]}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def start(self, *words: object, argv: Sequence[str] | None = None, **env: str) -> subprocess.Popen[bytes]:
        """Start a command and let it work; it is ended with the test."""
        with (self.folder / "said.log").open("ab") as said:
            process = subprocess.Popen(
                argv or [str(LRQ), *map(str, words)],
                env=self._environment(env),
                cwd=self.folder,
                stdout=said,
                stderr=said,
                start_new_session=True,
            )
        self._started.append(process)
        return process

    def _environment(self, env: Mapping[str, str]) -> dict[str, str]:
        own = {name: value for name, value in os.environ.items() if not name.startswith("LRQ_")}
        return own | self.env | env

    def ended(self, process: subprocess.Popen[bytes], code: int | None = None, seconds: float = 600) -> int:
        """Wait for the end of a command, and check its exit code if one is given."""
        until(lambda: process.poll() is not None, f"its end\n{self.said()}", seconds)
        assert code in (None, process.returncode), f"{process.returncode}\n{self.said()}\n{self.logs()}"
        return int(process.returncode)

    def said(self) -> str:
        """What the started commands said so far."""
        path = self.folder / "said.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def logs(self, lines: int = 25) -> str:
        """The ends of the workers' logs."""
        found = sorted((self.home / "logs").glob("*.log"))
        tails = {path.name: path.read_text(errors="replace").splitlines()[-lines:] for path in found}
        return "\n".join(f"--- {name}\n" + "\n".join(tail) for name, tail in tails.items())

    def status(self, run: str) -> dict[str, Any]:
        return dict(json.loads(self("status", run, "--json").stdout)["runs"][0])

    def scores(self, run: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self("export", run, "--format", "scores").stdout.splitlines()]

    def query(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        """Ask the ledger itself, for what no command prints."""
        with closing(sqlite3.connect(f"file:{self.home / 'ledger.db'}?mode=ro", uri=True, timeout=60)) as conn:
            return conn.execute(sql, values).fetchall()

    def in_flight(self, pids: Sequence[int]) -> int:
        """Calls that these processes have sent and not yet committed, as the ledger has it."""
        owners = f"SELECT id FROM processes WHERE pid IN ({','.join(map(str, pids))})"
        ((count,),) = self.query(f"SELECT count(*) FROM calls WHERE state = 'sent' AND owner IN ({owners})")
        return int(count)

    @property
    def socket(self) -> Path:
        """The embedded broker's."""
        (found,) = Path(self.env["LRQ_RUNTIME"]).glob("lrq-*/redis.sock")
        return found

    def empty_broker(self) -> None:
        with redis.Redis(unix_socket_path=str(self.socket)) as client:
            client.flushall()

    def close(self) -> None:
        for process in self._started:
            for pid in (*(child for child in _children(process.pid)), process.pid):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            process.wait()


class Crew:
    """The processes that a `lrq run` or `lrq up` has started."""

    def __init__(self, lrq: Lrq, supervisor: subprocess.Popen[bytes]) -> None:
        self.lrq = lrq
        self.supervisor = supervisor
        until(lambda: self.pids("aggregator") or supervisor.poll() is not None, "the workers")

    def pids(self, name: str) -> list[int]:
        """redis, sampler, judge, aggregator or trainer; those that are up."""
        found = {pid: _arguments(pid) for pid in _children(self.supervisor.pid)}
        if name == "redis":
            return [
                pid for pid, words in found.items() if "redis.sock" in "".join(words) or "broker.conf" in "".join(words)
            ]
        return [pid for pid, words in found.items() if words[-3:-1] == ["worker", name]]

    def end(self, name: str, number: signal.Signals) -> int:
        """Send a signal to all of that type, and wait until others are in their place.

        Returns how many calls the killed had in flight: sent, and not yet committed. Who may end in order has none.
        """
        before = until(lambda: self.pids(name), f"a {name}")
        held = 0
        if number == signal.SIGKILL:
            for pid in before:
                os.kill(pid, signal.SIGSTOP)
            held = self.lrq.in_flight(before)
        for pid in before:
            os.kill(pid, number)
        until(lambda: set(self.pids(name)) - set(before), f"another {name}")
        return held


def write_lines(path: Path, lines: Sequence[Mapping[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
    return path


def assert_all_scored(lrq: Lrq, run: str, responses: int) -> int:
    """Every response once, each score a value or a reason; returns how many scores are unscored."""
    lines = lrq.scores(run)
    assert len(lines) == responses
    assert len({(line["id"], line["response"]) for line in lines}) == responses
    for line in lines:
        assert set(line["scores"]) == {"helpfulness", "logicality", "faithfulness", "completeness"}, line
        assert all(line["reasons"][name] for name, value in line["scores"].items() if value is None), line
        assert line["reward"] is not None or line["reasons"]["reward"], line
    facts = lrq.status(run)["scores"]
    assert all(one["value"] + one["not_applicable"] + one["unscored"] == responses for one in facts.values()), facts
    return sum(one["unscored"] for one in facts.values())
