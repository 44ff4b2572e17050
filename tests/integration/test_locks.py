"""Locks on PostgreSQL: judges, aggregators and the feeder at work on one run wait for each other, but in one order."""

import asyncio
import random
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import sqlalchemy as sa
from calling import question
from pydantic import SecretStr

from lrq.config import Settings, TrainSchedule
from lrq.domain.records import Item, Purpose, Reward, Row, Score, Turn, Usage
from lrq.ledger import Ledger, Writer, backlog, items, open_ledger, runs
from lrq.ledger.backlog import Task
from lrq.ledger.calls import Claim, Claimed, Send, Settle
from lrq.ledger.money import Bound
from lrq.ledger.schema import calls, tasks
from lrq.ledger.schema import items as items_table
from lrq.ledger.steps import EndStep

ITEMS, CALLS = 100, 4  # calls of each step
WINDOW = backlog.Window(tasks=80, sampling=40)
BUSY = 0.05  # seconds that a busy machine takes between two statements
STEPS = {"helpfulness": "judge.helpfulness", "logicality": "judge.logicality"}


@pytest.fixture
def url(postgres_url: str, home: Path) -> str:
    open_ledger(Settings(home=home, database_url=SecretStr(postgres_url)), create=True).close()
    return postgres_url


class Work:
    """The open tasks of one run, given to whoever asks, each once."""

    def __init__(self, ledger: Ledger, run: int) -> None:
        self.ledger = ledger
        self.run = run
        self._ready: dict[bool, list[Task]] = {True: [], False: []}  # aggregations, steps
        self._lock = threading.Lock()
        self.raised: list[BaseException] = []

    def take(self, *, aggregations: bool, most: int) -> list[Task]:
        with self._lock:
            with self.ledger.write() as tx:
                backlog.start_items(tx, self.run, STEPS, WINDOW)
                for task in backlog.take_ready(tx, self.run, WINDOW):
                    if task.queue != "train":
                        self._ready[task.name == "aggregate"].append(task)
            ready = self._ready[aggregations]
            taken, ready[:] = ready[:most], ready[most:]
            return taken

    def is_over(self) -> bool:
        time.sleep(0.01)
        if self.raised:
            return True
        with self.ledger.read() as tx:
            return runs.run_by_id(tx, self.run).open_items == 0


def judge(url: str, home: Path, work: Work, owner: str) -> None:
    """Do steps as a judge process does: many calls at once, through a writer of its own."""
    ledger = open_ledger(Settings(home=home, database_url=SecretStr(url)))

    async def call(writer: Writer, task: Task, number: int) -> None:
        key, purpose = f"{task.id}-{number}", Purpose(run=task.run, item=task.item, step=task.name)
        bound = Bound(cost=10, tokens=10)
        claimed = await writer.write(Claim(key=key, call=question(key), purpose=purpose, owner=owner, bound=bound))
        assert isinstance(claimed, Claimed)
        assert await writer.write(Send(id=claimed.id, owner=owner))
        await asyncio.sleep(random.random() * BUSY)  # so that some settle while others claim
        usage = Usage(prompt_tokens=3, completion_tokens=2)
        assert await writer.write(Settle(id=claimed.id, reply=b"{}", usage=usage, cost=5, latency_ms=1))

    async def step(writer: Writer, task: Task) -> None:
        for number in range(CALLS):
            await call(writer, task, number)
        found = [Score(dimension=task.name, k=k, value=5.0) for k in range(2)]
        assert await writer.write(EndStep(task=task, found=found))

    async def steps() -> None:
        writer = Writer(ledger)
        while not work.is_over():
            taken = work.take(aggregations=False, most=20)
            await asyncio.gather(*(step(writer, task) for task in taken))
        writer.close()

    asyncio.run(steps())
    ledger.close()


def aggregate(url: str, home: Path, work: Work) -> None:
    """End items as an aggregator's threads do: with rewards, a pair, and a training for every few."""
    ledger = open_ledger(Settings(home=home, database_url=SecretStr(url)))
    while not work.is_over():
        for task in work.take(aggregations=True, most=1):
            with ledger.write() as tx:
                made = [Row(turns=(Turn(prompt=0, chosen=(0, 0), rejected=(0, 1)),))]
                assert backlog.end_aggregate(tx, task, [Reward(k=0, value=1.0)], made)
                time.sleep(BUSY)
                backlog.advance_run(tx, task.run, TrainSchedule(every_rows=7))
    ledger.close()


def at_once(over: Work, *work: Callable[[], None]) -> None:
    """Do all in threads; the first error ends them, and is raised."""

    def do(one: Callable[[], None]) -> None:
        try:
            one()
        except BaseException as error:
            over.raised.append(error)

    threads = [threading.Thread(target=do, args=(one,), daemon=True) for one in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    for error in over.raised:
        raise error


def deadlocks(url: str) -> int:
    """How many PostgreSQL has counted, once all who were connected have left their counts."""
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    others = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    with engine.connect() as conn:
        while conn.execute(sa.text(others)).scalar_one():
            time.sleep(0.05)
        counted = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
        return int(conn.execute(sa.text(counted)).scalar_one())


def _slowly(set_rows: Callable[..., None], *words: object) -> None:
    set_rows(*words)  # a pair names the run, whose key is locked for that
    time.sleep(BUSY)


def test_judges_and_aggregators_never_deadlock(url: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A whole run on one row of `runs`: PostgreSQL itself has counted no deadlock, and all sums are right."""
    monkeypatch.setattr(items, "set_rows", partial(_slowly, items.set_rows))
    with_items = open_ledger(Settings(home=home, database_url=SecretStr(url)))
    with with_items.write() as tx:
        config = {"recipe": "longreward", "train": {"every_rows": 7}}
        run = runs.create_run(tx, "r", config, max_cost=10**9).id
        batch = [(n, Item(id=f"i{n}", context="c", question="q"), [(0, "a"), (1, "b")]) for n in range(ITEMS)]
        items.add_items(tx, run, batch)
    work = Work(with_items, run)
    judges = [lambda owner=f"judge-{n}": judge(url, home, work, owner) for n in range(3)]  # type: ignore[misc]
    at_once(work, *judges, *[lambda: aggregate(url, home, work)] * 4)
    with with_items.read() as tx:
        bought = ITEMS * len(STEPS) * CALLS
        assert tx.execute(sa.select(sa.func.count()).select_from(calls)).scalar_one() == bought
        after = runs.run_by_id(tx, run)
        assert (after.reserved_cost, after.spent_cost, after.open_items) == (0, 5 * bought, 0)
        assert set(tx.execute(sa.select(items_table.c.state)).scalars()) == {"done"}
        assert set(tx.execute(sa.select(tasks.c.queue)).scalars()) == {"train"}
    with_items.close()
    assert deadlocks(url) == 0
