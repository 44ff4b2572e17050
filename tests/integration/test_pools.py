"""Several servers of one name: equal questions stay equal, and whoever has room answers."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, cast

import pytest
import redis.asyncio
from aiohttp import web
from calling import PRICE, Bench, answer, calling, serving, until
from conftest import RedisServer
from ledgers import opened, sqlite_ledger

from lrq.calls.limiter import Lane, Limiter, Limits, Permit, read_lanes
from lrq.calls.pool import Line, Pool
from lrq.config import Endpoint, JudgeSettings, Price, Settings, load_settings
from lrq.domain.errors import RunHalted, UsageError
from lrq.ledger import Ledger
from lrq.run_config import snapshot_config

Respond = Callable[[], Any]


@pytest.fixture
def ledger(home: Path) -> Iterator[Ledger]:
    with sqlite_ledger(home) as settings, opened(settings) as made:
        yield made


class Servers:
    """Servers of one pool, and how many requests each has received."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self.received: Counter[str] = Counter()
        self.endpoints: list[Endpoint] = []
        self._stack = stack

    async def add(self, name: str, respond: Respond | None, **fields: Any) -> None:
        """A server that answers as `respond` says; None: nobody listens there."""

        async def handle(_: web.Request) -> web.StreamResponse:
            self.received[name] += 1
            made = (respond or answer)()
            response: web.StreamResponse = await made if asyncio.iscoroutine(made) else made
            return response

        if respond is None:
            async with serving(handle) as url:
                pass
        else:
            url = await self._stack.enter_async_context(serving(handle))
        self.received[name] = 0
        told = {"price": PRICE, "timeout": 60.0, **fields}
        self.endpoints.append(Endpoint(url=url, model="m", server=name, **told))

    def answer_after(self, least: int) -> Respond:
        """Answers once every server has received so many requests."""

        async def respond() -> web.Response:
            await until(lambda: min(self.received.values()) >= least, 30)
            return answer()

        return respond

    def settings(self, *names: str) -> Settings:
        chosen = tuple(one for one in self.endpoints if not names or one.server in names)
        return Settings(judge=JudgeSettings(endpoints=chosen))


async def slowly() -> web.Response:
    await asyncio.sleep(0.3)
    return answer()


async def ask_many(bench: Bench, count: int) -> list[Any]:
    return await asyncio.gather(*(bench.ask(f"question {n}") for n in range(count)))


async def test_the_same_question_is_known_whichever_server_answered(ledger: Ledger, redis_server: RedisServer) -> None:
    """Both servers share the work, rows name them, and a process that knows but one of them finds every reply."""
    async with AsyncExitStack() as stack:
        servers = Servers(stack)
        await servers.add("north", servers.answer_after(10), concurrency=10)
        await servers.add("south", servers.answer_after(10), concurrency=10)
        async with calling(ledger, servers.settings(), redis_server.url) as bench:
            await ask_many(bench, 40)
            assert Counter(row.server for row in bench.calls()) == servers.received
            assert min(servers.received["north"], servers.received["south"]) >= 10
        async with calling(ledger, servers.settings("south"), redis_server.url, run=bench.run) as other:
            again = await ask_many(other, 40)
        assert all(reply.reused for reply in again)
        assert servers.received.total() == 40


async def test_work_goes_where_there_is_room(ledger: Ledger, redis_server: RedisServer) -> None:
    """A server that takes one slow call at a time holds nothing up while another takes all that come."""
    async with AsyncExitStack() as stack:
        servers = Servers(stack)
        await servers.add("narrow", slowly, concurrency=1)
        await servers.add("wide", servers.answer_after(1), concurrency=50)
        async with calling(ledger, servers.settings(), redis_server.url) as bench:
            begun = time.monotonic()
            await ask_many(bench, 100)
            waited = time.monotonic() - begun
        assert servers.received["narrow"] >= 1
        assert servers.received["wide"] >= 100 - 2 - waited / 0.3


@pytest.mark.parametrize("broken", ["away", "failing", "throttling"])
async def test_a_server_that_only_fails_holds_nothing_up(
    broken: str, ledger: Ledger, redis_server: RedisServer
) -> None:
    """No call ends without its reply, for each has the other server to go to."""
    respond: dict[str, Respond | None] = {
        "away": None,
        "failing": lambda: web.Response(status=500),
        "throttling": lambda: web.Response(status=429, headers={"Retry-After": "100"}),
    }
    async with AsyncExitStack() as stack:
        servers = Servers(stack)
        await servers.add("bad", respond[broken])
        await servers.add("good", answer)
        async with calling(ledger, servers.settings(), redis_server.url) as bench:
            async with asyncio.timeout(30):
                await ask_many(bench, 60)
            assert {row.server for row in bench.calls()} == {"good"}
            assert {row.state for row in bench.calls()} == {"done"}
        assert servers.received["good"] == 60


async def test_a_refused_account_is_passed_over_until_all_are(ledger: Ledger, redis_server: RedisServer) -> None:
    """One server that knows no such key costs no run; when none knows it the run is halted."""
    known = {"good": True}
    async with AsyncExitStack() as stack:
        servers = Servers(stack)
        await servers.add("bad", lambda: web.Response(status=401))
        both = servers.answer_after(1)
        await servers.add("good", lambda: both() if known["good"] else web.Response(status=401))
        async with calling(ledger, servers.settings(), redis_server.url) as bench:
            await ask_many(bench, 20)
            assert bench.row().state == "active"
            asked = servers.received["bad"]
            await bench.ask("another")
            assert servers.received["bad"] == asked, "a server that was just found to refuse us is left alone"
            known["good"] = False
            with pytest.raises(RunHalted):
                await bench.ask("one more")
            assert bench.row().halt == "account"


async def test_waiting_at_several_servers_leaves_nothing_behind(ledger: Ledger, redis_server: RedisServer) -> None:
    """What was granted to calls that went elsewhere is given back: each server's log holds what it was sent."""
    async with AsyncExitStack() as stack:
        servers = Servers(stack)
        await servers.add("a", slowly, rpm=6000, concurrency=8)
        await servers.add("b", slowly, rpm=6000, concurrency=8)
        async with calling(ledger, servers.settings(), redis_server.url) as bench:
            await ask_many(bench, 64)
            lanes = await lanes_when(redis_server.url, lambda lanes: used(lanes) == 64 and not busy(lanes))
        assert {name.partition("@")[2]: lane.requests.used for name, lane in lanes.items()} == dict(servers.received)


class LateNews(Limiter):
    """A limiter whose polls are answered when they may be."""

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self.may = asyncio.Event()
        self.polled = asyncio.Event()

    async def _ask(self, lane: Lane, ask: dict[str, Any]) -> Any:
        reply = await super()._ask(lane, ask)
        self.polled.set()
        await self.may.wait()
        return reply


async def test_what_is_granted_to_a_call_that_has_gone_is_given_back(redis_server: RedisServer) -> None:
    """The news of a grant comes when its call is answered elsewhere: the lane's log is empty again soon."""
    client = redis.asyncio.Redis.from_url(redis_server.url)
    limiter = LateNews(client, "t:", owner="me")
    lane = Lane(name="lane", limits=Limits(rpm=6000))
    limiter.may.set()
    permit = await limiter.acquire(lane, tokens=1, run=1, started=True)  # from now on the lane's state is warm
    limiter.settle(permit, tokens=1, status="ok", headers={}, latency=0.0)
    await lanes_when(redis_server.url, lambda lanes: used(lanes) == 1 and not busy(lanes))
    limiter.may.clear()
    limiter.polled.clear()
    asked = asyncio.create_task(limiter.acquire(lane, tokens=1, run=1, started=True))
    await limiter.polled.wait()
    asked.cancel()
    await lanes_when(redis_server.url, lambda lanes: used(lanes) > 1)
    limiter.may.set()
    await lanes_when(redis_server.url, lambda lanes: used(lanes) == 1)
    assert asked.cancelled()
    await limiter.close()
    await client.aclose()


class TwoAtOnce:
    """A limiter whose lanes let a call through in the same moment."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.settled: list[tuple[str, str]] = []

    async def acquire(self, lane: Lane, **_: object) -> Permit:
        await self.gate.wait()
        return Permit(lane.name, 1, 10, 0, 0, 0)

    def settle(self, permit: Permit, *, status: str, **_: object) -> None:
        self.settled.append((permit.lane, status))


async def test_of_two_permits_one_goes_back() -> None:
    """Whoever is let through twice uses one permit and returns the other, unsent."""
    limiter = TwoAtOnce()
    lines = [Line(Endpoint(url=f"http://{name}", model="m"), Lane(name=name), None) for name in ("a", "b")]
    pool = Pool(lines, cast("Limiter", limiter))
    asked = asyncio.create_task(pool.acquire(tokens=10, run=1, started=True))
    await asyncio.sleep(0.05)
    limiter.gate.set()
    granted = await asked
    await until(lambda: bool(limiter.settled))
    other = {"a": "b", "b": "a"}[granted.line.lane.name]
    assert limiter.settled == [(other, "unsent")]


def used(lanes: Any) -> int:
    return sum(lane.requests.used for lane in lanes.values())


def busy(lanes: Any) -> bool:
    return any(lane.in_flight or lane.waiting for lane in lanes.values())


async def lanes_when(url: str, condition: Callable[[Any], bool]) -> Any:
    """The lanes, once they are as they should be."""
    client = redis.asyncio.Redis.from_url(url)
    lanes: Any = {}
    for _ in range(600):
        lanes = await read_lanes(client, "t:")
        if condition(lanes):
            break
        await asyncio.sleep(0.05)
    await client.aclose()
    assert condition(lanes), lanes
    return lanes


async def test_a_stop_frees_those_who_wait_at_several_servers(ledger: Ledger, redis_server: RedisServer) -> None:
    """Calls in flight are committed, those that wait are given up, and no row stays claimed."""
    async with AsyncExitStack() as stack:
        servers, gate = Servers(stack), asyncio.Event()

        async def respond() -> web.Response:
            await gate.wait()
            return answer()

        await servers.add("a", respond, concurrency=1)
        await servers.add("b", respond, concurrency=1)
        async with calling(ledger, servers.settings(), redis_server.url) as bench:
            asked = [asyncio.create_task(bench.ask(f"question {n}")) for n in range(10)]
            await until(lambda: servers.received.total() == 2 and len(bench.calls()) == 10)
            stopping = asyncio.create_task(bench.caller.stop())
            await until(lambda: sum(task.done() for task in asked) == 8)
            gate.set()
            await stopping
            ended = await asyncio.gather(*asked, return_exceptions=True)
            assert sum(not isinstance(one, BaseException) for one in ended) == servers.received.total() == 2
            assert Counter(row.state for row in bench.calls()) == {"done": 2, "unknown": 8}
            assert bench.reserved() == (0, 0)


async def test_the_dearest_server_is_what_a_call_may_cost(ledger: Ledger, redis_server: RedisServer) -> None:
    """Money is reserved for the dearest and settled by the price of who answered."""
    async with AsyncExitStack() as stack:
        servers = Servers(stack)
        await servers.add("cheap", servers.answer_after(1), price=Price(input=1, output=1), concurrency=5)
        await servers.add("dear", servers.answer_after(1), price=Price(input=10, output=10), concurrency=5)
        async with calling(ledger, servers.settings(), redis_server.url) as bench:
            await ask_many(bench, 20)
            cost = {row.server: row.cost for row in bench.calls()}
        assert cost == {"cheap": 15, "dear": 150}  # 10 prompt and 5 completion tokens


def test_a_pool_is_of_one_model(tmp_path: Path) -> None:
    """Equal names with differing models, or without a way to tell the servers apart, are refused in one line."""
    here = {"url": "http://a/v1", "model": "m"}
    with pytest.raises(UsageError, match="are a pool, of one model"):
        load_settings({"judge": {"endpoints": [here, {"url": "http://b/v1", "model": "other"}]}}, env={})
    with pytest.raises(UsageError, match="share a host: tell them apart by `server`"):
        load_settings({"judge": {"endpoints": [here, here]}}, env={})
    apart = load_settings({"judge": {"endpoints": [here, {**here, "server": "second"}]}}, env={})
    assert [endpoint.host for endpoint in apart.pool("judge", "default")] == ["a", "second"]


def test_a_run_knows_the_pool_and_not_its_servers() -> None:
    """A server more changes nothing that is frozen."""
    one = [{"url": "http://a/v1", "model": "m", "name": "pool"}]
    two = [*one, {"url": "http://user:secret@b:8000/v1", "model": "m", "name": "pool"}]
    configs = [
        snapshot_config(Settings.model_validate({"judge": {"endpoints": some}}), train=False) for some in (one, two)
    ]
    assert configs[0] == configs[1]
    settings = Settings.model_validate({"judge": {"endpoints": two}})
    lanes = [settings.lane("judge", endpoint) for endpoint in settings.pool("judge", "pool")]
    assert lanes == ["judge.pool.m@a", "judge.pool.m@b:8000"]
