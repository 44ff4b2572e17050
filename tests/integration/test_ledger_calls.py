"""Claim and settle on SQLite and PostgreSQL: one row, one reply, and money that adds up."""

import asyncio
import threading
import uuid
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace

import pytest
import sqlalchemy as sa

from lrq.domain.errors import LrqError, RunHalted
from lrq.domain.records import Call, Purpose, Usage
from lrq.ledger import Ledger, Writer, processes, runs
from lrq.ledger.calls import (
    Bound,
    CachedReply,
    Claim,
    Claimed,
    Fail,
    InFlightElsewhere,
    PriorFailure,
    Release,
    Send,
    Settle,
    release_dead_calls,
)
from lrq.ledger.processes import Presence
from lrq.ledger.schema import calls
from lrq.ledger.schema import processes as processes_table
from lrq.ledger.schema import runs as runs_table

CALL = Call(role="judge", endpoint="default", model="m")
USAGE = Usage(prompt_tokens=100, completion_tokens=20)


@pytest.fixture
def run(ledger: Ledger) -> runs.Run:
    with ledger.write() as tx:
        return runs.create_run(tx, "r", {"recipe": "longreward"}, max_cost=1000, max_tokens=100_000)


@pytest.fixture
def writer(ledger: Ledger) -> Iterator[Writer]:
    opened = Writer(ledger)
    yield opened
    opened.close()


@pytest.fixture
def owner(ledger: Ledger) -> Iterator[str]:
    presence = Presence(ledger, "judge")
    yield presence.id
    presence.close()


def claim(run: runs.Run, owner: str, key: str = "k", cost: int = 100, tokens: int = 500) -> Claim:
    return Claim(key=key, call=CALL, purpose=Purpose(run=run.id), owner=owner, bound=Bound(cost=cost, tokens=tokens))


async def sent_by(writer: Writer, run: runs.Run, owner: str) -> Claimed:
    claimed = await writer.write(claim(run, owner))
    assert await writer.write(Send(id=claimed.id, owner=owner))
    return claimed


def settle(id_: int, cost: int | None = 30) -> Settle:
    return Settle(id=id_, reply=b'{"choices":[]}', usage=USAGE, cost=cost, latency_ms=5)


def money(ledger: Ledger) -> tuple[int, int, int, int, int]:
    with ledger.read() as tx:
        row = tx.execute(sa.select(runs_table)).one()
    return row.spent_cost, row.reserved_cost, row.spent_tokens, row.reserved_tokens, row.unknown_cost


async def test_a_settled_call_is_known_to_whoever_asks_again(
    ledger: Ledger, run: runs.Run, writer: Writer, owner: str
) -> None:
    """The second claim of a key brings the reply, and the money is what the call cost."""
    claimed = await writer.write(claim(run, owner))
    assert isinstance(claimed, Claimed)
    assert money(ledger) == (0, 100, 0, 500, 0)
    assert await writer.write(Send(id=claimed.id, owner=owner))
    await writer.write(settle(claimed.id))
    assert money(ledger) == (30, 0, 120, 0, 0)
    again = await writer.write(claim(run, owner))
    assert again == CachedReply(reply=b'{"choices":[]}', usage=USAGE, cost=30)
    assert money(ledger) == (30, 0, 120, 0, 0)


async def test_a_reply_is_kept_however_long_its_server_s_name_is(
    ledger: Ledger, run: runs.Run, writer: Writer, owner: str
) -> None:
    """Cut to what the column holds."""
    claimed = await writer.write(claim(run, owner))
    await writer.write(Send(id=claimed.id, owner=owner))
    assert await writer.write(replace(settle(claimed.id), server="a" * 300)) is True
    assert isinstance(await writer.write(claim(run, owner)), CachedReply)


async def test_a_claimed_key_is_held_against_everyone_else(
    ledger: Ledger, run: runs.Run, writer: Writer, owner: str
) -> None:
    """While a living process has a call, others wait."""
    other = Presence(ledger, "judge")
    await writer.write(claim(run, owner))
    assert await writer.write(claim(run, other.id)) == InFlightElsewhere()
    other.close()


async def test_a_dead_process_s_sent_call_stays_charged_and_is_taken_over(
    ledger: Ledger, run: runs.Run, writer: Writer, owner: str
) -> None:
    """Nobody knows whether the server answered: its reservation is spent, and the next asker sends again."""
    dead = Presence(ledger, "judge")
    first = await sent_by(writer, run, dead.id)
    dead.close()
    second = await writer.write(claim(run, owner))
    assert second == Claimed(id=first.id)
    assert money(ledger) == (100, 100, 500, 500, 100)


async def test_a_dead_process_s_unsent_call_costs_nothing(
    ledger: Ledger, run: runs.Run, writer: Writer, owner: str
) -> None:
    """What was only claimed was never paid for."""
    dead = Presence(ledger, "judge")
    await writer.write(claim(run, dead.id))
    dead.close()
    with ledger.write() as tx:
        assert release_dead_calls(tx) == 1
    assert money(ledger) == (0, 0, 0, 0, 0)


async def test_a_process_that_was_buried_is_forgotten_and_comes_back_with_its_next_sign(
    ledger: Ledger, run: runs.Run, owner: str
) -> None:
    """Its row goes with its calls, so that the table does not grow; one that was only slow enters itself again."""
    slow = Presence(ledger, "judge")
    slow._ended.set()  # no signs of its own for now
    slow._thread.join()
    gone = {"type": "judge", "host": "here", "place": processes.here(), "pid": 2**22 + 1}
    with ledger.write() as tx:
        tx.execute(processes_table.insert().values(id=uuid.uuid4().hex, **gone, started_at=0.0, seen_at=0.0))
        tx.execute(processes_table.update().where(processes_table.c.id == slow.id).values(pid=2**22 + 1))
        release_dead_calls(tx)
        assert set(tx.execute(sa.select(processes_table.c.id)).scalars()) == {owner}
    slow._give_sign()
    with ledger.read() as tx:
        assert slow.id in {row.id for row in processes.living(tx)}
    slow.close()


async def test_after_a_sleep_of_the_machine_nobody_is_dead(
    ledger: Ledger, run: runs.Run, writer: Writer, owner: str
) -> None:
    """All signs of life are old then; who was at work goes on, and its calls stay its own."""
    other = Presence(ledger, "judge")
    first = await sent_by(writer, run, other.id)
    with ledger.write() as tx:
        tx.execute(processes_table.update().values(seen_at=tx.now() - 3600))
        assert release_dead_calls(tx) == 0
    assert await writer.write(claim(run, owner)) == InFlightElsewhere()
    await writer.write(settle(first.id))
    assert money(ledger) == (30, 0, 120, 0, 0)
    other.close()


@pytest.mark.parametrize(("step", "is_dead"), [(3.0, True), (6.0, False)])
async def test_who_is_silent_while_we_look_is_dead(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, step: float, is_dead: bool
) -> None:
    """On another machine after ten seconds of looking; gaps between the looks are ours, and count for nothing."""
    clock, far = [0.0], uuid.uuid4().hex
    monkeypatch.setattr(processes, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    with ledger.write() as tx:
        elsewhere = {"id": far, "type": "judge", "host": "far", "place": "far", "pid": 1}
        tx.execute(processes_table.insert().values(**elsewhere, started_at=0.0, seen_at=0.0))
        for _ in range(5):
            said = processes.is_dead(tx, far)
            clock[0] += step
        assert far not in {row.id for row in processes.living(tx)}
    assert said is is_dead


async def test_who_was_thought_dead_may_still_bring_the_reply(
    ledger: Ledger, run: runs.Run, writer: Writer, owner: str
) -> None:
    """A reply that comes late is kept, and its successor does not send."""
    late = Presence(ledger, "judge")
    first = await sent_by(writer, run, late.id)
    late.close()
    second = await writer.write(claim(run, owner))
    await writer.write(settle(first.id))
    assert await writer.write(Send(id=second.id, owner=owner)) is False
    assert isinstance(await writer.write(claim(run, owner)), CachedReply)
    spent, reserved, *_ = money(ledger)
    assert (spent, reserved) == (130, 0)


async def test_a_refused_call_is_not_asked_again_and_costs_nothing(
    ledger: Ledger, run: runs.Run, writer: Writer, owner: str
) -> None:
    """The server said no to the request itself."""
    claimed = await writer.write(claim(run, owner))
    await writer.write(Send(id=claimed.id, owner=owner))
    await writer.write(Fail(id=claimed.id, owner=owner, error="refused", reason="too long", unknown=False))
    assert await writer.write(claim(run, owner)) == PriorFailure(error="refused", reason="too long")
    assert money(ledger) == (0, 0, 0, 0, 0)


async def test_another_run_may_try_what_failed_for_the_first(
    ledger: Ledger, run: runs.Run, writer: Writer, owner: str
) -> None:
    """A server that was down then may be up now; within one run the failure stands."""
    claimed = await writer.write(claim(run, owner))
    await writer.write(Fail(id=claimed.id, owner=owner, error="failed", reason="down", unknown=False))
    assert isinstance(await writer.write(claim(run, owner)), PriorFailure)
    with ledger.write() as tx:
        second = runs.create_run(tx, "second", {"recipe": "longreward"})
    assert await writer.write(claim(second, owner)) == Claimed(id=claimed.id)


async def test_a_released_call_of_unknown_outcome_stays_charged(
    ledger: Ledger, run: runs.Run, writer: Writer, owner: str
) -> None:
    """A timeout may have been answered and billed."""
    claimed = await writer.write(claim(run, owner))
    await writer.write(Send(id=claimed.id, owner=owner))
    await writer.write(Release(id=claimed.id, owner=owner, unknown=True))
    assert money(ledger) == (100, 0, 500, 0, 100)
    assert await writer.write(claim(run, owner)) == Claimed(id=claimed.id)


async def test_the_budget_waits_for_calls_in_flight_and_then_stops_the_run(
    ledger: Ledger, run: runs.Run, writer: Writer, owner: str
) -> None:
    """1000 to spend: a bound of 900 leaves no room for 200 until it is settled at 850; then the run stops."""
    first = await writer.write(claim(run, owner, "a", cost=900))
    assert await writer.write(claim(run, owner, "b", cost=200)) == InFlightElsewhere()
    await writer.write(Send(id=first.id, owner=owner))
    await writer.write(settle(first.id, cost=850))
    with pytest.raises(RunHalted, match="budget"):
        await writer.write(claim(run, owner, "b", cost=200))
    with ledger.read() as tx:
        stopped = runs.get_run(tx, "r")
    assert (stopped.state, stopped.halt) == ("stopped", "budget")
    with ledger.write() as tx, pytest.raises(LrqError, match=r"has spent 0\.0008 already"):
        runs.set_budget(tx, run.id, max_cost=800, max_tokens=None)
    with ledger.write() as tx:
        runs.set_budget(tx, run.id, max_cost=2000, max_tokens=None)
    assert isinstance(await writer.write(claim(run, owner, "b", cost=200)), Claimed)


async def test_a_halted_run_sends_nothing_more(ledger: Ledger, run: runs.Run, writer: Writer, owner: str) -> None:
    """A call that was claimed before the pause is not sent after it."""
    claimed = await writer.write(claim(run, owner))
    with ledger.write() as tx:
        assert runs.halt(tx, run.id, state="paused", by="user", reason="later")
    assert await writer.write(Send(id=claimed.id, owner=owner)) is False
    with pytest.raises(RunHalted, match="later"):
        await writer.write(claim(run, owner, "b"))


@pytest.mark.parametrize("askers", [4])
def test_two_hundred_keys_asked_for_by_four_writers_are_claimed_once_each(
    ledger: Ledger, run: runs.Run, askers: int
) -> None:
    """Four processes race for the same keys: each key is claimed once and reserved once."""
    free = replace(run, max_cost=None)
    with ledger.write() as tx:
        tx.execute(runs_table.update().values(max_cost=None, max_tokens=None))
    claimed: list[str] = []

    def ask() -> None:
        async def race() -> None:
            presence, writer = Presence(ledger, "judge"), Writer(ledger)
            keys = [f"k{n}" for n in range(200)]
            results = await asyncio.gather(*(writer.write(claim(free, presence.id, key)) for key in keys))
            claimed.extend(key for key, result in zip(keys, results, strict=True) if isinstance(result, Claimed))
            writer.close()
            presences.append(presence)

        asyncio.run(race())

    presences: list[Presence] = []
    threads = [threading.Thread(target=ask) for _ in range(askers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(claimed) == sorted(f"k{n}" for n in range(200))
    with ledger.read() as tx:
        assert tx.execute(sa.select(sa.func.count()).select_from(calls)).scalar_one() == 200
    assert money(ledger)[1] == 200 * 100
    for presence in presences:
        presence.close()
