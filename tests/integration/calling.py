"""A Caller with real parts around it: ledger, writer, limiter on a real Redis, HTTP to a server of the tests' own."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import redis.asyncio
import sqlalchemy as sa
from aiohttp import web

from lrq.calls.client import Caller
from lrq.calls.limiter import Limiter
from lrq.calls.transport import Transport
from lrq.calls.tries import Patience
from lrq.config import Endpoint, JudgeSettings, Price, RoleSettings, Settings
from lrq.domain.records import Call, Purpose
from lrq.ledger import Ledger, Writer, runs
from lrq.ledger.processes import Presence
from lrq.ledger.schema import calls
from lrq.ledger.schema import runs as runs_table

SOON = Patience(
    failures=3,
    throttled=3,
    first_pause=0.01,
    longest_pause=0.02,
    longest_obeyed=0.3,
    first_look=0.1,
    longest_look=0.5,
)
PRICE = Price(input=1.0, output=2.0)  # micro-units per token
ANSWER = {
    "choices": [{"message": {"content": "[[7]]"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 10, "completion_tokens": 5},
}
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def question(text: str, **fields: Any) -> Call:
    messages = ({"role": "user", "content": text},)
    return Call(role="judge", endpoint="default", model="m", messages=messages, max_tokens=16, **fields)


def answer(**fields: Any) -> web.Response:
    return web.json_response(ANSWER | fields)


@contextlib.asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[str]:
    """A server that answers every request as the handler says; its URL with /v1."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    finally:
        await runner.cleanup()


@dataclass
class Bench:
    """One process's means of making calls, and what tests ask of them."""

    ledger: Ledger
    caller: Caller
    writer: Writer
    limiter: Limiter
    presence: Presence
    run: int
    requests: list[Any] = field(default_factory=list)  # bodies the server has received

    @property
    def purpose(self) -> Purpose:
        return Purpose(run=self.run)

    async def ask(self, text: str = "q", **fields: Any) -> Any:
        return await self.caller.call(question(text, **fields), self.purpose)

    def row(self) -> Any:
        """The run as it stands."""
        with self.ledger.read() as tx:
            return tx.execute(sa.select(runs_table).where(runs_table.c.id == self.run)).one()

    def calls(self) -> list[Any]:
        with self.ledger.read() as tx:
            return list(tx.execute(sa.select(calls).order_by(calls.c.id)))

    def reserved(self) -> tuple[int, int]:
        row = self.row()
        return row.reserved_cost, row.reserved_tokens


def judge_at(url: str, settings: Settings, **fields: Any) -> Settings:
    endpoint = Endpoint(url=url, model="m", **{"timeout": 10.0, "price": PRICE, **fields})
    roles = {"judge": JudgeSettings(endpoints=(endpoint,)), "embedding": RoleSettings(endpoints=(endpoint,))}
    return settings.model_copy(update=roles)


def make_run(ledger: Ledger, name: str = "r", **caps: Any) -> int:
    with ledger.write() as tx:
        return runs.create_run(tx, name, {"recipe": "longreward"}, **caps).id


@contextlib.asynccontextmanager
async def calling(
    ledger: Ledger, settings: Settings, redis_url: str, *, run: int | None = None, patience: Patience = SOON
) -> AsyncIterator[Bench]:
    """A Caller as a worker process has it, closed in the same order."""
    client = redis.asyncio.Redis.from_url(redis_url)
    presence, writer, transport = Presence(ledger, "judge"), Writer(ledger), Transport()
    limiter = Limiter(client, "t:", owner=presence.id)
    caller = Caller(settings, ledger, writer, limiter, transport, presence.id, patience)
    try:
        yield Bench(ledger, caller, writer, limiter, presence, make_run(ledger) if run is None else run)
    finally:
        await caller.stop()
        await limiter.close()
        await transport.close()
        await client.aclose()
        await asyncio.to_thread(writer.close)
        await asyncio.to_thread(presence.close)


Scene = Callable[..., contextlib.AbstractAsyncContextManager[Bench]]


@contextlib.asynccontextmanager
async def answering(
    ledger: Ledger,
    redis_url: str,
    respond: Callable[[int], Any],
    *,
    run: int | None = None,
    patience: Patience = SOON,
    **endpoint: Any,
) -> AsyncIterator[Bench]:
    """A bench whose server answers with what `respond` makes of the number of the request."""
    requests: list[Any] = []

    async def handle(request: web.Request) -> web.StreamResponse:
        requests.append(await request.json())
        made = respond(len(requests))
        response: web.StreamResponse = await made if asyncio.iscoroutine(made) else made
        return response

    async with (
        serving(handle) as url,
        calling(ledger, judge_at(url, Settings(), **endpoint), redis_url, run=run, patience=patience) as bench,
    ):
        bench.requests = requests
        yield bench


async def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - what is waited for knows no events
            await asyncio.sleep(0.01)
