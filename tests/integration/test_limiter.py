"""The limiter's client against a real Redis, in real time; counts only."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest
from calling import until
from redis.asyncio import Redis

from lrq.calls.limiter import Lane, LaneView, Limiter, Limits, Permit, read_lanes
from lrq.calls.limiter.gate import Gate
from lrq.calls.limiter.waiting import Waiter
from lrq.domain.errors import Stopping

WINDOW, SLACK = 2.0, 0.6


class Clients:
    """Limiters of several processes, as far as Redis can tell."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.redis: list[Redis] = []
        self.limiters: list[Limiter] = []

    def limiter(self) -> Limiter:
        client = Redis.from_url(self.url)
        limiter = Limiter(client, "t", owner=f"process{len(self.redis)}", window=WINDOW, slack=SLACK)
        self.redis.append(client)
        self.limiters.append(limiter)
        return limiter

    async def close(self) -> None:
        for limiter in self.limiters:
            await limiter.close()
        for client in self.redis:
            await client.aclose()


@pytest.fixture
async def clients(redis_server: Any, caplog: pytest.LogCaptureFixture) -> AsyncIterator[Clients]:
    clients = Clients(redis_server.url)
    yield clients
    await clients.close()
    assert "ResponseError" not in caplog.text  # the script never fails


async def call(limiter: Limiter, lane: Lane, *, run: int = 1, seconds: float = 0.0) -> Permit:
    permit = await limiter.acquire(lane, tokens=10, run=run, started=False)
    try:
        await asyncio.sleep(seconds)
    finally:
        limiter.settle(permit, tokens=10, status="ok", headers={}, latency=seconds)
    return permit


async def test_no_window_holds_more_than_the_limit_and_no_call_is_lost(
    clients: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three processes, forty calls each, thirty in any two seconds; all are let through in the end."""
    lane = Lane(name="lane", limits=Limits(rpm=30))
    begin = Gate._begin
    times: list[float] = []

    def timed(gate: Gate, waiter: Waiter) -> None:
        times.append(asyncio.get_running_loop().time())
        begin(gate, waiter)

    monkeypatch.setattr(Gate, "_begin", timed)  # here, and not where the call goes on: the loop may be late
    limiters = [clients.limiter() for _ in range(3)]
    await asyncio.gather(*(call(limiter, lane) for limiter in limiters for _ in range(40)))
    assert len(times) == 120
    times.sort()
    assert all(later - first > WINDOW for first, later in zip(times, times[30:], strict=False))


async def test_concurrency_holds_over_processes(clients: Clients) -> None:
    """Five slots over three processes: never six in flight, and every call is served."""
    lane = Lane(name="lane", limits=Limits(concurrency=5))
    in_flight, most, served = 0, 0, 0

    async def counted(limiter: Limiter) -> None:
        nonlocal in_flight, most, served
        permit = await limiter.acquire(lane, tokens=1, run=1, started=False)
        in_flight += 1
        most = max(most, in_flight)
        await asyncio.sleep(0.02)
        in_flight -= 1
        served += 1
        limiter.settle(permit, tokens=1, status="ok", headers={}, latency=0.02)

    await asyncio.gather(*(counted(limiter) for limiter in [clients.limiter() for _ in range(3)] for _ in range(40)))
    assert (most, served) == (5, 120)


async def test_runs_in_one_process_alternate(clients: Clients) -> None:
    """However long one run's line is, the other gets every second call."""
    limiter, lane = clients.limiter(), Lane(name="lane", limits=Limits(rpm=100))
    order: list[int] = []

    async def counted(run: int) -> None:
        await call(limiter, lane, run=run)
        order.append(run)

    tasks = [asyncio.create_task(counted(run)) for run in [1] * 60 + [2] * 20]
    await asyncio.gather(*tasks)
    assert 16 <= Counter(order[:40])[2] <= 20


async def test_cancelled_calls_leak_nothing(clients: Clients) -> None:
    """Half of the waiting calls are cancelled, at any moment; slots and rate are all there for the rest."""
    limiter, lane = clients.limiter(), Lane(name="lane", limits=Limits(concurrency=4))
    tasks = [asyncio.create_task(call(limiter, lane, seconds=0.005)) for _ in range(200)]
    cancelled = 0
    for task in tasks[::2]:
        await asyncio.sleep(0.002)
        cancelled += task.cancel()
    ended = await asyncio.gather(*tasks, return_exceptions=True)
    assert sum(isinstance(one, asyncio.CancelledError) for one in ended) == cancelled
    permits = [await limiter.acquire(lane, tokens=1, run=1, started=True) for _ in range(4)]
    assert len(permits) == 4
    for permit in permits:
        limiter.settle(permit, tokens=None, status="unsent", headers={}, latency=0)


async def test_a_permit_that_comes_with_the_cancellation_is_given_back(clients: Clients) -> None:
    """The permit is there, but its task is cancelled before it runs: the only slot is free again."""
    limiter, lane = clients.limiter(), Lane(name="lane", limits=Limits(concurrency=1, rpm=1000))
    first = await limiter.acquire(lane, tokens=1, run=1, started=True)
    gate = limiter._attendants["lane"].gate
    task = asyncio.create_task(limiter.acquire(lane, tokens=1, run=1, started=True))
    now = asyncio.get_running_loop().time
    await until(lambda: bool(gate.waiting) and gate._has_credit() and now() < gate._usable_until - 0.1, 20)
    (waiter,) = gate.waiting.all()
    limiter.settle(first, tokens=1, status="ok", headers={}, latency=0.1)
    assert waiter.permit
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert waiter.permit.settled
    assert gate.in_flight == 0


async def test_a_second_settling_changes_nothing(clients: Clients) -> None:
    """A permit given back twice frees one slot."""
    limiter, lane = clients.limiter(), Lane(name="lane", limits=Limits(concurrency=2))
    permits = [await limiter.acquire(lane, tokens=1, run=1, started=True) for _ in range(2)]
    for _ in range(2):
        limiter.settle(permits[0], tokens=1, status="ok", headers={}, latency=0.1)
    assert limiter._attendants["lane"].gate.in_flight == 1
    limiter.settle(permits[1], tokens=1, status="ok", headers={}, latency=0.1)


async def test_while_redis_is_away_nothing_is_granted(clients: Clients, redis_server: Any) -> None:
    """The server is killed and comes back empty: those who wait go on by themselves, and none before."""
    limiter, lane = clients.limiter(), Lane(name="lane", limits=Limits(concurrency=4))
    await call(limiter, lane)
    redis_server.kill()
    waiting = [asyncio.create_task(call(limiter, lane)) for _ in range(10)]
    await asyncio.sleep(0.6)
    assert not any(task.done() for task in waiting)
    redis_server.start()
    assert len(await asyncio.wait_for(asyncio.gather(*waiting), 20)) == 10


async def test_while_redis_hangs_nothing_is_granted(clients: Clients, redis_server: Any) -> None:
    """A server that takes requests and does not answer counts as away; a grant in hand does not outlive 250 ms."""
    limiter, lane = clients.limiter(), Lane(name="lane", limits=Limits(concurrency=2))
    granted = 0

    async def count() -> None:
        nonlocal granted
        await call(limiter, lane, seconds=0.01)
        granted += 1

    waiting = [asyncio.create_task(count()) for _ in range(300)]
    await asyncio.sleep(0.3)
    redis_server.freeze()
    try:
        await asyncio.sleep(1.0)
        before = granted
        await asyncio.sleep(0.5)
        assert granted == before
    finally:
        redis_server.thaw()
    await asyncio.wait_for(asyncio.gather(*waiting), 60)
    assert granted == 300


async def test_a_forgotten_script_is_sent_again(clients: Clients) -> None:
    """SCRIPT FLUSH, or a restart without it, is not noticed by callers."""
    limiter, lane = clients.limiter(), Lane(name="lane", limits=Limits(concurrency=4))
    await call(limiter, lane)
    await clients.redis[0].script_flush()
    assert await asyncio.wait_for(call(limiter, lane), 20)


async def test_closing_ends_the_waiting(clients: Clients) -> None:
    """Who waits gets Stopping, who comes later too, and the slots are free for others at once."""
    limiter, other = clients.limiter(), clients.limiter()
    lane = Lane(name="lane", limits=Limits(concurrency=1))
    permit = await limiter.acquire(lane, tokens=1, run=1, started=True)
    waiting = asyncio.create_task(limiter.acquire(lane, tokens=1, run=1, started=True))
    await asyncio.sleep(0.05)
    limiter.settle(permit, tokens=1, status="ok", headers={}, latency=0.1)
    await asyncio.sleep(0)
    if not waiting.done():
        await limiter.close()
        with pytest.raises(Stopping):
            await waiting
    else:
        limiter.settle(waiting.result(), tokens=1, status="ok", headers={}, latency=0.1)
        await limiter.close()
    with pytest.raises(Stopping):
        await limiter.acquire(lane, tokens=1, run=1, started=True)
    assert await asyncio.wait_for(call(other, lane), 20)


async def test_idle_processes_do_not_poll(clients: Clients) -> None:
    """After their calls are settled and reported, processes leave Redis alone."""
    lane = Lane(name="lane", limits=Limits(rpm=1000))
    for _ in range(5):
        await call(clients.limiter(), lane)
    for _ in range(20):
        before = await polls_of(clients.redis[0])
        await asyncio.sleep(1.0)
        after = await polls_of(clients.redis[0])
        if after == before:
            break
    assert after == before


async def polls_of(redis: Redis) -> int:
    return int((await redis.info("commandstats"))["cmdstat_evalsha"]["calls"])


async def test_a_lane_is_seen_by_those_who_make_no_calls(clients: Clients) -> None:
    """What is used, in flight and waiting can be read from Redis, as from the process itself."""
    limiter, lane = clients.limiter(), Lane(name="judge.main", limits=Limits(rpm=1000, concurrency=1))
    permit = await limiter.acquire(lane, tokens=25, run=1, started=True)
    waiting = asyncio.create_task(call(limiter, lane))
    for _ in range(400):
        seen = await lane_seen(clients.redis[0])
        if seen.in_flight and seen.waiting:
            break
        await asyncio.sleep(0.05)
    assert (seen.in_flight, seen.waiting, seen.concurrency, seen.probing) == (1, 1, 1, False)
    assert (seen.requests.limit, seen.tokens.limit) == (1000, None)
    assert 1 <= seen.requests.used <= 2  # one in flight, and one granted for when it ends
    await until(lambda: limiter.view()["judge.main"].in_flight == 1, 20)
    own = limiter.view()["judge.main"]
    assert (own.in_flight, own.waiting, own.concurrency) == (seen.in_flight, seen.waiting, seen.concurrency)
    limiter.settle(permit, tokens=25, status="ok", headers={}, latency=0.1)
    await waiting


async def lane_seen(redis: Redis) -> LaneView:
    return (await read_lanes(redis, "t", window=WINDOW, slack=SLACK))["judge.main"]
