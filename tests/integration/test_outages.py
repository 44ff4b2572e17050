"""A database that is away, read-only or busy for a while: nothing paid is lost, and nothing stands still afterwards."""

import asyncio
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from calling import answer, answering, until

from lrq.config import Settings
from lrq.domain.records import Item
from lrq.ledger import Ledger, Transaction, Writer, backlog, open_ledger, runs
from lrq.ledger import items as items_
from lrq.ledger.processes import Presence
from lrq.ledger.schema import metrics, tasks
from lrq.trainer import launch
from lrq.trainer.job_folder import Result
from lrq.workers import context as context_
from lrq.workers import tasks as tasks_
from lrq.workers import trainer

ONE = backlog.Window(tasks=1, sampling=1)


@pytest.fixture
def ledger(home: Path) -> Iterator[Ledger]:
    opened = open_ledger(Settings(home=home), create=True)
    yield opened
    opened.close()


@contextmanager
def read_only(url: str) -> Iterator[None]:
    """The server takes no writes, as a standby after a failover or a provider's guard against full disks."""
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)

    def turn(word: str) -> None:
        with engine.connect() as conn:
            conn.execute(sa.text("SET default_transaction_read_only = off"))
            conn.execute(sa.text(f"ALTER SYSTEM SET default_transaction_read_only = {word}"))
            conn.execute(sa.text("SELECT pg_reload_conf()"))
        with engine.connect() as conn:
            deadline = time.monotonic() + 10
            while conn.execute(sa.text("SHOW default_transaction_read_only")).scalar() != word:
                assert time.monotonic() < deadline
                time.sleep(0.02)

    turn("on")
    try:
        yield
    finally:
        turn("off")


async def test_what_comes_while_the_database_is_read_only_is_kept(postgres_url: str, redis_server: Any) -> None:
    """Two calls are in flight, two wait behind them: all four are answered, each asked once, no slot is lost."""
    opened = open_ledger(Settings(database_url=postgres_url), create=True)
    go_on = asyncio.Event()

    async def respond() -> Any:
        await go_on.wait()
        return answer()

    async with answering(opened, redis_server.url, lambda _: respond(), concurrency=2) as bench:
        asked = [asyncio.create_task(bench.ask(str(number))) for number in range(4)]
        await until(lambda: len(bench.requests) == 2 and len(bench.calls()) == 4)
        with read_only(postgres_url):
            go_on.set()
            await asyncio.sleep(1)
        async with asyncio.timeout(30):
            found = await asyncio.gather(*asked)
        assert [reply.choices[0].text for reply in found] == ["[[7]]"] * 4
        assert len(bench.requests) == 4
        assert bench.reserved() == (0, 0)
    opened.close()


async def test_permits_that_grew_old_are_not_used_all_at_once(ledger: Ledger, redis_server: Any) -> None:
    """The ledger is locked for three seconds while calls have leave to go: they ask for leave again."""
    sent: list[float] = []

    def respond(_number: int) -> Any:
        sent.append(time.monotonic())
        return answer()

    async with answering(ledger, redis_server.url, respond, rpm=600) as bench:
        await bench.ask("first")
        asked = [asyncio.create_task(bench.ask(str(number))) for number in range(60)]
        await until(lambda: len(bench.calls()) == 61)
        await asyncio.to_thread(_hold, str(ledger.engine.url.database), 3.0)
        freed = time.monotonic()
        await asyncio.gather(*asked)
    at_once = [at for at in sent if freed - 0.5 < at < freed + 0.5]
    assert len(at_once) < 20  # ten a second, where 30 were let through meanwhile
    assert len(sent) == 61


def _hold(path: str, seconds: float) -> None:
    conn = sqlite3.connect(path, isolation_level=None, timeout=30)
    conn.execute("BEGIN IMMEDIATE")
    time.sleep(seconds)
    conn.execute("ROLLBACK")
    conn.close()


def start(ledger: Ledger) -> backlog.Task:
    """A run with one item; its only task, taken."""
    with ledger.write() as tx:
        run = runs.create_run(tx, "r", {"recipe": "longreward"})
        items_.add_items(tx, run.id, [(1, Item(id="i", context="c", question="q"), [(0, "a")])])
        backlog.start_items(tx, run.id, {"helpfulness": "judge.helpfulness"}, ONE)
        (task,) = backlog.take_ready(tx, run.id, ONE)
    return task


@pytest.mark.parametrize("error", [sa.exc.OperationalError, sa.exc.InternalError])
def test_a_task_that_met_an_outage_goes_back_and_is_no_failure(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, error: type[sa.exc.DBAPIError]
) -> None:
    """However often: three unforeseen errors would end the item."""
    task = start(ledger)
    presence, writer = Presence(ledger, "judge"), Writer(ledger)
    context = type("Context", (), {"ledger": ledger, "presence": presence, "writer": writer})()

    def away(*_: object) -> None:
        raise error("UPDATE", {}, Exception("the server is gone"))

    monkeypatch.setattr(context_, "_context", context)
    monkeypatch.setattr(tasks_, "_do", away)
    try:
        for delivery in range(1, 5):
            tasks_.work(task.id, delivery)
            with ledger.write() as tx:
                row = tx.execute(sa.select(tasks)).one()
                assert (row.state, row.owner, row.failures, row.delivery) == ("ready", "", 0, delivery)
                backlog.take_ready(tx, task.run, ONE)
    finally:
        writer.close()
        presence.close()


def test_figures_of_a_training_wait_for_the_database(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of three steps the second meets an outage: the training goes on, and all three are kept."""
    task = start(ledger)
    outage = iter([False, True, False])
    taken = ledger.write

    @contextmanager
    def write() -> Iterator[Transaction]:
        with taken() as tx:
            if next(outage):
                raise sa.exc.OperationalError("INSERT", {}, Exception("the server is gone"))
            yield tx

    def run(_folder: object, *, on_metric: Any, cancel: object) -> Result:
        for step in (1, 2, 3):
            on_metric({"step": step, "loss": 0.5})
        return Result(state="done")

    monkeypatch.setattr(ledger, "write", write)
    monkeypatch.setattr(launch, "run", run)
    held: Any = type("Held", (), {"ledger": ledger})()
    assert trainer._follow(held, replace(task, name="train.0"), None).state == "done"  # type: ignore[arg-type]
    with ledger.read() as tx:
        assert tx.execute(sa.select(metrics.c.step).order_by(metrics.c.step)).scalars().all() == [1, 2, 3]


def test_what_a_vanished_client_holds_is_free_again(postgres_url: str) -> None:
    """PostgreSQL ends a transaction of which nothing is heard; no read leaves one open."""
    opened = open_ledger(Settings(database_url=postgres_url), create=True)
    with opened.write() as tx:
        assert tx.execute(sa.text("SHOW idle_in_transaction_session_timeout")).scalar() == "1min"
    with opened.read() as tx:
        tx.execute(sa.text("SELECT 1"))
        state = sa.text("SELECT state FROM pg_stat_activity WHERE pid = pg_backend_pid()")
        assert tx.connection.connection.dbapi_connection.autocommit  # type: ignore[union-attr]
        assert tx.execute(state).scalar() == "active"
    opened.close()
