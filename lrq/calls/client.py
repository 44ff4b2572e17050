"""Paid requests: each key is claimed, sent, settled; a reply is committed before anyone sees it."""

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

import sqlalchemy as sa

from lrq.calls import replies
from lrq.calls.estimates import Expectation
from lrq.calls.keys import call_key
from lrq.calls.limiter import Lane, Limiter, Limits, Permit
from lrq.calls.limiter import Outcome as LimiterOutcome
from lrq.calls.prices import Rates, rates_of
from lrq.calls.transport import Outcome, Transport
from lrq.config import Endpoint, Settings
from lrq.domain.errors import CallFailed, CallRefused, LrqError, RunHalted, Stopping
from lrq.domain.records import Call, Purpose, Reply
from lrq.ledger import Writer, runs
from lrq.ledger.calls import Claim, Claimed, ClaimResult, Ended, Fail, Known, Release, Reuse, Send, Settle
from lrq.ledger.engine import Ledger
from lrq.ledger.money import Bound, Held
from lrq.ledger.schema import runs as runs_table

_MOST_FAILURES = 8  # 5xx, timeouts, resets of one call; at 30 % faults seven calls in 100,000 reach it
_MOST_THROTTLED = 30  # 429s of one call: the limiter has slowed down long before
_FIRST_PAUSE = 0.5  # 0.5 s, 1 s, 2 s … 30 s, each times a random factor
_LONGEST_PAUSE = 30.0
_LONGEST_OBEYED = 300.0  # a Retry-After beyond this is bounded; the call is then tried again
_HELD_PAUSE = 0.2  # how often we look whether another process has the reply
_WATCH_EVERY = 1.0  # how often halted runs are looked for among waiting calls


@dataclass(frozen=True)
class _Line:
    """An endpoint with what is derived from it once."""

    endpoint: Endpoint
    lane: Lane
    rates: Rates | None


class _Tries:
    """How often one call may still fail, and how long to wait before the next delivery."""

    def __init__(self) -> None:
        self._failures = 0
        self._throttled = 0

    def pause(self, outcome: Outcome) -> float:
        """Seconds to wait. Raises CallFailed when the tries are used up."""
        if outcome.kind == "throttled":
            self._throttled += 1
        else:
            self._failures += 1
        if self._failures >= _MOST_FAILURES or self._throttled >= _MOST_THROTTLED:
            raise CallFailed(f"{outcome.reason} ({self._failures + self._throttled} tries)")
        if outcome.retry_after is not None:
            return min(outcome.retry_after, _LONGEST_OBEYED) + random.random() * 0.1
        tried = self._failures + self._throttled
        return min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0 ** (tried - 1)) * (0.5 + random.random() / 2)


class Caller:
    """Obtains replies: from the ledger, from whoever is asking already, or from the endpoint."""

    def __init__(
        self, settings: Settings, ledger: Ledger, writer: Writer, limiter: Limiter, transport: Transport, owner: str
    ) -> None:
        self._settings = settings
        self._ledger = ledger
        self._writer = writer
        self._limiter = limiter
        self._transport = transport
        self._owner = owner
        self._lines: dict[tuple[str, str, str], _Line] = {}
        self._pending: dict[str, asyncio.Task[Reply]] = {}
        self._waiting: dict[asyncio.Task[Any], int] = {}  # before the send: free to be cancelled; their runs
        self._stopping = False
        self._expectation = Expectation()
        self._watch = asyncio.create_task(self._watch_runs())
        self.settled: Callable[[Call, Purpose, Reply], None] | None = None  # told of every bought reply

    async def call(self, call: Call, purpose: Purpose) -> Reply:
        """The reply to this question; bought at most once, however many ask.

        Raises CallRefused, CallFailed, RunHalted or Stopping.
        """
        key = call_key(call)
        while True:
            pending = self._pending.get(key)
            if pending is None:
                return await asyncio.shield(self._begin(key, call, purpose))
            try:
                reply = await asyncio.shield(pending)
            except RunHalted:
                continue  # perhaps another run's: our own claim will tell
            await self._writer.write(self._reuse(call, purpose))
            return replace(reply, reused=True)

    async def stop(self) -> None:
        """Begin no further request; wait for those in flight to be committed."""
        self._stopping = True
        for task in list(self._waiting):
            task.cancel()
        await asyncio.gather(*self._pending.values(), return_exceptions=True)
        self._watch.cancel()

    def _begin(self, key: str, call: Call, purpose: Purpose) -> asyncio.Task[Reply]:
        task = asyncio.create_task(self._obtain(key, call, purpose))
        self._pending[key] = task
        task.add_done_callback(lambda done: self._ended(key, done))
        return task

    def _ended(self, key: str, task: asyncio.Task[Reply]) -> None:
        del self._pending[key]
        if not task.cancelled():
            task.exception()  # seen: whoever asked may have been cancelled

    async def _obtain(self, key: str, call: Call, purpose: Purpose) -> Reply:
        line = self._line(call)
        claim = Claim(key=key, call=call, purpose=purpose, owner=self._owner, bound=_bound(call, line.rates))
        tries = _Tries()
        while True:
            self._check_stopping()
            result: ClaimResult = await self._writer.write(claim)
            if isinstance(result, Known):
                await self._writer.write(self._reuse(call, purpose))
                return replies.decode(key, result, reused=True)
            if isinstance(result, Ended):
                raise (CallRefused if result.error == "refused" else CallFailed)(result.reason)
            if isinstance(result, Claimed):
                outcome = await self._deliver(result.id, key, line, call, purpose)
                if isinstance(outcome, Reply):
                    return replace(outcome, key=key)
                if outcome is not None:
                    await self._after_failure(result.id, outcome, tries, purpose)
            elif isinstance(result, Held):
                await self._pause(_HELD_PAUSE * (0.5 + random.random()), purpose)

    async def _deliver(self, id_: int, key: str, line: _Line, call: Call, purpose: Purpose) -> Reply | Outcome | None:
        """Send a claimed call once. None: it is no longer ours, or its run is halted."""
        tokens = self._expectation.tokens(call, purpose)
        try:
            permit = await self._cancellable(
                self._limiter.acquire(line.lane, tokens=tokens, run=purpose.run, started=purpose.started), purpose
            )
        except asyncio.CancelledError:
            await self._writer.write(Release(id=id_, owner=self._owner, unknown=False))
            return None
        if not await self._writer.write(Send(id=id_, owner=self._owner)):
            self._limiter.settle(permit, tokens=0, status="unsent", headers={}, latency=0.0, retry_after=None)
            await self._writer.write(Release(id=id_, owner=self._owner, unknown=False))
            return None
        outcome = await self._transport.post(line.endpoint, call, key)
        self._learn(permit, call, purpose, outcome)
        return outcome if outcome.kind != "ok" else await self._settle(id_, line, call, purpose, outcome)

    async def _settle(self, id_: int, line: _Line, call: Call, purpose: Purpose, outcome: Outcome) -> Reply:
        cost = None if line.rates is None else line.rates.cost(outcome.usage)
        await self._writer.write(
            Settle(
                id=id_,
                reply=replies.encode(outcome.choices, outcome.vectors),
                usage=outcome.usage,
                cost=cost,
                latency_ms=round(outcome.latency * 1000),
            )
        )
        reply = Reply(key="", choices=outcome.choices, vectors=outcome.vectors, usage=outcome.usage, cost_micros=cost)
        if self.settled:
            self.settled(call, purpose, reply)
        return reply

    async def _after_failure(self, id_: int, outcome: Outcome, tries: _Tries, purpose: Purpose) -> None:
        """Record a delivery that brought no reply and wait before the next. Raises where there is none."""
        if outcome.kind == "refused":
            await self._writer.write(
                Fail(id=id_, owner=self._owner, error="refused", reason=outcome.reason, unknown=False)
            )
            raise CallRefused(outcome.reason)
        if outcome.kind == "account":
            await self._writer.write(Release(id=id_, owner=self._owner, unknown=False))
            await self._halt(purpose.run, outcome.reason)
            raise RunHalted(outcome.reason)
        try:
            pause = tries.pause(outcome)
        except CallFailed as failed:
            await self._writer.write(
                Fail(id=id_, owner=self._owner, error="failed", reason=str(failed), unknown=outcome.unknown)
            )
            raise
        await self._writer.write(Release(id=id_, owner=self._owner, unknown=outcome.unknown))
        await self._pause(pause, purpose)

    async def _halt(self, run: int, reason: str) -> None:
        text = f"the account was refused: {reason}; mend it, then `lrq resume`"
        await self._writer.together(lambda conn: runs.halt(conn, run, state="paused", by="account", reason=text))

    async def _pause(self, seconds: float, purpose: Purpose) -> None:
        try:
            await self._cancellable(asyncio.sleep(seconds), purpose)
        except asyncio.CancelledError:
            self._check_stopping()  # else the run was halted: the next claim says so

    async def _cancellable(self, waiting: Any, purpose: Purpose) -> Any:
        """Await something that a stop, or the halt of its run, may cut short."""
        task = cast("asyncio.Task[Any]", asyncio.current_task())
        self._waiting[task] = purpose.run
        try:
            return await waiting
        finally:
            del self._waiting[task]

    def _check_stopping(self) -> None:
        if self._stopping:
            raise Stopping

    async def _watch_runs(self) -> None:
        """Wake the waiting calls of runs that were halted elsewhere."""
        while True:
            await asyncio.sleep(_WATCH_EVERY)
            waiting = set(self._waiting.values())
            if not waiting:
                continue
            halted = await self._writer.together(partial(_halted, runs_=waiting))
            for task in [task for task, run in self._waiting.items() if run in halted]:
                task.cancel()

    def _learn(self, permit: Permit, call: Call, purpose: Purpose, outcome: Outcome) -> None:
        counted = outcome.usage.prompt_tokens + outcome.usage.completion_tokens
        status: dict[str, LimiterOutcome] = {"ok": "ok", "throttled": "throttled", "failed": "failed"}
        self._limiter.settle(
            permit,
            tokens=counted or None,
            status=status.get(outcome.kind, "other"),
            headers=outcome.headers,
            latency=outcome.latency,
            retry_after=outcome.retry_after,
        )
        if outcome.kind == "ok":
            self._expectation.learn(call, purpose, outcome.usage)

    def _reuse(self, call: Call, purpose: Purpose) -> Reuse:
        return Reuse(purpose=purpose, role=call.role, endpoint=call.endpoint, model=call.model)

    def _line(self, call: Call) -> _Line:
        known = self._lines.get((call.role, call.endpoint, call.model))
        if known is None:
            endpoint = self._settings.endpoint(call.role, call.endpoint)
            if endpoint is None:
                raise LrqError(
                    f"no {call.role} endpoint named {call.endpoint!r} in this worker's settings; name it there"
                )
            limits = Limits(rpm=endpoint.rpm, tpm=endpoint.tpm, concurrency=endpoint.concurrency)
            lane = Lane(name=f"{call.role}.{call.endpoint}.{call.model}", limits=limits)
            known = _Line(endpoint=endpoint, lane=lane, rates=rates_of(endpoint))
            self._lines[call.role, call.endpoint, call.model] = known
        return known


def _halted(conn: sa.Connection, runs_: set[int]) -> set[int]:
    query = sa.select(runs_table.c.id).where(runs_table.c.id.in_(runs_), runs_table.c.state != "active")
    return set(conn.execute(query).scalars())


def _bound(call: Call, rates: Rates | None) -> Bound:
    """An upper bound: no tokenizer makes more tokens than there are bytes."""
    texts = [message["content"] for message in call.messages] + list(call.input)
    prompt = sum(len(text.encode()) + 64 for text in texts)  # 64: what a chat template adds to a message
    completion = (call.max_tokens or 0) * call.n
    return Bound(cost=0 if rates is None else rates.bound(prompt, completion), tokens=prompt + completion)
