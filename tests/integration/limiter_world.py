"""A world in virtual time around the limiter's real script and gates: processes, a network, and a strict server."""

import asyncio
import heapq
import random
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import orjson
import redis

from lrq.calls.limiter.gate import Gate
from lrq.calls.limiter.limiter import SLACK, WINDOW
from lrq.calls.limiter.records import Lane, Limits, Permit
from lrq.calls.limiter.script import keys_of, script_text
from lrq.calls.limiter.waiting import Waiter

SPACING = 0.025
NO_LIMITS = Limits()


class World:
    """Virtual time: events run in order, and nothing waits."""

    def __init__(self, url: str, *, seed: int = 0, window: float = WINDOW, slack: float = SLACK) -> None:
        self.redis = redis.Redis.from_url(url)
        self.script = self.redis.register_script(script_text())
        self.constants = {"window": window, "slack": slack}
        self.random = random.Random(seed)
        self.now = 1_000_000.0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = count()

    def after(self, seconds: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self.now + seconds, next(self._numbers), act))

    def run(self, seconds: float) -> None:
        until = self.now + seconds
        while self._events and self._events[0][0] <= until:
            self.now, _, act = heapq.heappop(self._events)
            act()
        self.now = until

    def poll(self, owner: str, gate: Gate) -> None:
        ask = self.constants | {"owner": owner, "now": self.now} | gate.ask(self.now)
        reply = self.script(keys=keys_of("w", gate.lane.name), args=[orjson.dumps(ask)])
        gate.heed(orjson.loads(reply), self.now)

    def close(self) -> None:
        self.redis.close()


@dataclass
class Reply:
    """What the server says, and when."""

    status: str
    latency: float
    headers: Mapping[str, str] = field(default_factory=dict)
    retry_after: float | None = None


@dataclass
class Server:
    """A server with a strict sliding log: of any 60 s it never accepts more than its limits."""

    world: World
    requests: float = float("inf")
    tokens: float = float("inf")
    slots: int = 10**9  # calls it works on at once; the others queue
    latency: float = 0.3
    with_headers: bool = False
    retry_after: bool = True
    window: float = 60.0
    is_down: bool = False
    log: deque[tuple[float, int]] = field(default_factory=deque)
    in_log: int = 0
    arrived: list[tuple[float, int, bool]] = field(default_factory=list)  # when, which run, accepted?
    working: int = 0
    most_working: int = 0
    free_at: list[float] = field(default_factory=list)

    def answer(self, run: int, tokens: int) -> Reply:
        now = self.world.now
        while self.log and self.log[0][0] <= now - self.window:
            self.in_log -= self.log.popleft()[1]
        accepted = not self.is_down and len(self.log) + 1 <= self.requests and self.in_log + tokens <= self.tokens
        self.arrived.append((now, run, accepted))
        if self.is_down:
            return Reply("failed", 0.01)
        if not accepted:
            return Reply("throttled", 0.01, self._headers(), self._room_for(tokens) if self.retry_after else None)
        self.log.append((now, tokens))
        self.in_log += tokens
        return Reply("ok", self._work(), self._headers())

    def _work(self) -> float:
        """Seconds until a reply: those it takes, and those it waits for a slot."""
        now = self.world.now
        while self.free_at and self.free_at[0] <= now:
            heapq.heappop(self.free_at)
        begin = now if len(self.free_at) < self.slots else heapq.heappop(self.free_at)
        end = begin + self.latency * self.world.random.uniform(0.8, 1.2)
        heapq.heappush(self.free_at, end)
        return end - now

    def _room_for(self, tokens: int) -> float:
        excess = self.in_log + tokens - self.tokens
        for index, (when, amount) in enumerate(self.log):
            excess -= amount
            if excess <= 0 and len(self.log) - index - 1 < self.requests:
                return when + self.window - self.world.now
        return self.window

    def _headers(self) -> dict[str, str]:
        if not self.with_headers:
            return {}
        said = {"requests": (self.requests, len(self.log)), "tokens": (self.tokens, self.in_log)}
        headers = {}
        for kind, (limit, used) in said.items():
            if limit < float("inf"):
                headers[f"x-ratelimit-limit-{kind}"] = str(int(limit))
                headers[f"x-ratelimit-remaining-{kind}"] = str(int(limit - used))
                headers[f"x-ratelimit-reset-{kind}"] = "1s"
        return headers

    def accepted(self, begin: float = 0.0, end: float = float("inf")) -> int:
        return sum(ok for when, _, ok in self.arrived if begin <= when < end)

    def refused(self, begin: float = 0.0, end: float = float("inf")) -> int:
        return sum(not ok for when, _, ok in self.arrived if begin <= when < end)

    def shares(self, begin: float, end: float) -> Counter[int]:
        return Counter(run for when, run, ok in self.arrived if ok and begin <= when < end)


class Process:
    """One process with calls that wait; it polls as the limiter's attendant does."""

    def __init__(
        self,
        world: World,
        server: Server,
        name: str,
        *,
        backlog: Mapping[int, int],
        limits: Limits = NO_LIMITS,
        tokens: Callable[[], int] = lambda: 1000,
        guess: Callable[[int], int] = lambda tokens: tokens,
        way: float = 0.02,
    ) -> None:
        self.world, self.server, self.name = world, server, name
        self.gate = Gate(Lane(name="lane", limits=limits))
        self.backlog = dict(backlog)  # calls of each run that wait at all times
        self.tokens, self.guess, self.way = tokens, guess, way
        self.is_dead = False
        self.most_in_flight = 0
        self._due = float("inf")
        self._polled = 0.0
        self._waiters: dict[Waiter, int] = {}
        for run, waiting in self.backlog.items():
            for _ in range(waiting):
                self.add(run)
        self.nudge(world.random.random() * 0.1)

    def add(self, run: int, *, started: bool = False) -> Waiter:
        tokens = self.tokens()
        waiter = Waiter(run, started, self.guess(tokens), asyncio.get_running_loop().create_future())
        self._waiters[waiter] = tokens
        self.gate.join(waiter)
        return waiter

    def arrived(self) -> None:
        """What the limiter does when a call begins to wait."""
        if not self.gate.is_held_up:
            if self.gate.let_through(self.world.now):
                self.nudge()
            self._send()

    def nudge(self, delay: float = 0.0) -> None:
        when = max(self.world.now + delay, self._polled + SPACING)
        if when < self._due:
            self._due = when
            self.world.after(when - self.world.now, lambda: self._wake(when))

    def _wake(self, when: float) -> None:
        if self.is_dead or when != self._due:
            return
        self._due = float("inf")
        self._polled = self.world.now
        self.world.poll(self.name, self.gate)
        self.gate.let_through(self.world.now)
        self._send()
        delay = self.gate.next_poll()
        if delay is not None:
            self.nudge(delay * self.world.random.uniform(1, 1.1))

    def _send(self) -> None:
        for waiter in [waiter for waiter in self._waiters if waiter.permit]:
            tokens = self._waiters.pop(waiter)
            delay = self.world.random.random() * self.way
            self.world.after(delay, lambda waiter=waiter, tokens=tokens: self._arrive(waiter, tokens))
            if waiter.run in self.backlog:
                self.add(waiter.run)
        self.most_in_flight = max(self.most_in_flight, self.gate.in_flight)

    def _arrive(self, waiter: Waiter, tokens: int) -> None:
        if self.is_dead:
            return
        permit: Any = waiter.permit
        reply = self.server.answer(waiter.run, tokens)
        self.world.after(reply.latency, lambda: self._settle(permit, tokens, reply))

    def _settle(self, permit: Permit, tokens: int, reply: Reply) -> None:
        if self.is_dead:
            return
        status: Any = reply.status
        self.gate.settle(
            permit,
            tokens=tokens if status == "ok" else None,
            status=status,
            headers=reply.headers,
            latency=reply.latency,
            retry_after=reply.retry_after,
        )
        if status in ("throttled", "failed"):
            self.nudge()
        else:
            if self.gate.let_through(self.world.now):
                self.nudge()
            self._send()
            self.nudge(0.1)
