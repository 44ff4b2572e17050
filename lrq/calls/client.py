"""Paid requests: each key is claimed, sent, settled; a reply is committed before anyone sees it."""

import asyncio
import itertools
import logging
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any, Literal, TypeVar, cast

from lrq.calls import replies
from lrq.calls.adapting import Adapting
from lrq.calls.breaker import Breaker, WarmUp, is_read
from lrq.calls.estimates import Expectation, counted
from lrq.calls.heads import Heads, Turn
from lrq.calls.keys import call_key
from lrq.calls.limiter import Limiter, Permit
from lrq.calls.limiter import Outcome as LimiterOutcome
from lrq.calls.observing import CallEvent, Observer
from lrq.calls.outcomes import Kind, Outcome
from lrq.calls.pool import Forms, Granted, Line, Pool, open_pool
from lrq.calls.standing import RECENTLY, Standing
from lrq.calls.transport import Transport
from lrq.calls.tries import Patience, Tries
from lrq.config import Price, Settings
from lrq.domain.errors import CallFailed, CallRefused, RunHalted, Stopping
from lrq.domain.records import Call, Purpose, Reply, Usage
from lrq.ledger import Writer, pauses, runs
from lrq.ledger.calls import CachedReply, Claim, Claimed, ClaimResult, Fail, PriorFailure, Release, Reuse, Send, Settle
from lrq.ledger.changes import limits_by_lane
from lrq.ledger.engine import Ledger
from lrq.ledger.learned import Fact, Keep, all_facts
from lrq.ledger.money import Charge, InFlightElsewhere
from lrq.ledger.runs import halted_runs
from lrq.ledger.writer import AWAY, InTransaction

T = TypeVar("T")

_AWAY_PAUSE = 1.0  # seconds after which a database that is away is asked again
_READ_EVERY = 5  # seconds after which it is read what others have learned of endpoints and which limits they set
_WATCH_EVERY = 1.0  # how often halted runs are looked for among waiting calls

log = logging.getLogger(__name__)


class Caller:
    """Obtains replies: from the ledger, from whoever is asking already, or from the endpoint."""

    def __init__(
        self,
        settings: Settings,
        ledger: Ledger,
        writer: Writer,
        limiter: Limiter,
        transport: Transport,
        owner: str,
        patience: Patience | None = None,
    ) -> None:
        self._settings = settings
        self._ledger = ledger
        self._writer = writer
        self._limiter = limiter
        self._transport = transport
        self._owner = owner
        self._patience = patience or Patience()
        self._pools: dict[tuple[str, str, str, Price | None], Pool] = {}
        self._heads = Heads()
        with ledger.read() as tx:
            self.adapting = Adapting(all_facts(tx))
        self._pending: dict[str, asyncio.Task[Reply]] = {}
        self._waiting: dict[asyncio.Task[Any], int] = {}  # before a send: free to be cut short; their runs
        self._cut: set[asyncio.Task[Any]] = set()  # those of them that were
        self._stopping = False
        self._expectation = Expectation()
        self._watch = asyncio.create_task(self._watch_runs())
        self.price: Callable[[Call, int], Price | None] = lambda _call, _run: None  # that a run was told
        self._failing: dict[str, str] = {}  # lane that only fails → how its last call did
        self._standings: defaultdict[str, Standing] = defaultdict(Standing)  # by lane
        self.breaker = Breaker(writer)
        self.observers: list[Observer] = []

    def use(self, settings: Settings) -> None:
        """Take the policy's endpoints from `settings` from now on. Call it from any thread."""
        self._settings = settings
        self._pools = {names: pool for names, pool in list(self._pools.items()) if names[0] != "policy"}

    async def call(self, call: Call, purpose: Purpose) -> Reply:
        """Return the reply to this question; bought at most once, however many ask.

        Args:
            call: the question, all of which its key depends on.
            purpose: the run and item that it is asked for; a run pays for what is not `reused`.

        Raises:
            CallRefused: no server takes this question.
            CallFailed: its tries are used up.
            RunHalted: its run is paused, or its budget is spent.
            Stopping: this process ends.
            LrqError: the settings do not name its endpoint.
        """
        key = call_key(call)
        while True:
            pending = self._pending.get(key)
            if pending is None or pending.done():  # done, and its end not yet noted: waiting for it would never yield
                return await asyncio.shield(self._begin(key, call, purpose))
            try:
                reply = await asyncio.shield(pending)
            except RunHalted:
                continue  # perhaps another run's: our own claim will tell
            await self._count_reuse(call, purpose)
            return replace(reply, reused=True)

    def waits_for(self) -> dict[str, str]:
        """Return lane → how its last call failed, of those that only fail while calls wait. Call it from any thread."""
        return dict(self._failing) if self._waiting else {}

    def load(self) -> tuple[int, int]:
        """Return `(under_way, in_flight)`: all calls begun, and those of them that servers have; from any thread."""
        return len(self._pending), self._limiter.in_flight

    async def stop(self) -> None:
        """Begin no further request; wait for those in flight to be committed."""
        self._stopping = True
        for task in list(self._waiting):
            self._interrupt(task)
        await asyncio.gather(*self._pending.values(), return_exceptions=True)
        self._watch.cancel()
        await asyncio.gather(self._watch, return_exceptions=True)

    def _begin(self, key: str, call: Call, purpose: Purpose) -> asyncio.Task[Reply]:
        task = asyncio.create_task(self._obtain(key, call, purpose))
        self._pending[key] = task
        task.add_done_callback(lambda done: self._ended(key, done))
        return task

    def _ended(self, key: str, task: asyncio.Task[Reply]) -> None:
        if self._pending.get(key) is task:
            del self._pending[key]
        if not task.cancelled():
            task.exception()  # seen: whoever asked may have been cancelled

    async def _obtain(self, key: str, call: Call, purpose: Purpose) -> Reply:
        pool = self._pool(call, purpose.run)
        tries = Tries(self._patience)
        while True:
            self._check_stopping()
            forms = self.adapting.forms(pool, call, purpose.kind)
            bound = pool.bound(call, forms)
            claim = Claim(key=key, call=call, purpose=purpose, owner=self._owner, bound=bound)
            try:
                result: ClaimResult = await self._writer.write(claim)
            except AWAY:
                await self._pause(_AWAY_PAUSE, purpose)
                continue
            if isinstance(result, CachedReply):
                await self._count_reuse(call, purpose)
                return replies.decode(key, result, reused=True)
            if isinstance(result, PriorFailure):
                raise (CallRefused if result.error == "refused" else CallFailed)(result.reason, is_new=False)
            if isinstance(result, Claimed):
                outcome = await self._deliver(result.id, claim, pool, forms, tries)
                if isinstance(outcome, Reply):
                    return outcome
                if outcome is not None:
                    await self._after_failure(result.id, outcome, pool, tries, call, purpose)
            elif isinstance(result, InFlightElsewhere):
                await self._pause(tries.look_again(), purpose)

    async def _deliver(self, id_: int, claim: Claim, pool: Pool, forms: Forms, tries: Tries) -> Reply | Outcome | None:
        """Send a claimed call once. None: it was not sent, for a stop or a halt, or it is no longer ours.

        Nor is it sent where its endpoint was learned to want another form while it waited: it is claimed anew.
        """
        call, purpose = claim.call, claim.purpose
        if too_long := self.adapting.too_long(pool, call, forms):
            return Outcome(kind="refused", reason=too_long)
        turn = self._heads.turn(call) if pool.caches else None
        lead = self.adapting.lead(pool, call, purpose.kind)
        warm_up = self.breaker.warm_up(call, purpose) if is_read(call, purpose) else WarmUp(is_proven=True)
        grant: Granted | None = None
        outcome: Reply | Outcome | None = None
        try:
            grant = await self._permit(pool, (lead, turn), warm_up, call, purpose, tries)
            is_stale = self.adapting.forms(pool, call, purpose.kind) != forms
            if grant is None or not await self._may_send(id_, grant.permit, tries, is_stale=is_stale):
                await self._writer.write_until_committed(Release(id=id_, owner=self._owner, unknown=False))
                return None
            grant = Granted(grant.line, grant.permit, forms[grant.line.lane.name])
            outcome = await self._send(id_, claim.key, pool, grant, call, purpose, tries)
        finally:
            if grant is not None:
                warm_up.leave()
            if turn is not None:
                turn.end(answered=isinstance(outcome, Reply))
            if lead is not None:  # a server that fails says nothing of its model, and is not waited for
                is_known = not self.adapting.is_unmeasured(pool, call, purpose.kind)
                lead.end(answered=is_known or (isinstance(outcome, Outcome) and outcome.kind != "adapted"))
            await self._keep_learned()
        if isinstance(outcome, Outcome) and outcome.kind != "adapted":
            tries.failed_at.add(grant.line.lane.name)
            if outcome.kind == "account" and pool.shut(grant.line):
                return replace(outcome, kind="failed")  # the pool's other servers may answer
            if outcome.kind == "failed" and self._limiter.is_failing(grant.line.lane):
                self._note_failing(grant.line.lane.name, outcome.reason)
                # A delivery that may have been charged counts as ever: probes are only to see who is there.
                is_probe = not (outcome.unknown or outcome.is_in_reply or outcome.charge)
                return replace(outcome, kind="probed") if is_probe else outcome  # the limiter spaces the next
        elif isinstance(outcome, Reply):
            self._failing.pop(grant.line.lane.name, None)
            await self.breaker.answered(call, purpose)
        return outcome

    def _is_adapted(self, granted: Granted, call: Call, purpose: Purpose, outcome: Outcome, tries: Tries) -> bool:
        endpoint, form = granted.line.endpoint, granted.form
        return self.adapting.refused(endpoint, call, purpose.kind, form, outcome) and tries.may_adapt()

    async def _keep_learned(self) -> None:
        """Write what calls have taught; a database that is away gets it with the next."""
        while self.adapting.new:
            fact = self.adapting.new.pop()
            try:
                await self._writer.write(Keep(fact=fact))
            except AWAY:
                self.adapting.new.append(fact)
                return

    def _note_failing(self, lane: str, reason: str) -> None:
        if lane not in self._failing:
            log.warning("%s only fails, and is tried by one call at a time: %s", lane, reason)
        self._failing[lane] = reason

    async def _permit(
        self, pool: Pool, turns: Sequence[Turn | None], warm_up: WarmUp, call: Call, purpose: Purpose, tries: Tries
    ) -> Granted | None:
        tokens = self._expectation.tokens(call, purpose)

        async def begin() -> Granted:
            for turn in turns:
                if turn is not None:
                    await turn.wait()
            await warm_up.enter()
            try:
                return await pool.acquire(
                    tokens=tokens, run=purpose.run, started=purpose.started, failed_at=tries.failed_at
                )
            except BaseException:
                warm_up.leave()
                raise

        try:
            return await self._interruptible(begin, purpose)
        except Stopping:
            self._stopping = True
            return None

    async def _may_send(self, id_: int, permit: Permit, tries: Tries, *, is_stale: bool) -> bool:
        """Mark the call as sent; where it shall not be sent, the permit goes back.

        Permits that grew old while the ledger was busy would all be used at once, beyond the limit they were given
        under: such a call asks for another.
        """
        granted_at = time.monotonic()
        may = False
        try:
            is_marked: bool = not is_stale and await self._writer.write(Send(id=id_, owner=self._owner))
            may = is_marked and not self._stopping and not tries.is_stale(time.monotonic() - granted_at)
        except AWAY:
            pass
        finally:
            if not may:
                self._limiter.settle(permit, tokens=0, status="unsent", headers={}, latency=0.0)
        return may

    async def _send(
        self, id_: int, key: str, pool: Pool, granted: Granted, call: Call, purpose: Purpose, tries: Tries
    ) -> Reply | Outcome | None:
        standing = self._standings[granted.line.lane.name]
        begun, kind = standing.begin(), "failed"
        try:
            outcome = await self._transport.post(granted.line.endpoint, call, key, granted.form)
            if outcome.kind != "ok" and self._is_adapted(granted, call, purpose, outcome, tries):
                outcome = replace(outcome, kind="adapted")
            if outcome.body is not None:
                outcome = replace(outcome, body=None)  # it has been read, and may be large
            kind = outcome.kind
        finally:
            standing.end(begun, kind=kind, item=purpose.item)
        throttled = tries.throttled + 1
        if kind == "throttled" and standing.is_never_taken(purpose.item, throttled):
            outcome = replace(outcome, kind="refused", reason=f"{outcome.reason} ({throttled} tries; others pass)")
        names_wait = outcome.retry_after is not None
        is_own = kind == "throttled" and standing.is_its_own(purpose.item, throttled, names_wait=names_wait)
        self._learn(granted.permit, call, purpose, outcome, is_own=is_own)
        pool.learn(outcome.usage)
        if outcome.kind == "denied":
            outcome = await self._blame(granted.line, standing, begun, call, purpose, outcome, tries)
        if outcome.kind != "ok":
            if outcome.kind != "adapted":
                failure = CallEvent(call=call, purpose=purpose, outcome="failed", reason=outcome.reason)
                what: Literal["throttled", "failed"] = "throttled" if kind == "throttled" else "failed"
                self._notify(replace(failure, outcome=what, latency=outcome.latency))
            return replace(outcome, charge=self._charge(granted, call, outcome))
        return await self._settle(id_, key, granted, call, purpose, outcome)

    async def _blame(
        self,
        line: Line,
        standing: Standing,
        begun: float,
        call: Call,
        purpose: Purpose,
        outcome: Outcome,
        tries: Tries,
    ) -> Outcome:
        """Decide whether a denial is the call's fault or the account's; still denied: it is to be asked once more."""
        while (kind := standing.blame(begun)) is None and standing.in_flight:
            if not await self._interruptible(standing.change, purpose):
                return outcome
        if kind is None and (standing.answered_lately() or await self._was_answered(line, call)):
            kind = "refused"
        if kind is None and len(self._pending) > 1 and tries.may_postpone():
            return outcome
        alone: Kind = "refused" if outcome.status == 400 else "account"  # the likelier, where nobody else has asked
        return replace(outcome, kind=kind or alone)

    async def _was_answered(self, line: Line, call: Call) -> bool:
        def look() -> bool:
            with self._ledger.read() as tx:
                return pauses.was_answered(tx, call, line.host, tx.now() - RECENTLY)

        try:
            return await asyncio.to_thread(look)
        except AWAY:
            return False

    def _charge(self, granted: Granted, call: Call, outcome: Outcome) -> Charge | None:
        """Return what an answer costs that is no reply; None where nothing of it can have been charged."""
        counts = outcome.usage.prompt_tokens or outcome.usage.completion_tokens
        if outcome.unread is None and not counts:
            return None
        usage = self._expectation.unread(call, outcome.usage, outcome.unread or 0, granted.form)
        rates = granted.line.rates
        return Charge(cost=0 if rates is None else rates.cost(usage), usage=usage)

    async def _settle(
        self, id_: int, key: str, granted: Granted, call: Call, purpose: Purpose, outcome: Outcome
    ) -> Reply | None:
        """Commit the reply; None: another process was thought dead and brought one, which stands."""
        line, form = granted.line, granted.form
        usage, note = counted(call, outcome.choices, outcome.usage, form)
        note = note or outcome.note
        self.adapting.answered(line.endpoint, call, purpose.kind, form, outcome)
        is_over = not note and self.adapting.overrun(line.endpoint, call, form, usage)
        cut = "" if note else self.adapting.cut_prompt(line.endpoint, call, usage)
        if is_over:
            note = "the server counted more tokens than could be foreseen"
        cost = None if line.rates is None else line.rates.cost(usage)
        reply = Reply(key=key, choices=outcome.choices, vectors=outcome.vectors, usage=usage, cost_micros=cost)
        is_kept: bool = await self._writer.write_until_committed(
            Settle(
                id=id_,
                reply=replies.encode(outcome.choices, outcome.vectors),
                usage=usage,
                cost=cost,
                latency_ms=round(outcome.latency * 1000),
                note=cut or note,
                server=line.host,
                saved=0 if line.rates is None else line.rates.saved(usage),
            )
        )
        self._notify(
            CallEvent(
                call=call, purpose=purpose, outcome="bought", usage=usage, cost_micros=cost, latency=outcome.latency
            )
        )
        if cut:
            await self._halt(purpose.run, cut)
        if is_over:
            await self._halt_capped(purpose.run, call, usage)
        return reply if is_kept else None

    async def _after_failure(
        self, id_: int, outcome: Outcome, pool: Pool, tries: Tries, call: Call, purpose: Purpose
    ) -> None:
        """Record a delivery that brought no reply and wait before the next. Raises where there is none."""
        fail = partial(Fail, id=id_, owner=self._owner, charge=outcome.charge)
        release = Release(id=id_, owner=self._owner, unknown=outcome.unknown, charge=outcome.charge)
        if outcome.kind == "adapted":
            await self._writer.write_until_committed(release)
            return
        if outcome.kind == "refused":
            await self._writer.write_until_committed(fail(error="refused", reason=outcome.reason, unknown=False))
            await self.breaker.failed(call, purpose, "refused", outcome.reason)
            raise CallRefused(outcome.reason)
        if outcome.kind == "account":
            await self._writer.write_until_committed(release)
            refusal = pauses.Refusal(call=call, purpose=purpose, reason=outcome.reason)
            raise RunHalted(
                await self._writer.write_until_committed(InTransaction(partial(pauses.pause, refusal=refusal)))
            )
        try:
            pause = tries.pause(outcome)
        except CallFailed as failed:
            await self._writer.write_until_committed(fail(error="failed", reason=str(failed), unknown=outcome.unknown))
            raise
        await self._writer.write_until_committed(release)
        if outcome.is_in_reply and outcome.kind == "failed":
            await self.breaker.failed(call, purpose, "error", outcome.reason)
        if not pool.has_others(tries.failed_at):
            tries.failed_at.clear()
            await self._pause(pause, purpose)

    async def _halt_capped(self, run: int, call: Call, usage: Usage) -> None:
        """Pause a run whose budget is no longer certain to hold: others in flight may cost more than is reserved."""
        counts = f"{usage.prompt_tokens:,} + {usage.completion_tokens:,}"
        reason = (
            f"the {call.role} counted more tokens than its budget had reserved for a call ({counts}); what was counted "
            "is charged, and from now on as much is reserved: `lrq resume` goes on, `lrq budget` raises the limit"
        )
        await self._writer.write_until_committed(InTransaction(partial(runs.halt_capped, run=run, reason=reason)))

    async def _halt(self, run: int, reason: str) -> None:
        halt = partial(runs.halt, run=run, state="paused", by="account", reason=reason)
        await self._writer.write_until_committed(InTransaction(halt))

    async def _pause(self, seconds: float, purpose: Purpose) -> None:
        await self._interruptible(partial(asyncio.sleep, seconds), purpose)

    async def _interruptible(self, begin: Callable[[], Awaitable[T]], purpose: Purpose) -> T | None:
        """Wait for something before a send; None where a stop, or the halt of its run, cut it short."""
        if self._stopping:
            return None
        task = cast("asyncio.Task[Any]", asyncio.current_task())
        self._waiting[task] = purpose.run
        try:
            return await begin()
        except asyncio.CancelledError:
            if task not in self._cut:
                raise
            task.uncancel()
            return None
        finally:
            del self._waiting[task]
            self._cut.discard(task)

    def _interrupt(self, task: "asyncio.Task[Any]") -> None:
        self._cut.add(task)
        task.cancel()

    def _check_stopping(self) -> None:
        if self._stopping:
            raise Stopping

    async def _watch_runs(self) -> None:
        """Wake the waiting calls of runs that were halted elsewhere; take over what others learned and set."""
        read = False
        for second in itertools.count(1):
            await asyncio.sleep(_WATCH_EVERY)
            waiting = set(self._waiting.values())
            if self._pending and (second % _READ_EVERY == 0 or not read):
                with suppress(*AWAY):
                    facts, limits = await asyncio.to_thread(_read_shared, self._ledger)
                    self.adapting.merge(facts)
                    self._limiter.override(limits)
                    read = True
            try:
                halted = await asyncio.to_thread(_halted, self._ledger, waiting) if waiting else set()
            except AWAY:
                continue
            for task in [task for task, run in self._waiting.items() if run in halted]:
                self._interrupt(task)

    def _learn(self, permit: Permit, call: Call, purpose: Purpose, outcome: Outcome, *, is_own: bool) -> None:
        """Tell the limiter what came of a permit; `is_own`: a 429 that says nothing of others."""
        tokens = outcome.usage.prompt_tokens + outcome.usage.completion_tokens
        self._limiter.settle(
            permit,
            tokens=tokens or None,
            status="other" if is_own else _status(outcome),
            headers=outcome.headers,
            latency=outcome.latency,
            retry_after=outcome.retry_after,
        )
        if outcome.kind == "ok":
            self._expectation.learn(call, purpose, outcome.usage)

    def _notify(self, event: CallEvent) -> None:
        for observe in self.observers:
            observe(event)

    async def _count_reuse(self, call: Call, purpose: Purpose) -> None:
        """Count a reply that was had without a call: a figure, for which no database that is away is waited for."""
        self._notify(CallEvent(call=call, purpose=purpose, outcome="reused"))
        with suppress(*AWAY):
            await self._writer.write(Reuse(purpose=purpose, role=call.role, endpoint=call.endpoint, model=call.model))

    def _pool(self, call: Call, run: int) -> Pool:
        price = self.price(call, run)
        pool = self._pools.get((call.role, call.endpoint, call.model, price))
        if pool is None:
            pool = open_pool(self._settings, call, self._limiter, price)
            self._pools[call.role, call.endpoint, call.model, price] = pool
        return pool


def _status(outcome: Outcome) -> LimiterOutcome:
    """Return what the limiter is told of a delivery."""
    if outcome.kind == "failed":  # a server that answers is not one that only fails: it is for the breaker
        return "other" if outcome.is_in_reply else "failed"
    if outcome.is_unsent:
        return "unsent"
    status: dict[str, LimiterOutcome] = {"ok": "ok", "throttled": "throttled"}
    return status.get(outcome.kind, "other")


def _read_shared(ledger: Ledger) -> tuple[list[Fact], dict[str, dict[str, int]]]:
    """Read what other processes learned of endpoints, and the limits that were set while runs work."""
    with ledger.read() as tx:
        return all_facts(tx), limits_by_lane(tx)


def _halted(ledger: Ledger, runs_: set[int]) -> set[int]:
    with ledger.read() as tx:
        return halted_runs(tx, runs_)
