"""Feeder and reconciler with a real Redis and the real Celery app: what goes out, what is lost and found."""

import asyncio
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis
import sqlalchemy as sa
from calling import question
from celery import Celery
from kombu import pools
from ledgers import BOTH, opened, some_ledger
from pydantic import SecretStr

from lrq.config import Settings
from lrq.domain.records import Item, NoRow, Purpose
from lrq.ledger import Ledger, Transaction, Writer, backlog, runs
from lrq.ledger import items as items_
from lrq.ledger.backlog import ClaimTask, Window
from lrq.ledger.calls import Bound, Claim, Send
from lrq.ledger.processes import TASKS, Presence
from lrq.ledger.schema import calls, tasks
from lrq.ledger.schema import processes as processes_table
from lrq.ledger.steps import EndStep
from lrq.queue.celery import configuration, make_app
from lrq.queue.messages import BrokerDown, count_waiting, send
from lrq.queue.routes import QUEUES
from lrq.recipes import RECIPES
from lrq.workers import feeder
from lrq.workers.feeder import Feeder, Reconciler, feed

QUESTION = Item(id="i", context="c", question="q")
STEPS = [step.name for step in RECIPES["longreward"].steps]

EIGHT = Window(tasks=8 * len(STEPS), sampling=8)


@pytest.fixture(params=BOTH)
def ledger_settings(request: pytest.FixtureRequest, home: Path, redis_server: Any) -> Iterator[Settings]:
    with some_ledger(request, home) as settings:
        yield settings.model_copy(update={"redis_url": SecretStr(redis_server.url)})


@pytest.fixture
def ledger(ledger_settings: Settings) -> Iterator[Ledger]:
    with opened(ledger_settings) as made:
        yield made


@pytest.fixture
def app(ledger: Ledger, ledger_settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Celery]:
    """The app as the workers have it, for this test's broker."""
    pools.connections.clear()  # kombu finds a pool by its URL alone: without this, one with another ledger's prefix
    pools.producers.clear()
    made = make_app(lambda: {**configuration(ledger_settings.broker(), ledger.id), "include": []})
    monkeypatch.setattr(feeder, "send", partial(send, app=made))
    monkeypatch.setattr(feeder, "count_waiting", partial(count_waiting, app=made))
    yield made
    made.producer_pool.force_close_all()
    made.pool.force_close_all()
    pools.connections.clear()
    pools.producers.clear()


@pytest.fixture
def client(redis_server: Any) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_server.url) as made:
        yield made


def make(ledger: Ledger, count: int, name: str = "r", recipe: str = "longreward") -> int:
    """A run of so many items, each with a response."""
    with ledger.write() as tx:
        run = runs.create_run(tx, name, {"recipe": recipe, "settings": {}, "train": None})
        batch = [(n, Item(id=str(n), context="c", question="q"), [(0, "a")]) for n in range(count)]
        items_.add_items(tx, run.id, batch)
        return run.id


def out(app: Celery) -> int:
    """How many messages wait."""
    return sum(count_waiting(QUEUES, app).values())


def work(ledger: Ledger, client: redis.Redis, app: Celery, most: int) -> int:
    """Receive so many messages and do what they name, as a worker would; how many there were."""
    done = 0
    with app.connection_for_read() as connection, connection.channel() as channel:
        for queue in QUEUES:
            while done < most and (message := channel.basic_get(queue)) is not None:
                with ledger.write() as tx:
                    claim = ClaimTask(**message.payload[1], owner="worker")
                    (task,) = ClaimTask.apply(tx, [claim])
                    if task is not None and task.name == "aggregate":
                        backlog.end_aggregate(tx, task, [], [NoRow(reason="one response")])
                        backlog.advance_run(tx, task.run, None)
                    elif task is not None:
                        EndStep.apply(tx, [EndStep(task=task, found=[])])
                message.ack()
                done += 1
    return done


def until(condition: Callable[[], object], seconds: float = 15.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.02)


def test_messages_do_not_pile_up_with_the_run(ledger: Ledger, app: Celery, client: redis.Redis) -> None:
    """A thousand items, a window of eight: the tasks of eight are out, refilled as they are worked off."""
    make(ledger, 1000)
    assert feed(ledger, window=EIGHT) == 8 * len(STEPS)
    assert feed(ledger, window=EIGHT) == 0
    assert out(app) == 8 * len(STEPS)
    for _ in range(5):
        work(ledger, client, app, 12)
        feed(ledger, window=EIGHT)
        lengths = [client.llen(f"lrq:{ledger.id}:{queue}") for queue in QUEUES]
        assert sum(lengths) <= 2 * EIGHT.tasks  # of judging, and aggregations of what was judged
    assert sum(lengths) > EIGHT.sampling


def test_the_window_follows_what_the_living_work_on(ledger: Ledger) -> None:
    """A quarter more than their tasks, which they tell themselves; without them enough to begin with."""
    assert window_of_now(ledger) == Window(tasks=feeder.LEAST, sampling=feeder.LEAST)
    told = {"judge": 200, "judge@elsewhere": 120, "sampler": 80}
    processes = [Presence(ledger, name.partition("@")[0]) for name in told]
    with ledger.write() as tx:
        for process, tasks_ in zip(processes, told.values(), strict=True):
            note = f'{{"{TASKS}": {tasks_}}}'
            tx.execute(processes_table.update().where(processes_table.c.id == process.id).values(note=note))
    assert window_of_now(ledger) == Window(tasks=16 + 400, sampling=16 + 100)
    for process in processes:
        process.close()
    assert window_of_now(ledger) == Window(tasks=feeder.LEAST, sampling=feeder.LEAST)


def window_of_now(ledger: Ledger) -> Window:
    with ledger.read() as tx:
        return feeder.window_of(tx)


def test_two_runs_are_fed_alike(ledger: Ledger, app: Celery, client: redis.Redis) -> None:
    """Each has a window of its own: the long run that came first does not keep the second waiting."""
    first, second = make(ledger, 100, "first"), make(ledger, 100, "second")
    feed(ledger, window=Window(tasks=4 * len(STEPS), sampling=4))
    with ledger.read() as tx:
        counted = sa.select(tasks.c.run_id, sa.func.count()).where(tasks.c.state == "sent").group_by(tasks.c.run_id)
        assert dict(map(tuple, tx.execute(counted))) == {first: 4 * len(STEPS), second: 4 * len(STEPS)}


def test_a_halted_run_is_not_fed(ledger: Ledger, app: Celery, client: redis.Redis) -> None:
    """And goes on where it stood when it is active again."""
    run = make(ledger, 10)
    with ledger.write() as tx:
        runs.halt(tx, run, state="paused", by="user", reason="later")
    assert feed(ledger) == 0
    with ledger.write() as tx:
        runs.activate(tx, run)
    assert feed(ledger) == 10 * len(STEPS)


def test_a_run_whose_recipe_is_gone_is_paused_and_the_others_go_on(
    ledger: Ledger, app: Celery, client: redis.Redis, tmp_path: Path
) -> None:
    """Somebody has moved a file: one run waits for it, with one line that says so."""
    make(ledger, 3, "broken", recipe=f"{tmp_path}/gone.py:MINE")
    make(ledger, 3, "whole")
    assert feed(ledger) == 3 * len(STEPS)
    with ledger.read() as tx:
        broken = runs.get_run(tx, "broken")
    assert broken.state == "paused"
    assert "gone.py" in broken.reason
    assert "\n" not in broken.reason


BROKEN = """
from lrq.recipes.recipe import Recipe

raise ZeroDivisionError("by whoever wrote this")
"""


def test_whatever_breaks_one_run_the_others_are_fed(
    ledger: Ledger, app: Celery, client: redis.Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Errors nobody foresaw, in the recipe's own code and in sending: each pauses its run, with one line."""
    (tmp_path / "mine.py").write_text(BROKEN)
    make(ledger, 2, "unloadable", recipe=f"{tmp_path}/mine.py:MINE")
    unsent = make(ledger, 2, "unsent")
    make(ledger, 2, "whole")

    def start_items(tx: Transaction, run: int, *more: Any) -> None:
        if run == unsent:
            raise KeyError("odd")
        start(tx, run, *more)

    start = backlog.start_items
    monkeypatch.setattr(backlog, "start_items", start_items)
    assert feed(ledger) == 2 * len(STEPS)
    with ledger.read() as tx:
        found = {run.name: (run.state, run.halt, run.reason) for run in runs.all_runs(tx)}
    assert found["whole"] == ("active", "", "")
    assert found["unsent"] == ("paused", "settings", "KeyError: 'odd'; then `lrq resume`")
    assert found["unloadable"][:2] == ("paused", "settings")
    assert "by whoever wrote this" in found["unloadable"][2]


def test_tasks_of_a_queue_that_nobody_knows_any_more_are_routed_anew(
    ledger: Ledger, app: Celery, client: redis.Redis
) -> None:
    """Of a release with other queues: the work goes where it is done today, beside that of another run."""
    old = make(ledger, 1, "old")
    with ledger.write() as tx:
        backlog.start_items(tx, old, {name: f"steps.{name}" for name in STEPS}, EIGHT)
    make(ledger, 1, "whole")
    assert feed(ledger) == 2 * len(STEPS)
    with ledger.read() as tx:
        routed = tx.execute(sa.select(tasks.c.name, tasks.c.queue, tasks.c.state)).all()
    assert {tuple(row) for row in routed} == {(name, f"judge.{name}", "sent") for name in STEPS}


def test_nothing_is_marked_as_sent_while_the_broker_is_down(
    ledger: Ledger, app: Celery, redis_server: Any, client: redis.Redis
) -> None:
    """One clear error; when the broker is back everything goes out once."""
    make(ledger, 5)
    redis_server.kill()
    with pytest.raises(BrokerDown, match="lrq up"):
        feed(ledger)
    with ledger.read() as tx:
        assert set(tx.execute(sa.select(tasks.c.state)).scalars()) == {"ready"}
    redis_server.start()
    assert feed(ledger) == 5 * len(STEPS)


def test_an_emptied_broker_is_noticed_and_filled_again(
    ledger: Ledger, app: Celery, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two looks, so that a message on its way is not taken for a lost one; then all goes out again."""
    monkeypatch.setattr(feeder, "_SETTLED_AFTER", 0.0)
    make(ledger, 6)
    feed(ledger)
    reconciler = Reconciler(ledger)
    assert reconciler.reconcile_once() == 0
    client.flushall()
    assert (reconciler.reconcile_once(), reconciler.reconcile_once()) == (0, 6 * len(STEPS))
    assert feed(ledger) == 6 * len(STEPS)
    assert out(app) == 6 * len(STEPS)
    assert (reconciler.reconcile_once(), reconciler.reconcile_once(), feed(ledger)) == (0, 0, 0)


def test_what_waits_or_is_worked_on_is_not_sent_again(
    ledger: Ledger, app: Celery, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long it takes; a message that a worker took and did not begin is missed, and comes back."""
    monkeypatch.setattr(feeder, "_SETTLED_AFTER", 0.0)
    make(ledger, 2)
    feed(ledger)
    reconciler = Reconciler(ledger)
    with app.connection_for_read() as connection, connection.channel() as channel:
        first, second = (channel.basic_get(f"judge.{STEPS[0]}", no_ack=True) for _ in range(2))
    with ledger.write() as tx:
        (begun,) = ClaimTask.apply(tx, [ClaimTask(**first.payload[1], owner="alive")])
    assert begun is not None
    assert [reconciler.reconcile_once() for _ in range(4)] == [0, 1, 0, 0]
    assert feed(ledger) == 1
    with ledger.write() as tx:
        lost = ClaimTask(**second.payload[1], owner="alive")
        assert ClaimTask.apply(tx, [lost]) == [None]


def test_a_message_lost_among_others_comes_back_too(
    ledger: Ledger, app: Celery, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The oldest are sent again first; when the deliveries that are no longer due have gone, so is it."""
    monkeypatch.setattr(feeder, "_SETTLED_AFTER", 0.0)
    make(ledger, 3)
    feed(ledger)
    reconciler = Reconciler(ledger)
    with app.connection_for_read() as connection, connection.channel() as channel:
        taken = [channel.basic_get(f"judge.{STEPS[0]}", no_ack=True) for _ in range(3)]
    for message in (taken[0], taken[2]):
        send(f"judge.{STEPS[0]}", **message.payload[1], app=app)
    for _ in range(10):
        if reconciler.reconcile_once():
            feed(ledger)
        work(ledger, client, app, 1)
    while work(ledger, client, app, 100) or feed(ledger) or reconciler.reconcile_once():
        pass
    with ledger.read() as tx:
        assert runs.get_run(tx, "r").state == "done"


def test_of_two_feeders_one_works_and_the_other_takes_over(
    ledger: Ledger, ledger_settings: Settings, app: Celery, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second waits while the first lives, and is at work soon after it has gone."""
    monkeypatch.setattr(feeder, "_LEASE_SECONDS", 3.0)
    monkeypatch.setattr(feeder, "_IDLE_PAUSE", 0.05)
    first, second = Presence(ledger, "aggregator"), Presence(ledger, "aggregator")
    one = Feeder(ledger, first.id)
    until(lambda: one._leading)
    two = Feeder(ledger, second.id)
    make(ledger, 3)
    until(lambda: out(app) == 3 * len(STEPS))
    assert not two._leading
    one.close()
    first.close()
    make(ledger, 2, "later")
    until(lambda: out(app) == 5 * len(STEPS))
    assert two._leading
    two.close()
    second.close()


def test_a_feeder_that_stumbles_goes_on(
    ledger: Ledger, ledger_settings: Settings, app: Celery, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error nobody foresaw costs a pause, not the feeding of all runs."""
    monkeypatch.setattr(feeder, "SEEN_EVERY", 0.05)
    stumbled: list[int] = []

    def stumble(_: Ledger) -> int:
        stumbled.append(1)
        if len(stumbled) < 3:
            raise ValueError("odd")
        return feed(ledger)

    monkeypatch.setattr(feeder, "feed", stumble)
    presence = Presence(ledger, "aggregator")
    make(ledger, 1)
    running = Feeder(ledger, presence.id)
    until(lambda: out(app) == len(STEPS))
    running.close()
    presence.close()
    assert len(stumbled) > 2, "it was fed by a turn after those that failed"


def test_a_dead_process_s_calls_are_freed_without_anyone_asking(
    ledger: Ledger, ledger_settings: Settings, app: Celery
) -> None:
    """The leading feeder frees their money: else a run near its cap would wait for it for ever."""
    run = make(ledger, 0)
    dead = Presence(ledger, "judge")

    async def leave() -> None:
        writer = Writer(ledger)
        bound = Bound(cost=7, tokens=7)
        claim = Claim(key="k", call=question("q"), purpose=Purpose(run=run), owner=dead.id, bound=bound)
        claimed = await writer.write(claim)
        await writer.write(Send(id=claimed.id, owner=dead.id))
        writer.close()

    asyncio.run(leave())
    dead.close()
    presence = Presence(ledger, "aggregator")
    running = Feeder(ledger, presence.id)

    def is_freed() -> bool:
        with ledger.read() as tx:
            return tx.execute(sa.select(calls.c.state)).scalar_one() == "unknown"

    until(is_freed)
    running.close()
    presence.close()
    with ledger.read() as tx:
        row = runs.run_by_id(tx, run)
    assert (row.reserved_cost, row.spent_cost, row.unknown_cost) == (0, 7, 7)
