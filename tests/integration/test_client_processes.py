"""Several processes and one server that counts: what is bought twice, and what is spent."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import caller_process
import pytest
import sqlalchemy as sa
from calling import make_run, until
from ledgers import BOTH, opened, some_ledger

from lrq.config import Settings
from lrq.ledger import Ledger
from lrq.ledger.calls import release_dead_calls
from lrq.ledger.processes import here
from lrq.ledger.schema import calls, processes
from lrq.ledger.schema import runs as runs_table
from lrq.sim.options import Options
from lrq.sim.server import Running, serve


class Nursery:
    """The program that forks the processes."""

    def __init__(self) -> None:
        env = {**os.environ, "OMP_NUM_THREADS": "1"}
        program = [sys.executable, caller_process.__file__]
        self._process = subprocess.Popen(program, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._out.readline() == "ready\n"

    @property
    def _out(self) -> IO[str]:
        assert self._process.stdout is not None
        return self._process.stdout

    def start(self, **asked: Any) -> int:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        return int(self._out.readline())

    def close(self) -> None:
        self._process.communicate()


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    opened = Nursery()
    yield opened
    opened.close()


def lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@dataclass
class World:
    """A counting server, a ledger, and processes that ask."""

    ledger: Ledger
    server: Running
    nursery: Nursery
    env: dict[str, str]
    folder: Path
    started: list[int] = field(default_factory=list)

    def start(self, run: int, keys: int, at_once: int) -> int:
        """A process that asks for all keys, in an order of its own."""
        report, seed = str(self.folder / str(len(self.started))), len(self.started)
        pid = self.nursery.start(env=self.env, report=report, run=run, keys=keys, at_once=at_once, seed=seed)
        self.started.append(pid)
        return pid

    async def said(self, pid: int) -> dict[str, int]:
        """How an orderly ended process says it went."""
        try:
            await until(lambda: not lives(pid), 60)
        except TimeoutError:
            os.kill(pid, signal.SIGUSR1)  # it says on stderr where it hangs
            await asyncio.sleep(1)
            raise
        return dict(json.loads((self.folder / str(self.started.index(pid))).read_text()))

    def in_flight(self, pid: int) -> int:
        """Calls that a process has sent and not committed."""
        with self.ledger.read() as tx:
            owner = sa.select(processes.c.id).where(processes.c.pid == pid, processes.c.place == here())
            sent = sa.select(sa.func.count()).where(calls.c.owner.in_(owner), calls.c.state == "sent")
            return int(tx.execute(sent).scalar_one())

    def bought(self) -> int:
        with self.ledger.read() as tx:
            return int(tx.execute(sa.select(sa.func.count()).where(calls.c.state == "done")).scalar_one())

    async def kill(self, pid: int) -> int:
        """As `kill -9` does; how many calls were in flight, counted while the process stands still."""
        os.kill(pid, signal.SIGSTOP)
        await asyncio.sleep(0.05)  # for what the database was just writing
        in_flight = self.in_flight(pid)
        os.kill(pid, signal.SIGKILL)
        await until(lambda: not lives(pid))
        return in_flight


Opened = Callable[[Options], AbstractAsyncContextManager[World]]


@pytest.fixture(params=BOTH)
def ledger_settings(request: pytest.FixtureRequest, home: Path) -> Iterator[Settings]:
    with some_ledger(request, home) as settings:
        yield settings


@pytest.fixture
def ledger(ledger_settings: Settings) -> Iterator[Ledger]:
    with opened(ledger_settings) as made:
        yield made


@pytest.fixture
def world(
    ledger: Ledger, ledger_settings: Settings, redis_server: Any, home: Path, tmp_path: Path, nursery: Nursery
) -> Opened:
    judge = {"price": {"input": 1, "output": 2}, "timeout": 5, "rpm": 1_000_000}

    @asynccontextmanager
    async def begun(options: Options) -> AsyncIterator[World]:
        async with serve(options) as server:
            env = {
                "LRQ_HOME": str(home),
                "LRQ_REDIS_URL": redis_server.url,
                "LRQ_DATABASE_URL": ledger_settings.ledger_url(),
                "LRQ_JUDGE_URL": server.url,
                "LRQ_JUDGE_MODEL": "m",
                "LRQ_OVERRIDES": json.dumps({"judge": judge}),
            }
            made = World(ledger, server, nursery, env, tmp_path)
            try:
                yield made
            finally:
                for pid in made.started:
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)

    return begun


async def test_two_processes_ask_for_the_same_500_keys_and_500_are_bought(world: Opened) -> None:
    """Each has 500 replies; the server sent 500."""
    async with world(Options(latency_ms=30)) as made:
        run = make_run(made.ledger)
        both = [made.start(run, 500, 500) for _ in range(2)]
        assert [(await made.said(one))["replies"] for one in both] == [500, 500]
        counted = made.server.stats()
        assert (counted["complete"], counted["distinct"], counted["duplicates"]) == (500, 500, 0)


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGTERM])
async def test_of_four_processes_one_is_ended_five_times(world: Opened, sign: signal.Signals) -> None:
    """Killed, at most what was in flight is bought twice; stopped orderly, nothing is. Every key has its reply."""
    async with world(Options(latency_ms=60, jitter_ms=40)) as made:
        run, keys = make_run(made.ledger), 200
        living = [made.start(run, keys, 8) for _ in range(4)]
        in_flight = stopped = 0
        for round_ in range(1, 6):
            await until(lambda least=round_ * keys // 8: made.bought() >= least, 60)
            victim = living.pop(0)
            if sign == signal.SIGKILL:
                in_flight += await made.kill(victim)
            else:
                os.kill(victim, sign)
                stopped += (await made.said(victim))["stopped"]
            living.append(made.start(run, keys, 8))
        assert [(await made.said(one))["replies"] for one in living] == [keys] * 4
        counted = made.server.stats()
        assert counted["distinct"] == made.bought() == keys
        assert counted["duplicates"] <= in_flight
        assert (in_flight > 0) == (sign == signal.SIGKILL)
        assert (stopped > 0) == (sign == signal.SIGTERM)
        assert counted["complete"] == keys + counted["duplicates"]


async def test_a_cap_holds_over_four_processes_faults_and_kills(world: Opened) -> None:
    """What the server has sent costs no more than the ledger says is spent, and that no more than the cap."""
    faults = {"500": 0.05, "reset": 0.05, "empty": 0.02}
    async with world(Options(latency_ms=40, faults=faults)) as made:
        cap = 6_000  # a bound is 64 + 12 + 2 × 16 = 108, a call costs about 20: of 400 not even 300 can be had
        run, keys = make_run(made.ledger, max_cost=cap), 400
        living = [made.start(run, keys, 10) for _ in range(4)]
        for least in (10, 20, 30):
            await until(lambda least=least: made.bought() >= least, 60)
            await made.kill(living.pop(0))
            with made.ledger.write() as tx:  # as the feeder does: else the rest may wait for what the dead reserved
                release_dead_calls(tx)
            living.append(made.start(run, keys, 10))
        said = [await made.said(one) for one in living]
        assert all(one["halted"] for one in said)
        with made.ledger.read() as tx:
            row = tx.execute(sa.select(runs_table)).one()
        tokens = made.server.stats()["tokens"]
        billed = tokens["prompt"] * 1 + tokens["completion"] * 2
        assert 0 < billed <= row.spent_cost <= cap
        assert cap - row.spent_cost < 120  # it was stopped by the cap, not before
        assert (row.state, row.halt, row.reserved_cost, row.reserved_tokens) == ("stopped", "budget", 0, 0)
