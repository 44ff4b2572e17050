"""The servers that may answer a call: one, or a pool of them, among which the first that has room does."""

import asyncio
import time
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

from lrq.calls.estimates import at_most
from lrq.calls.forms import PLAIN, Form
from lrq.calls.limiter import Lane, Limiter, Limits, Permit
from lrq.calls.prices import Rates, rates_of
from lrq.config import Endpoint, Price, Settings
from lrq.domain.errors import LrqError
from lrq.domain.records import Call, Usage
from lrq.ledger.money import Bound

_Acquire = Callable[[Lane], Coroutine[Any, Any, Permit]]
_SHUT_SECONDS = 300.0  # how long a server that refuses our account is passed over while others answer


@dataclass(frozen=True)
class Line:
    """A server with what is derived from it once."""

    endpoint: Endpoint
    lane: Lane
    rates: Rates | None

    @cached_property
    def host(self) -> str:
        return self.endpoint.host


@dataclass(frozen=True)
class Granted:
    """Leave to send one call to one server now."""

    line: Line
    permit: Permit
    form: Form = PLAIN  # of the request


Forms = Mapping[str, Form]  # lane → how its server is to be asked


class Pool:
    """Endpoints of one name."""

    def __init__(self, lines: Sequence[Line], limiter: Limiter) -> None:
        self.lines = lines
        self._limiter = limiter
        self._turn = 0
        self._shut: dict[str, float] = {}  # lane → until when
        self._has_cached = False

    @property
    def caches(self) -> bool:
        """Say whether calls that begin alike are likely to be cheaper one after the other.

        What the settings say (`warm_cache`) goes before prices, and these before what servers have counted.
        """
        settings = [line.endpoint.warm_cache for line in self.lines if line.endpoint.warm_cache is not None]
        discount = any(line.rates.cached < line.rates.input for line in self.lines if line.rates)
        return any(settings) if settings else discount or self._has_cached

    def learn(self, usage: Usage) -> None:
        """Learn from the `usage` that a server counted: one that names cached tokens has a cache."""
        self._has_cached = self._has_cached or usage.cached_tokens > 0

    def bound(self, call: Call, forms: Forms | None = None) -> Bound:
        """Return what a call may cost at most, whoever answers; `forms`: how each server is asked, by lane.

        Where one of the servers has no known price, the bound has none: it may be the one that answers.
        """
        bounds = [bound(call, line.rates, (forms or {}).get(line.lane.name, PLAIN)) for line in self.lines]
        return bounds[0] if len(bounds) == 1 else min(bounds, key=lambda each: (each.is_known, -each.cost))

    async def acquire(self, *, tokens: int, run: int, started: bool, failed_at: Collection[str] = ()) -> Granted:
        """Wait until one of the servers has room.

        Args:
            tokens: the number expected, prompt and completion.
            run: whom the call is for.
            started: its item has been worked on before.
            failed_at: lanes at which the call has failed: the last resort.

        Raises Stopping when the limiter is closed.
        """
        acquire = partial(self._limiter.acquire, tokens=tokens, run=run, started=started)
        candidates = self._candidates(failed_at)
        if len(candidates) == 1:
            return Granted(candidates[0], await acquire(candidates[0].lane))
        return await self._race(candidates, acquire)

    async def _race(
        self, candidates: Sequence[Line], acquire: Callable[[Lane], Coroutine[Any, Any, Permit]]
    ) -> Granted:
        waits: dict[asyncio.Task[Permit], Line] = {}
        first: asyncio.Task[Permit] | None = None
        try:
            for line in candidates:
                waits[asyncio.create_task(acquire(line.lane))] = line
                await asyncio.sleep(0)  # a server with room lets it through at once
                if any(task.done() for task in waits):
                    break
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            first = next(task for task in waits if task.done())
            return Granted(waits[first], first.result())
        finally:
            for task in waits:
                if task is not first:
                    task.add_done_callback(self._give_back)
                    task.cancel()

    def has_others(self, failed_at: Collection[str]) -> bool:
        """Say whether there is a server besides the lanes of `failed_at`, at which the call has not failed."""
        return any(line.lane.name not in failed_at for line in self._open())

    def shut(self, line: Line) -> bool:
        """Pass a server over, for five minutes, that refuses our account.

        False if no other is left, and all are tried again.
        """
        self._shut[line.lane.name] = time.monotonic() + _SHUT_SECONDS
        if self._open():
            return True
        self._shut.clear()
        return False

    def _open(self) -> list[Line]:
        now = time.monotonic()
        return [line for line in self.lines if self._shut.get(line.lane.name, 0.0) <= now]

    def _candidates(self, failed_at: Collection[str]) -> list[Line]:
        """Return the servers to try: every call begins with another, so that those that are free share the work."""
        lines = self._open() or list(self.lines)
        lines = [line for line in lines if line.lane.name not in failed_at] or lines
        self._turn += 1
        start = self._turn % len(lines)
        return lines[start:] + lines[:start]

    def _give_back(self, task: "asyncio.Task[Permit]") -> None:
        """Give back what was let through all the same, in the same moment as the first."""
        if not task.cancelled() and task.exception() is None:
            self._limiter.settle(task.result(), tokens=0, status="unsent", headers={}, latency=0.0)


def open_pool(settings: Settings, call: Call, limiter: Limiter, price: Price | None = None) -> Pool:
    """Return the pool that a call names; `price` holds where the settings tell none.

    Servers are asked for the model of the `call`, with which the run was frozen, whatever the settings say by now.
    Raises LrqError where they have no pool of that name.
    """
    endpoints = settings.pool(call.role, call.endpoint)
    if not endpoints:
        raise LrqError(f"no {call.role} endpoint named {call.endpoint!r} in this worker's settings; name it there")
    lines = []
    for endpoint in endpoints:
        limits = Limits(rpm=endpoint.rpm, tpm=endpoint.tpm, concurrency=endpoint.concurrency)
        lane = Lane(name=settings.lane(call.role, endpoint, call.model), limits=limits)
        # The run's model, whatever is set by now.
        rates = rates_of(endpoint.model_copy(update={"model": call.model, "price": endpoint.price or price}))
        lines.append(Line(endpoint, lane, rates))
    return Pool(lines, limiter)


def bound(call: Call, rates: Rates | None, form: Form = PLAIN) -> Bound:
    """Return what a call in this `form` may cost at most at a server of these `rates`; None: its tokens alone."""
    most = at_most(call, form)
    cost = 0 if rates is None else rates.bound(most.prompt_tokens, most.completion_tokens)
    return Bound(
        cost=cost,
        tokens=most.prompt_tokens + most.completion_tokens,
        is_known=rates is not None,
    )
