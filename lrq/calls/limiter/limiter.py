"""The limiter of one process: permits for calls, under limits that hold over all processes and machines."""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any

import orjson
from redis.asyncio import Redis
from redis.exceptions import RedisError

from lrq.calls.limiter.gate import QUIET, Gate
from lrq.calls.limiter.records import Lane, LaneView, Outcome, Permit, read_view
from lrq.calls.limiter.script import keys_of, lanes_key, script_text
from lrq.calls.limiter.waiting import Waiter
from lrq.domain.errors import Stopping

log = logging.getLogger(__name__)

WINDOW = 60.0  # seconds: what "a minute" is in requests and tokens a minute
SLACK = 1.0  # seconds by which calls may differ in their way from grant to server: 1.7 % of the window
_SPACING = 0.025  # seconds between two polls of a lane at least: calls that come meanwhile share one
_PATIENCE = 2.0  # seconds for one poll
_WARN_EVERY = 60.0  # seconds
_LONGEST_BACKOFF = 1.0  # seconds between tries while Redis is away

_Poll = Callable[[Lane, dict[str, Any]], Awaitable[Any]]


class _Attendant:
    """Polls for one gate, as often as it needs and no oftener."""

    def __init__(self, gate: Gate, poll: _Poll) -> None:
        self.gate = gate
        self.lane: Lane | None = None  # as the settings have it
        self._poll = poll
        self._loop = asyncio.get_running_loop()
        self._due = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._polled = 0.0
        self._tries = 0  # that failed in a row
        self._warned = -_WARN_EVERY
        self._closing = False
        self.task = self._loop.create_task(self._attend())

    def nudge(self, delay: float = 0.0) -> None:
        """Poll in `delay` seconds, unless an earlier poll is due anyway."""
        when = max(self._loop.time() + delay, self._polled + _SPACING)
        if self._timer is not None:
            if self._timer.when() <= when:
                return
            self._timer.cancel()
        self._timer = self._loop.call_at(when, self._due.set)

    def let_through(self) -> None:
        if self.gate.let_through(self._loop.time()):
            self.nudge()

    async def close(self) -> None:
        """Stop after one last poll. By a flag: redis-py 8 on Python 3.11 now and then swallows a cancellation."""
        self._closing = True
        self._due.set()
        await self.task

    async def _attend(self) -> None:
        while True:
            await self._due.wait()
            self._due.clear()
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            last = self._closing
            await self._ask()
            if last:
                return
            delay = self.gate.next_poll()
            if self._tries:
                self.nudge(min(_LONGEST_BACKOFF, 0.05 * 2.0**self._tries) * random.uniform(0.5, 1))
            elif delay is not None:
                self.nudge(delay * random.uniform(1, 1.1))

    async def _ask(self) -> None:
        ask = self.gate.ask(self._loop.time())
        try:
            async with asyncio.timeout(_PATIENCE):
                reply = orjson.loads(await self._poll(self.gate.lane, ask))
        except (RedisError, OSError, TimeoutError) as error:
            self._lose(error)
        except Exception as error:  # whatever it is: without this task no call of the lane would move any more
            log.exception("The limiter stumbled and goes on")
            self._lose(error)
        else:
            self._tries = 0
            self.gate.heed(reply, self._loop.time())
            self.gate.let_through(self._loop.time())
        self._polled = self._loop.time()

    def _lose(self, error: Exception) -> None:
        self.gate.lose()
        self._tries += 1
        if self._loop.time() >= self._warned + _WARN_EVERY:
            self._warned = self._loop.time()
            problem = f"{type(error).__name__}: {error}"[:200]
            log.warning("The limiter gets no answer from Redis (%s); calls wait.", problem, extra={"error": problem})


class Limiter:
    """Gives leave to send calls; one per process and event loop.

    Requests, tokens and concurrency are taken together in one script in Redis, by its clock. Who must wait waits.
    While Redis is away nothing is granted.

    Args:
        redis: where the limits are kept; its server must be 6.2 or newer, or Valkey.
        prefix: set before every key.
        owner: this process's own name; its calls in flight are forgotten 12 s after it fell silent.
        window: seconds over which limits count; only tests shorten it.
        slack: seconds by which calls may differ in their way from the grant to the server.
    """

    def __init__(self, redis: Redis, prefix: str, *, owner: str, window: float = WINDOW, slack: float = SLACK) -> None:
        self._script = redis.register_script(script_text())
        self._prefix = prefix
        self._constants = {"owner": owner, "window": window, "slack": slack}
        self._attendants: dict[str, _Attendant] = {}
        self._overrides: Mapping[str, Mapping[str, int]] = {}
        self._closed = False

    def override(self, limits: Mapping[str, Mapping[str, int]]) -> None:
        """Let other `limits` than the settings' hold: lane → any of `rpm`, `tpm` and `concurrency`.

        They replace those of an earlier call; a lane that is left out has the settings' again.
        """
        if limits == self._overrides:
            return
        self._overrides = limits
        for attendant in self._attendants.values():
            if attendant.lane is not None:
                attendant.gate.lane = self._in_force(attendant.lane)
                attendant.nudge()

    async def acquire(self, lane: Lane, *, tokens: int, run: int, started: bool) -> Permit:
        """Wait for leave to send one call now.

        Args:
            tokens: the number expected, prompt and completion.
            run: whom the call is for; runs that wait get equal shares.
            started: the call's item has been worked on before; it goes before those of its run that have not.

        Raises Stopping when the limiter is closed.
        """
        if self._closed:
            raise Stopping
        attendant = self._attendant(lane)
        gate = attendant.gate
        held_up = gate.is_held_up
        waiter = Waiter(run, started, max(0, tokens), asyncio.get_running_loop().create_future())
        gate.join(waiter)
        if not held_up:
            attendant.let_through()
            if not waiter.future.done():
                attendant.nudge()
        try:
            return await waiter.future
        except asyncio.CancelledError:
            if not gate.waiting.remove(waiter) and waiter.permit:
                self.settle(waiter.permit, tokens=0, status="unsent", headers={}, latency=0.0)
            attendant.nudge(QUIET)  # what was granted for it is given back with the next poll
            raise

    def settle(
        self,
        permit: Permit,
        *,
        tokens: int | None,
        status: Outcome,
        headers: Mapping[str, str],
        latency: float,
        retry_after: float | None = None,
    ) -> None:
        """Give back a permit and say what came of it. Never blocks; a second time does nothing.

        Args:
            tokens: what the server counted; None: unknown, the expected number stays charged.
            headers: of the reply, names in any case if the mapping allows it, else in lower case.
            latency: seconds from the request to the end of the reply.
            retry_after: seconds the server asked us to wait.
        """
        if permit.settled:
            return
        attendant = self._attendants[permit.lane]
        attendant.gate.settle(
            permit, tokens=tokens, status=status, headers=headers, latency=latency, retry_after=retry_after
        )
        if status in ("throttled", "failed"):
            attendant.nudge()
        else:
            attendant.let_through()
            attendant.nudge(QUIET)

    async def close(self) -> None:
        """Raise Stopping in who waits, and report what is settled."""
        self._closed = True
        for attendant in self._attendants.values():
            for waiter in attendant.gate.waiting.all():
                attendant.gate.waiting.remove(waiter)
                if not waiter.future.done():
                    waiter.future.set_exception(Stopping())
        await asyncio.gather(*(attendant.close() for attendant in self._attendants.values()))

    @property
    def in_flight(self) -> int:
        """Count this process's calls in flight; from any thread."""
        return sum(attendant.gate.in_flight for attendant in tuple(self._attendants.values()))

    def view(self) -> dict[str, LaneView]:
        """Return the lanes this process uses, by name, as its last poll of each saw them; none before the first."""
        views = (attendant.gate.view for attendant in self._attendants.values())
        return {view.name: view for view in views if view is not None}

    def is_failing(self, lane: Lane) -> bool:
        """Say whether the `lane` only fails and is being probed.

        One more failure then says nothing about the call that met it.
        """
        attendant = self._attendants.get(lane.name)
        return bool(attendant and attendant.gate.view and attendant.gate.view.probing)

    def _attendant(self, lane: Lane) -> _Attendant:
        attendant = self._attendants.get(lane.name)
        if attendant is None:
            attendant = self._attendants[lane.name] = _Attendant(Gate(lane), self._ask)
        if attendant.lane is not lane:
            attendant.lane, attendant.gate.lane = lane, self._in_force(lane)
        return attendant

    def _in_force(self, lane: Lane) -> Lane:
        changed = self._overrides.get(lane.name)
        return replace(lane, limits=replace(lane.limits, **changed)) if changed else lane

    async def _ask(self, lane: Lane, ask: dict[str, Any]) -> Any:
        return await self._script(keys=keys_of(self._prefix, lane.name), args=[orjson.dumps(self._constants | ask)])


async def read_lanes(redis: Redis, prefix: str, *, window: float = WINDOW, slack: float = SLACK) -> dict[str, LaneView]:
    """Return all lanes used within a day, by name, as they stand now: for processes that make no calls themselves.

    `prefix`, `window` and `slack` are those of the Limiter. Raises redis.exceptions.RedisError when Redis does not
    answer.
    """
    script = redis.register_script(script_text())
    ask = {"look": True, "owner": "", "window": window, "slack": slack, "in_flight": 0, "waiting": 0, "wants": []}
    lanes = {}
    for raw in await redis.smembers(lanes_key(prefix)):
        name = raw.decode() if isinstance(raw, bytes) else str(raw)
        view = await script(keys=keys_of(prefix, name), args=[orjson.dumps(ask)])
        if view:
            lanes[name] = read_view(name, orjson.loads(view))
    return lanes
