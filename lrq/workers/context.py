"""What a worker process holds once for all its tasks: ledger, writer, limiter, HTTP client, presence."""

import asyncio
import gc
import logging
import os
import socket
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

import redis.asyncio
from celery import bootsteps, signals
from celery.exceptions import WorkerShutdown

from lrq.calls.client import Caller
from lrq.calls.limiter import Limiter
from lrq.calls.transport import Transport
from lrq.config import Price, Settings
from lrq.domain.errors import LrqError
from lrq.domain.records import Call, Item
from lrq.judge.passages import PassageCache
from lrq.ledger import Ledger, Writer, open_ledger
from lrq.ledger import runs as runs_
from lrq.ledger.processes import TASKS, Presence
from lrq.queue.celery import app, prefix_of, settings_in_use
from lrq.run_config import RunConfig, load_run_config, price_name
from lrq.workers import loop
from lrq.workers.collector import open_collector
from lrq.workers.room import Prefetch, Room
from lrq.workers.usage_reports import UsageReports

if TYPE_CHECKING:
    from lrq.workers.telemetry import Telemetry

# Garbage is collected after so many new objects, not after 700: what a call leaves is freed by reference counts, and
# walking through the objects of all modules took a third of a call's CPU.
_COLLECT_EVERY = 50_000

log = logging.getLogger(__name__)


@dataclass(kw_only=True)
class WorkerContext:
    """What a worker process opens once and hands to each of its tasks."""

    settings: Settings
    ledger: Ledger
    writer: Writer
    presence: Presence
    limiter: Limiter
    caller: Caller
    transport: Transport
    redis: redis.asyncio.Redis
    reports: UsageReports
    telemetry: "Telemetry | None"
    passages: PassageCache
    frozen: dict[int, RunConfig]
    room: Room
    documents: WeakValueDictionary[str, Item]  # by the hash of their context: tasks at work share them
    notes: dict[str, Any]  # what this process says of itself in `lrq status`
    stops: "asyncio.Task[None] | None" = None
    reads: "asyncio.Task[None] | None" = None

    def run_config(self, run: runs_.Run) -> RunConfig:
        """Return the run's configuration, loaded once; raises UsageError where its recipe has other code by now."""
        loaded = self.frozen.get(run.id)
        if loaded is None or loaded.config != run.config:
            loaded = load_run_config(run.recipe, run.config)
            loaded.check_code()
            self.frozen[run.id] = loaded
        return loaded

    def price(self, call: Call, run: int) -> Price | None:
        """Return what the run was told of the price of this call's endpoint."""
        config = self.frozen.get(run)
        return None if config is None else config.prices.get(price_name(call.role, call.endpoint, call.model))


_context: WorkerContext | None = None
_type = "worker"  # sampler, judge, …: how this process is named in `lrq status`
_opening = asyncio.Lock()


def worker_context() -> WorkerContext:
    """Return this process's context, opened when it is first asked for. Call it from any thread but the loop's."""
    return _context or loop.run(_open())


class Opened(bootsteps.StartStopStep):  # type: ignore[misc]
    """Opens the context before the first message is taken: a process that cannot open it ends, and says why."""

    def start(self, _worker: Any) -> None:
        try:
            worker_context()
        except Exception as error:
            is_plain = isinstance(error, LrqError)
            log.critical("%s", error if is_plain else f"{type(error).__name__}: {error}", exc_info=not is_plain)
            raise WorkerShutdown(1) from error


app.steps["worker"].add(Opened)


class TasksAtOnce(Prefetch):
    """Prefetch as the context's room has it."""

    def open(self, most: int) -> Room:
        worker = worker_context()
        if self.room is None:
            worker.room = Room(worker.settings.judge_memory_mb * 2**20, most)
        return worker.room

    def load(self) -> tuple[int, int]:
        return worker_context().caller.load()


app.steps["consumer"].add(TasksAtOnce)


@signals.celeryd_after_setup.connect  # type: ignore[untyped-decorator]
def _name_process(sender: str, **_: object) -> None:
    global _type
    _type = sender.partition("@")[0]


async def _open() -> WorkerContext:
    global _context
    async with _opening:
        if _context is None:
            _context = await open_context(settings_in_use(), _type)
            loop.at_close(partial(close_context, _context))
            _context.stops = asyncio.create_task(_stop_calls(_context.caller))
            _context.reads = asyncio.create_task(_read_contexts(_context)) if _type == "judge" else None
            gc.freeze()
            gc.set_threshold(_COLLECT_EVERY, 20, 20)
        return _context


async def _stop_calls(caller: Caller) -> None:
    """Let no further call begin at the first signal: the tasks at work end with the calls they have in flight."""
    await loop.until_stopping()
    await caller.stop()


async def _read_contexts(worker: WorkerContext) -> None:
    """Ask judges how many tokens they take, where they say so for nothing: what is longer is not sent."""
    for endpoint in worker.settings.endpoints("judge"):
        models = await worker.transport.models(endpoint)
        for model, tokens in models.contexts.items():
            if model == endpoint.model:
                worker.caller.adapting.has_context(endpoint, model, tokens)


async def open_context(settings: Settings, type_: str) -> WorkerContext:
    """Everything a process needs to make calls; to be closed on the same event loop."""
    ledger = open_ledger(settings, create=True)  # on a fresh machine whoever comes first makes it
    notes: dict[str, Any] = {}
    presence = Presence(ledger, type_, notes.copy)
    client = redis.asyncio.Redis.from_url(settings.redis(), socket_timeout=5, socket_connect_timeout=5)
    limiter = Limiter(client, prefix_of(ledger.id), owner=presence.id)
    writer = Writer(ledger)
    transport = Transport()
    caller = Caller(settings, ledger, writer, limiter, transport, presence.id)
    reports = UsageReports(app, f"{type_}@{socket.gethostname()}-{os.getpid()}")
    caller.observers.append(reports.observe)
    telemetry = open_collector(ledger, type_)
    if telemetry is not None:
        caller.observers.append(telemetry.observe)
    worker = WorkerContext(
        settings=settings,
        ledger=ledger,
        writer=writer,
        presence=presence,
        limiter=limiter,
        caller=caller,
        transport=transport,
        redis=client,
        reports=reports,
        telemetry=telemetry,
        passages=PassageCache(),
        room=Room(settings.judge_memory_mb * 2**20),
        documents=WeakValueDictionary(),
        frozen={},
        notes=notes,
    )
    caller.price = worker.price
    is_short = type_ in {"aggregator", "trainer"}
    presence.note = lambda: notes | ({} if is_short else {TASKS: worker.room.limit}) | _waits(caller)
    return worker


def _waits(caller: Caller) -> dict[str, str]:
    """Name for `lrq status` the endpoints that only fail, and how."""
    lanes = [f"{lane}: {reason}" for lane, reason in caller.waits_for().items()]
    return {"waiting for": "; ".join(lanes)} if lanes else {}


async def close_context(worker: WorkerContext) -> None:
    """Commit what is in flight, then leave."""
    global _context
    if worker.reads is not None:
        worker.reads.cancel()
    await worker.caller.stop()
    worker.reports.close()
    if worker.telemetry is not None:
        await asyncio.to_thread(worker.telemetry.close)
    await worker.limiter.close()
    await worker.transport.close()
    await worker.redis.aclose()
    await asyncio.to_thread(worker.writer.close)
    await asyncio.to_thread(worker.presence.close)
    worker.ledger.close()
    _context = None
