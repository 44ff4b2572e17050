"""What the benchmarks share: an lrq and a judge-sim of their own, figures of processes, the bare loop, tables.

Linux only: CPU and memory are read from /proc.
"""

import asyncio
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import accumulate
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import sqlalchemy as sa

from lrq.domain.records import Item, Passage, Response, Reward, Row, Turn
from lrq.judge.passages import PassageCache
from lrq.recipes.longreward import LONGREWARD, STEPS
from lrq.recipes.ports import Answer, Case
from lrq.recipes.recipe import mean_rewards
from lrq.sim.judging import DECISIONS
from lrq.sim.sections import read_prompt

LRQ = Path(sys.executable).with_name("lrq")
TICK = os.sysconf("SC_CLK_TCK")
LOOK_EVERY = 0.1  # seconds between two looks at the processes
ASK_EVERY = 0.5  # seconds between two looks at the server's counts


def first_pair(_case: Case, _rewards: Sequence[Reward]) -> list[Row]:
    """Whatever the rewards: a judge that says the same of all responses would leave the writing of rows out."""
    return [Row(turns=(Turn(prompt=0, chosen=(0, 0), rejected=(0, 1)),))]


# Two steps of ten calls for each item, all readable when the judge says "[[7]]" to everything.
SCORES = replace(LONGREWARD, name="scores", needs=("question",), steps=STEPS[:2], rewards=mean_rewards, rows=first_pair)
SCORES_RECIPE = f"{Path(__file__).resolve()}:SCORES"


# Processes


def cpu_of(pid: int) -> float:
    """Seconds of CPU a process has used, without its children."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def memory_of(pid: int) -> int:
    """Resident bytes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def family_of(pid: int) -> list[int]:
    """A process and all that it has started, at any depth."""
    with suppress(OSError):
        below = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return [pid, *(one for child in below for one in family_of(int(child)))]
    return []


def name_of(pid: int) -> str:
    """What a process of ours is: redis, judge, aggregator, …, or lrq for the command itself."""
    words = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
    if "broker.conf" in "".join(words) or "redis.sock" in "".join(words):
        return "redis"
    return words[-2] if words[-3:-2] == ["worker"] else "lrq"


@dataclass(frozen=True, kw_only=True)
class Look:
    """One look: seconds of CPU by process name, and the replies the server had sent by then."""

    at: float
    cpu: Mapping[str, float]
    served: int


@dataclass
class Watch:
    """Looks at a family of processes from a thread, until it is closed."""

    pid: int
    server: "Sim | None" = None
    looks: list[Look] = field(default_factory=list)
    peaks: dict[str, int] = field(default_factory=dict)  # resident bytes of the largest process of a name
    memory: dict[str, list[tuple[float, int]]] = field(default_factory=dict)  # and how they went
    peak_sum: int = 0  # resident bytes of all at once

    def __post_init__(self) -> None:
        self._ended = threading.Event()
        self._last: dict[int, tuple[str, float]] = {}
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._ended.set()
        self._thread.join()

    def _work(self) -> None:
        due = 0.0
        while not self._ended.wait(LOOK_EVERY):
            self._look_at_processes()
            if time.monotonic() >= due:
                served = self.server.served() if self.server else 0
                self.looks.append(Look(at=time.monotonic(), cpu=self.cpu(), served=served))
                due = time.monotonic() + ASK_EVERY

    def _look_at_processes(self) -> None:
        sizes = []
        for pid in family_of(self.pid):
            with suppress(OSError, IndexError):
                name, size = name_of(pid), memory_of(pid)
                self._last[pid] = name, cpu_of(pid)
                self.peaks[name] = max(size, self.peaks.get(name, 0))
                self.memory.setdefault(name, []).append((time.monotonic(), size))
                sizes.append(size)
        self.peak_sum = max(self.peak_sum, sum(sizes))

    def cpu(self) -> dict[str, float]:
        found: dict[str, float] = {}
        for name, seconds in self._last.values():
            found[name] = found.get(name, 0.0) + seconds
        return found

    def between(self, first: int, last: int) -> "Interval":
        """From the first look at which so many replies were sent, to the last before so many."""
        inside = [look for look in self.looks if first <= look.served <= last]
        if len(inside) < 2:
            raise SystemExit(f"too few looks between reply {first} and {last}: use more calls")
        return Interval(inside[0], inside[-1])


@dataclass(frozen=True)
class Interval:
    """What happened between two looks."""

    begin: Look
    end: Look

    @property
    def calls(self) -> int:
        return self.end.served - self.begin.served

    @property
    def rate(self) -> float:
        """Calls a second."""
        return self.calls / (self.end.at - self.begin.at)

    def cpu_per_call(self, *names: str) -> float:
        """Milliseconds of CPU of these processes for each call."""
        used = sum(self.end.cpu.get(name, 0.0) - self.begin.cpu.get(name, 0.0) for name in names)
        return 1000 * used / self.calls


# lrq and its judge


class Sim:
    """A judge-sim in a process of its own; `with Sim("--canned") as sim`."""

    def __init__(self, *options: str) -> None:
        argv = [LRQ, "judge-sim", "--port", "0", *options]
        self.process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().split()[-1]

    def __enter__(self) -> "Sim":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait()

    def stats(self) -> dict[str, Any]:
        with urllib.request.urlopen(self._own("/stats"), timeout=60) as reply:
            return dict(json.load(reply))

    def served(self) -> int:
        """Complete replies since the last reset."""
        return int(self.stats()["complete"])

    def reset(self) -> None:
        urllib.request.urlopen(urllib.request.Request(self._own("/stats/reset"), method="POST"), timeout=60).close()

    def _own(self, path: str) -> str:
        return self.url.removesuffix("/v1") + path


class Lrq:
    """One LRQ_HOME in a temporary folder, and the commands run in it."""

    def __init__(self, folder: Path, sim: Sim, **settings: Any) -> None:
        self.folder = folder
        self.home = folder / "home"
        (folder / "lrq.yaml").write_text(json.dumps({"judge": {"url": sim.url, "model": "judge-sim"}, **settings}))
        own = {name: value for name, value in os.environ.items() if not name.startswith("LRQ_")}
        self.env = own | {"LRQ_HOME": str(self.home), "LRQ_RUNTIME": str(folder), "OMP_NUM_THREADS": "1"}

    def start(self, *words: object) -> "subprocess.Popen[bytes]":
        """Start a command; what it says goes to a file."""
        with (self.folder / "said.log").open("ab") as said:
            argv = [str(LRQ), *map(str, words)]
            return subprocess.Popen(argv, env=self.env, cwd=self.folder, stdout=said, stderr=said)

    def __call__(self, *words: object) -> float:
        """Run a command to its end; its seconds of CPU, with those of all processes it started."""
        return self.ended(self.start(*words))

    def ended(self, process: "subprocess.Popen[bytes]") -> float:
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode not in (0, 3):
            raise SystemExit(f"{' '.join(process.args)} ended with {process.returncode}\n{self.said()}")  # type: ignore[arg-type]
        return used.ru_utime + used.ru_stime

    def said(self) -> str:
        logs = [self.folder / "said.log", *sorted((self.home / "logs").glob("*.log"))]
        return "\n".join(f"--- {log.name}\n{log.read_text(errors='replace')[-2000:]}" for log in logs if log.exists())

    def stop(self, process: "subprocess.Popen[bytes]") -> None:
        process.send_signal(signal.SIGTERM)
        process.wait()

    def size(self) -> int:
        """Bytes of the ledger on disk."""
        return sum(path.stat().st_size for path in self.home.glob("ledger.db*"))


@contextmanager
def fresh(sim: Sim, **settings: Any) -> Iterator[Lrq]:
    """An empty LRQ_HOME; sockets want a short path, so it lies directly in the folder for temporary files."""
    with tempfile.TemporaryDirectory(prefix="lrq") as folder:
        yield Lrq(Path(folder), sim, **settings)


class Postgres:
    """An empty PostgreSQL of one's own on a unix socket, with its defaults: a commit is on disk."""

    def __enter__(self) -> "Postgres":
        programs = sorted(Path("/usr/lib/postgresql").glob("*/bin")) or [Path(shutil.which("postgres") or ".").parent]
        user = "postgres" if os.getuid() == 0 else None  # initdb refuses to run as root
        self.folder = Path(tempfile.mkdtemp(prefix="lrqpg"))
        if user:
            shutil.chown(self.folder, user)
        data = self.folder / "data"
        make = [programs[-1] / "initdb", "-D", data, "-U", "lrq", "--auth=trust", "-E", "UTF8", "--locale=C"]
        subprocess.run(make, user=user, cwd=self.folder, check=True, capture_output=True)
        options = ["-c", "listen_addresses=", "-c", f"unix_socket_directories={self.folder}"]
        with (self.folder / "log").open("wb") as log:
            argv = [programs[-1] / "postgres", "-D", data, *options]
            self.process = subprocess.Popen(argv, user=user, cwd=self.folder, stdout=log, stderr=log)
        self.url = f"postgresql+psycopg://lrq@/postgres?host={self.folder}"
        self.engine = sa.create_engine(self.url, poolclass=sa.NullPool)
        for _ in range(200):
            with suppress(sa.exc.OperationalError):
                self.deadlocks()
                return self
            time.sleep(0.1)
        raise SystemExit("PostgreSQL did not start in 20 s")

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def deadlocks(self) -> int:
        with self.engine.connect() as conn:
            return int(conn.execute(sa.text("SELECT sum(deadlocks) FROM pg_stat_database")).scalar_one())


# The bare loop: nothing but HTTP and JSON


async def ask_all(url: str, bodies: Iterable[Mapping[str, Any]], concurrency: int) -> None:
    """Make all these requests with that many at once, and read every reply."""
    waiting = iter(bodies)

    async def work(session: aiohttp.ClientSession) -> None:
        for body in waiting:
            async with session.post(
                url + "/chat/completions", data=orjson.dumps(body), headers={"Content-Type": "application/json"}
            ) as reply:
                orjson.loads(await reply.read())["choices"][0]["message"]["content"]

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        await asyncio.gather(*(work(session) for _ in range(concurrency)))


def bare(argv: Sequence[str]) -> None:
    """The loop as a program: URL, file of bodies (JSON lines), concurrency."""
    url, file, concurrency = argv
    bodies = [orjson.loads(line) for line in Path(file).read_bytes().splitlines()]
    asyncio.run(ask_all(url, bodies, int(concurrency)))


def start_bare(sim: Sim, file: Path, concurrency: int) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, __file__, sim.url, str(file), str(concurrency)])


# LongReward's procedures without any machinery


@dataclass(frozen=True)
class Ask:
    """One prompt of a procedure, and what judge-sim replies to it."""

    kind: str
    prompt: str
    max_tokens: int
    reply: str


def asks(lines: Sequence[Mapping[str, Any]]) -> list[Ask]:
    """All that the four dimensions ask of these items; the replies are judge-sim's, given in this process."""
    return asyncio.run(_asks(lines))


async def _asks(lines: Sequence[Mapping[str, Any]]) -> list[Ask]:
    asked: list[Ask] = []

    async def ask(kind: str, prompt: str, read: Any, *, dimension: str, max_tokens: int, draw: int = 0) -> Answer[Any]:
        found = read_prompt(prompt)
        assert found is not None
        reply = DECISIONS[found.kind](found).text
        asked.append(Ask(kind, prompt, max_tokens, reply))
        return Answer(value=read(reply), text=reply, calls=())

    for line in lines:
        cache = PassageCache()

        async def nearest(
            queries: Sequence[str], *, count: int, chunk_tokens: int, line: Any = line, cache: Any = cache
        ) -> Sequence[Sequence[Passage]]:
            return await (await cache.get((line["id"],), line["context"], chunk_tokens, None))(queries, count=count)

        responses = tuple(Response(text=text, k=k) for k, text in enumerate(line["responses"]))
        item = Item(id=line["id"], context=line["context"], question=line["question"])
        case = Case(item=item, responses=responses, texts=LONGREWARD.prompt_texts(), settings=LONGREWARD.settings)
        for step in LONGREWARD.steps:
            await step.procedure(step.judge(case, ask, nearest))
    return asked


# Texts and tables

_ONSETS = (
    "b",
    "br",
    "d",
    "dr",
    "f",
    "g",
    "gl",
    "h",
    "k",
    "l",
    "m",
    "n",
    "p",
    "pl",
    "r",
    "s",
    "st",
    "t",
    "tr",
    "v",
    "w",
)
_VOWELS = ["a", "e", "i", "o", "u", "ai", "ea", "ou"]


def vocabulary(rng: random.Random, size: int) -> list[str]:
    """Made-up words of one to three syllables."""
    return ["".join(rng.choice(_ONSETS) + rng.choice(_VOWELS) for _ in range(rng.randint(1, 3))) for _ in range(size)]


@cache
def zipf(count: int) -> list[float]:
    """Cumulative weights of so many words by their rank."""
    return list(accumulate(1 / (rank + 10) for rank in range(count)))


def prose(rng: random.Random, words: Sequence[str], characters: int) -> str:
    """Sentences of made-up words, frequent ones more often as in language (Zipf); about as long as asked."""
    weights = zipf(len(words))
    sentences: list[str] = []
    length = 0
    while length < characters:
        sentence = " ".join(rng.choices(words, cum_weights=weights, k=rng.randint(6, 18))).capitalize() + ". "
        sentences.append(sentence)
        length += len(sentence)
    return "".join(sentences)[:characters].rstrip()


def write_lines(path: Path, lines: Iterator[Mapping[str, Any]]) -> Path:
    with path.open("wb") as file:
        for line in lines:
            file.write(orjson.dumps(line) + b"\n")
    return path


def show(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table; numbers come formatted."""
    cells = [[str(cell) for cell in row] for row in (columns, *rows)]
    widths = [max(len(row[at]) for row in cells) for at in range(len(columns))]
    print(f"\n{title}")
    for row in cells:
        first, *rest = (
            cell.ljust(width) if at == 0 else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        print("  ".join([first, *rest]), flush=True)


if __name__ == "__main__":
    bare(sys.argv[1:])
