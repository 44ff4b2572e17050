"""One process's calls: shared, cancelled, stopped, halted elsewhere, and while the database is away."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from aiohttp import web
from calling import Scene, answer, calling, judge_at, make_run, question, serving, until
from ledgers import opened, sqlite_ledger

from lrq.calls import replies
from lrq.calls.keys import call_key
from lrq.calls.tries import Patience
from lrq.config import Settings
from lrq.domain.errors import CallFailed, RunHalted, Stopping
from lrq.domain.records import Choice, Purpose, Usage
from lrq.ledger import Ledger, Transaction, Writer, runs
from lrq.ledger.calls import Claim, Claimed, Send, Settle
from lrq.ledger.schema import calls
from lrq.ledger.writer import InTransaction


@pytest.fixture
def ledger(home: Path) -> Iterator[Ledger]:
    with sqlite_ledger(home) as settings, opened(settings) as made:
        yield made


class Gate:
    """A server's answer that waits until it is let through."""

    def __init__(self) -> None:
        self.open = asyncio.Event()

    async def __call__(self, _number: int) -> web.Response:
        await self.open.wait()
        return answer()


def usage(ledger: Ledger) -> tuple[int, int]:
    with ledger.read() as tx:
        (row,) = runs.usage_of(tx)
    return row.calls, row.reused


async def test_equal_questions_of_a_process_share_one_request(scene: Scene) -> None:
    """Twenty ask, one is sent, nineteen are counted as reused."""
    gate = Gate()
    async with scene(gate) as bench:
        asked = [asyncio.create_task(bench.ask()) for _ in range(20)]
        await until(lambda: len(bench.requests) == 1)
        gate.open.set()
        replies = await asyncio.gather(*asked)
        assert [reply.reused for reply in replies].count(False) == 1
        assert len(bench.requests) == 1
        assert usage(bench.ledger) == (1, 19)
        assert bench.row().spent_cost == 20


async def test_other_draws_attempts_and_series_are_other_questions(scene: Scene) -> None:
    """Equal bodies, asked on purpose: each is bought, and goes under a key of its own."""
    async with scene(lambda _: answer()) as bench:
        await asyncio.gather(bench.ask(), bench.ask(draw=1), bench.ask(attempt=1), bench.ask(series=1))
        assert len(bench.requests) == 4
        assert all(body == bench.requests[0] for body in bench.requests)


async def test_cancelling_one_asker_loses_nothing(scene: Scene) -> None:
    """The request goes on: the other asker has its reply, and so has who asks later."""
    gate = Gate()
    async with scene(gate) as bench:
        first, second = asyncio.create_task(bench.ask()), asyncio.create_task(bench.ask())
        await until(lambda: len(bench.requests) == 1)
        first.cancel()
        gate.open.set()
        assert (await second).choices[0].text == "[[7]]"
        with pytest.raises(asyncio.CancelledError):
            await first
        assert (await bench.ask()).reused
        assert len(bench.requests) == 1


async def test_who_asks_at_the_very_moment_a_call_ends_asks_anew(scene: Scene) -> None:
    """The call was halted, and its end is not yet noted: waiting for it would hold the event loop for ever."""
    async with scene(lambda _: answer()) as bench:
        ended: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        ended.set_exception(RunHalted("of another run"))
        bench.caller._pending[call_key(question("q"))] = ended  # type: ignore[assignment]
        assert not (await bench.ask()).reused
        assert bench.caller._pending == {}


async def test_a_call_nobody_waits_for_any_more_is_still_committed(scene: Scene) -> None:
    """Its only asker is cancelled while it is in flight: what was paid for is kept."""
    gate = Gate()
    async with scene(gate) as bench:
        only = asyncio.create_task(bench.ask())
        await until(lambda: len(bench.requests) == 1)
        only.cancel()
        gate.open.set()
        await until(lambda: bench.calls()[0].state == "done")
        assert bench.reserved() == (0, 0)


async def test_stop_commits_what_is_in_flight_and_begins_nothing(scene: Scene) -> None:
    """One request is with the server, fifty wait for the limiter: the one is kept, the fifty end at once."""
    gate = Gate()
    async with scene(gate, concurrency=1) as bench:
        asked = [asyncio.create_task(bench.ask(str(n))) for n in range(51)]
        await until(lambda: len(bench.requests) == 1)
        await until(lambda: len(bench.calls()) == 51)
        stopping = asyncio.create_task(bench.caller.stop())
        await until(lambda: sum(task.done() for task in asked) == 50, 20)
        gate.open.set()
        await stopping
        results = await asyncio.gather(*asked, return_exceptions=True)
        assert sorted(type(result).__name__ for result in results) == ["Reply"] + ["Stopping"] * 50
        assert len(bench.requests) == 1
        assert sorted(row.state for row in bench.calls()) == ["done"] + ["unknown"] * 50
        assert (bench.row().spent_cost, bench.reserved()) == (20, (0, 0))
        with pytest.raises(Stopping):
            await bench.ask("another")


@pytest.mark.parametrize("moment", [Claim, Send])
async def test_a_stop_between_claim_and_send_sends_nothing(
    scene: Scene, moment: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever write it was waiting for: the call is given back, unsent and uncharged."""
    async with scene(lambda _: answer()) as bench:
        plain, begun = moment.apply, asyncio.Event()
        loop = asyncio.get_running_loop()

        def slow(*given: Any) -> Any:
            loop.call_soon_threadsafe(begun.set)
            time.sleep(0.2)  # in the writing thread
            return plain(*given)

        monkeypatch.setattr(moment, "apply", slow)
        asked = asyncio.create_task(bench.ask())
        await begun.wait()
        await bench.caller.stop()
        with pytest.raises(Stopping):
            await asked
        assert bench.requests == []
        assert (bench.row().spent_cost, bench.reserved()) == (0, (0, 0))


async def test_a_stop_ends_the_wait_after_a_failure(scene: Scene) -> None:
    """The server asks for five minutes; a process that is to end does not wait for them."""
    slow = web.json_response({"error": {"message": "slow down"}}, status=429, headers={"Retry-After": "300"})
    async with scene(lambda _: slow) as bench:
        asked = asyncio.create_task(bench.ask())
        await until(lambda: len(bench.requests) == 1)
        async with asyncio.timeout(20):
            await bench.caller.stop()
            with pytest.raises(Stopping):
                await asked


async def test_a_stop_while_a_failing_request_is_in_flight_does_not_wait_after_it(scene: Scene) -> None:
    """The stop comes first, the failure after it: no pause is begun then."""
    gate = asyncio.Event()

    async def respond(_: int) -> web.Response:
        await gate.wait()
        return web.json_response({"error": "busy"}, status=503, headers={"Retry-After": "300"})

    async with scene(respond, patience=Patience()) as bench:
        asked = asyncio.create_task(bench.ask())
        await until(lambda: len(bench.requests) == 1)
        stopping = asyncio.create_task(bench.caller.stop())
        await asyncio.sleep(0)
        gate.set()
        async with asyncio.timeout(20):
            await stopping
            with pytest.raises(Stopping):
                await asked
        assert bench.reserved() == (0, 0)


async def test_an_outage_is_waited_out_and_ends_no_call(scene: Scene) -> None:
    """The server is down for longer than a call's own tries last: one at a time probes it, and all are answered."""
    begun = time.monotonic()
    is_down = True

    async def respond(_: int) -> web.Response:
        return web.json_response({"error": "down"}, status=503) if is_down else answer()

    patience = Patience(failures=4, first_pause=0.8, longest_pause=0.8)
    async with scene(respond, patience=patience) as bench:
        asked = [asyncio.create_task(bench.ask(str(n))) for n in range(20)]
        await until(lambda: any(view.probing for view in bench.limiter.view().values()))
        sent = len(bench.requests)
        await asyncio.sleep(6)
        assert 1 <= len(bench.requests) - sent <= 20 + 8  # those just on their way, and then one probe after another
        assert not any(task.done() for task in asked)
        is_down = False
        replies_ = await asyncio.gather(*asked)
    assert len(replies_) == 20
    assert time.monotonic() - begun > 6


async def test_a_call_that_is_alone_outlives_an_outage_too(scene: Scene) -> None:
    """Before its own eight tries are used up the endpoint counts as failing, and what follows are probes."""
    is_down = True

    async def respond(_: int) -> web.Response:
        return web.json_response({"error": "down"}, status=503) if is_down else answer()

    async with scene(respond, patience=Patience(first_pause=0.4, longest_pause=0.4)) as bench:
        asked = asyncio.create_task(bench.ask())
        await until(lambda: len(bench.requests) > 9, 30)
        is_down = False
        assert (await asked).choices[0].text == "[[7]]"


async def test_calls_that_wait_end_when_their_run_is_paused_elsewhere(scene: Scene) -> None:
    """Whoever pauses the run reaches those that wait in the limiter, not those in flight or of other runs."""
    gate = Gate()
    async with scene(gate, concurrency=1) as bench:
        flying = asyncio.create_task(bench.ask("first"))
        await until(lambda: len(bench.requests) == 1)
        waiting = [asyncio.create_task(bench.ask(str(n))) for n in range(5)]
        other = asyncio.create_task(bench.caller.call(question("x"), Purpose(run=make_run(bench.ledger, "other"))))
        await until(lambda: len(bench.calls()) == 7)
        with bench.ledger.write() as tx:
            runs.halt(tx, bench.run, state="paused", by="user", reason="paused by hand")
        for task in waiting:
            with pytest.raises(RunHalted, match="by hand"):
                await asyncio.wait_for(task, 20)
        gate.open.set()
        assert not (await flying).reused
        assert not (await other).reused
        assert len(bench.requests) == 2
        assert bench.reserved() == (0, 0)


class Away:
    """Has the ledger's connections fail until it is back."""

    def __init__(self, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
        self.is_away = False
        plain = ledger.write

        def write() -> Any:
            if self.is_away:
                raise sa.exc.OperationalError("BEGIN", {}, Exception("the server closed the connection"))
            return plain()

        monkeypatch.setattr(ledger, "write", write)
        monkeypatch.setattr("lrq.ledger.writer._TRIES", 1)


async def test_a_reply_outlasts_a_database_that_is_away(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was paid for: it is committed when the database is back, and bought once."""
    gate = Gate()
    async with scene(gate) as bench:
        away = Away(bench.ledger, monkeypatch)
        asked = asyncio.create_task(bench.ask())
        await until(lambda: len(bench.requests) == 1)
        away.is_away = True
        gate.open.set()
        await asyncio.sleep(0.5)
        assert not asked.done()
        away.is_away = False
        assert not (await asked).reused
        assert len(bench.requests) == 1
        assert (bench.row().spent_cost, bench.reserved()) == (20, (0, 0))


async def test_a_question_waits_for_a_database_that_is_away(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody's task fails for it; a stop ends the wait."""
    async with scene(lambda _: answer()) as bench:
        away = Away(bench.ledger, monkeypatch)
        away.is_away = True
        first, second = asyncio.create_task(bench.ask()), asyncio.create_task(bench.ask("other"))
        await asyncio.sleep(0.3)
        assert (first.done(), second.done(), bench.requests) == (False, False, [])
        away.is_away = False
        assert len({(await first).key, (await second).key}) == 2
        away.is_away = True
        third = asyncio.create_task(bench.ask("third"))
        await asyncio.sleep(0.1)
        await asyncio.wait_for(bench.caller.stop(), 20)
        with pytest.raises(Stopping):
            await third
        away.is_away = False


async def test_a_watch_that_met_a_lost_database_watches_on(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pause after the database was away still ends the calls that wait."""
    gate = Gate()
    async with scene(gate, concurrency=1) as bench:
        asked = [asyncio.create_task(bench.ask(str(n))) for n in range(2)]
        await until(lambda: len(bench.requests) == 1)
        await until(lambda: len(bench.calls()) == 2)
        plain, failures = bench.ledger.read, []

        def read() -> Any:
            if not failures:
                failures.append(1)
                raise sa.exc.OperationalError("SELECT", {}, Exception("gone"))
            return plain()

        monkeypatch.setattr(bench.ledger, "read", read)
        await until(lambda: bool(failures))
        with bench.ledger.write() as tx:
            runs.halt(tx, bench.run, state="paused", by="user", reason="later")
        await until(lambda: any(task.done() for task in asked), 20)
        gate.open.set()
        kinds = {type(one).__name__ for one in await asyncio.gather(*asked, return_exceptions=True)}
        assert kinds == {"Reply", "RunHalted"}


@pytest.mark.parametrize("sent", [False, True])
async def test_a_process_takes_back_what_it_lost_track_of(scene: Scene, sent: bool) -> None:
    """A commit whose news was lost leaves a row of its own: it asks again, and what was sent stays charged."""
    async with scene(lambda _: answer()) as bench:
        call = question("q")
        claim = Claim(
            key=call_key(call),
            call=call,
            purpose=bench.purpose,
            owner=bench.presence.id,
            bound=bench.caller._pool(call, bench.run).bound(call),
        )
        claimed = await bench.writer.write(claim)
        assert isinstance(claimed, Claimed)
        if sent:
            assert await bench.writer.write(Send(id=claimed.id, owner=bench.presence.id))
        reply = await asyncio.wait_for(bench.ask(), 20)
        assert not reply.reused
        assert bench.row().spent_cost == 20 + (97 if sent else 0)
        assert bench.reserved() == (0, 0)


@pytest.mark.parametrize("broken", [ValueError("odd"), RuntimeError("closed")])
async def test_a_transport_that_breaks_leaves_nothing_claimed(
    scene: Scene, broken: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is raised while a request is sent is a failed delivery: bounded, charged as unknown, given back."""
    async with scene(lambda _: answer()) as bench:

        def post(*_: Any, **__: Any) -> Any:
            raise broken

        monkeypatch.setattr(bench.caller._transport._session, "post", post)
        with pytest.raises(CallFailed, match=type(broken).__name__):
            await bench.ask()
        (row,) = bench.calls()
        assert (row.state, bench.reserved()) == ("failed", (0, 0))
        assert all(view.in_flight == 0 for view in bench.limiter.view().values())


async def test_the_reply_that_is_committed_first_stands_for_everyone(ledger: Ledger, redis_server: Any) -> None:
    """A process was thought dead and its call sent again: both replies come, and all scores rest on one."""
    gate, requests = asyncio.Event(), []

    async def handle(_: web.Request) -> web.Response:
        requests.append(1)
        await gate.wait()
        return answer()

    async with serving(handle) as url, calling(ledger, judge_at(url, Settings()), redis_server.url) as bench:
        asked = asyncio.create_task(bench.ask())
        await until(lambda: len(requests) == 1)
        (row,) = bench.calls()
        late = Writer(ledger)
        body, counted = replies.encode([Choice(text="[[3]]")]), Usage(prompt_tokens=10, completion_tokens=5)
        assert await late.write(Settle(id=row.id, reply=body, usage=counted, cost=20, latency_ms=1))
        late.close()
        gate.set()
        assert (await asked).choices[0].text == "[[3]]"
        assert (await bench.ask()).choices[0].text == "[[3]]"
        assert bench.reserved() == (0, 0)


async def test_one_bad_write_does_not_fail_its_neighbours(scene: Scene) -> None:
    """Writes that share a transaction are tried alone when it fails."""

    def bad(_: Transaction) -> None:
        raise ValueError("bad")

    async with scene(lambda _: answer()) as bench:
        good = [bench.writer.write(InTransaction(lambda tx: tx.execute(sa.select(calls)).all())) for _ in range(3)]
        results = await asyncio.gather(*good, bench.writer.write(InTransaction(bad)), return_exceptions=True)
        assert [str(one) for one in results] == ["[]", "[]", "[]", "bad"]
