"""The HTTP side: routes, keys, limits, faults and latency around the replies."""

import asyncio
import socket
import struct
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import orjson
from aiohttp import web

from lrq.domain.origin import refusal
from lrq.sim import faults
from lrq.sim.limits import Limits, Refusal
from lrq.sim.lru import Lru
from lrq.sim.options import NOTICE, Options
from lrq.sim.prefix import PrefixCache
from lrq.sim.replies import CANNED, Outcome, answer_chat, answer_embedding, digest_of, instead, render, render_error
from lrq.sim.requests import BadRequest, read_chat, read_embedding
from lrq.sim.stats import Stats

REMEMBERED = 8192  # outcomes kept, so that a repeated body costs no second decision
NO_LINGER = struct.pack("ii", 1, 0)  # close with RST, as a crashed server's kernel does


class Sim:
    """One simulated server; `handle` answers any request."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.stats = Stats()
        self.limits = Limits(options)
        self.prefixes = PrefixCache()
        self.outcomes: Lru[bytes, Outcome] = Lru(REMEMBERED)
        self.slots = asyncio.Semaphore(options.slots) if options.slots else None
        self.closing = asyncio.Event()
        self.decide: dict[str, Callable[[bytes], Outcome]] = {
            "/v1/chat/completions": lambda body: answer_chat(read_chat(body, options), options),
            "/v1/embeddings": lambda body: answer_embedding(read_embedding(body, options)),
        }

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer any request, but none of a page of another site."""
        if reason := self.foreign(request):
            return self.reply(403, render_error(reason, "foreign_host"))
        match request.method, request.path:
            case "POST", "/v1/chat/completions" | "/v1/embeddings":
                return await self.paid(request)
            case "GET", "/v1/models":
                return self.reply(200, orjson.dumps(self.models())) if self.allowed(request) else self.locked()
            case "GET", "/stats":
                return self.reply(200, orjson.dumps(self.stats.snapshot(self.limits)))
            case "POST", "/stats/reset":
                self.reset()
                return self.reply(200, b"{}")
        return self.reply(404, render_error(f"Nothing is served at {request.path}.", "not_found"))

    async def paid(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer a request that would cost money: with a refusal, a fault, or its reply."""
        body = await request.content.read()
        stats, digest = self.stats, digest_of(body)
        stats.received += 1
        if not self.allowed(request):
            return await self.send(request, self.locked(), request.path)
        try:
            outcome = self.outcome(request.path, body, digest)
        except BadRequest as error:
            response = self.reply(error.status, render_error(str(error), error.code))
            return await self.send(request, response, request.path)
        tokens = outcome.prompt_tokens + outcome.completion_tokens
        if refusal := self.limits.admit(time.monotonic(), tokens, stats.in_flight):
            stats.refused[refusal.limit] += 1
            return await self.send(request, self.refused(refusal), outcome.kind)
        deliveries = stats.begin(digest)
        try:
            return await self.admitted(request, outcome, digest, deliveries)
        except asyncio.CancelledError:
            stats.aborted += 1
            raise
        finally:
            stats.in_flight -= 1

    async def admitted(
        self, request: web.BaseRequest, outcome: Outcome, digest: bytes, seen: int
    ) -> web.StreamResponse:
        options = self.options
        fault = faults.fault(options.faults, options.seed, digest, seen)
        if fault:
            self.stats.faults[fault] += 1
        cached = self.prefixes.cached(outcome.chain)
        await self.wait(digest, seen)
        if fault == "500":
            response = self.reply(500, render_error("A seeded fault.", "internal_error", "server_error"))
            return await self.send(request, response, outcome.kind)
        if fault in ("reset", "hang"):
            return await self.lose(request, fault)
        if fault:
            text = faults.unreadable(outcome.kind, options.seed, digest, seen) if fault == "unreadable" else ""
            outcome = instead(outcome, text)
        self.prefixes.add(outcome.chain)
        response = self.reply(200, render(outcome, digest, cached), self.limits.headers(time.monotonic()))
        identity = digest_of(digest + request.headers.get("Idempotency-Key", "").encode())
        await self.send(request, response, outcome.kind, identity)
        self.stats.tokens.update(prompt=outcome.prompt_tokens, completion=outcome.completion_tokens, cached=cached)
        return response

    async def wait(self, digest: bytes, seen: int) -> None:
        """Wait for the latency of the delivery `seen` of a body, in a slot if there are any."""
        options = self.options
        spread = options.jitter_ms * (2 * faults.draw("latency", options.seed, digest, seen) - 1)
        seconds = max(0.0, options.latency_ms + spread) / 1000
        async with AsyncExitStack() as stack:
            if self.slots:
                await stack.enter_async_context(self.slots)
            if seconds:
                await asyncio.sleep(seconds)

    async def lose(self, request: web.BaseRequest, fault: str) -> web.StreamResponse:
        """Reset the connection in place of a reply, at once, or for the `fault` "hang" after having hung."""
        if fault == "hang":
            with suppress(TimeoutError):
                await asyncio.wait_for(self.closing.wait(), self.options.hang_seconds)
        if transport := request.transport:
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
            transport.abort()
        return web.Response()

    async def send(
        self, request: web.BaseRequest, response: web.Response, kind: str, identity: bytes | None = None
    ) -> web.Response:
        """Write the reply out and count it once it has left; with no write buffer, drain waits for the last byte."""
        if request.transport is not None:
            request.transport.set_write_buffer_limits(high=0)
        try:
            await response.prepare(request)
            await response.write_eof()
            await request.writer.drain()
        except ConnectionError:
            self.stats.aborted += 1
            return response
        if request.transport is None or request.transport.is_closing():
            self.stats.aborted += 1
        else:
            self.stats.sent(kind, response.status, identity)
        return response

    def outcome(self, path: str, body: bytes, digest: bytes) -> Outcome:
        if self.options.canned:
            return CANNED
        if cached := self.outcomes.get(digest):
            return cached
        outcome = self.decide[path](body)
        if outcome.choices:  # vectors are large, and soon made again
            self.outcomes.put(digest, outcome)
        return outcome

    def reply(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> web.Response:
        marked = {"x-lrq-sim": NOTICE, **(headers or {})}
        return web.Response(status=status, body=body, headers=marked, content_type="application/json")

    def refused(self, refusal: Refusal) -> web.Response:
        if refusal.limit == "quota":
            body = render_error("The account has no credit left.", "insufficient_quota", "insufficient_quota")
            return self.reply(429, body)
        body = render_error(f"The limit of {refusal.limit} is reached.", "rate_limit_exceeded", refusal.limit)
        headers = self.limits.headers(time.monotonic()) | self.limits.retry_after(refusal)
        return self.reply(429, body, headers)

    def foreign(self, request: web.BaseRequest) -> str:
        """Return why a request comes from where none is answered; empty where it does not."""
        return refusal(
            method=request.method,
            host=request.headers.get("Host"),
            origin=request.headers.get("Origin"),
            names=self.options.hosts,
            is_guarded=self.options.api_key is not None,
        )

    def allowed(self, request: web.BaseRequest) -> bool:
        key = self.options.api_key
        return key is None or request.headers.get("Authorization") == f"Bearer {key}"

    def locked(self) -> web.Response:
        return self.reply(401, render_error("The API key is wrong or missing.", "invalid_api_key"))

    def models(self) -> dict[str, Any]:
        names = self.options.models or ("judge-sim",)
        common = {"object": "model", "created": 0, "owned_by": f"lrq judge-sim, {NOTICE}"}
        return {"object": "list", "data": [{"id": name, **common} for name in names]}

    def reset(self) -> None:
        """Count from zero; requests in flight and the limits' logs stay what they are."""
        self.stats = Stats(in_flight=self.stats.in_flight, peak=self.stats.in_flight)
        self.limits.requests.worst, self.limits.tokens.worst = self.limits.requests.used, self.limits.tokens.used


@dataclass(frozen=True, kw_only=True)
class Running:
    """A server that listens."""

    url: str  # with its /v1
    sim: Sim

    def stats(self) -> dict[str, Any]:
        return self.sim.stats.snapshot(self.sim.limits)


@asynccontextmanager
async def serve(options: Options) -> AsyncIterator[Running]:
    """Listen in this event loop while the context is open; `options.port` 0 picks a free one."""
    sim = Sim(options)
    # A handler is cancelled when its client goes: a reply nobody waits for is not sent.
    runner = web.ServerRunner(web.Server(sim.handle, handler_cancellation=True, access_log=None), shutdown_timeout=0.5)
    await runner.setup()
    try:
        await web.TCPSite(runner, options.host, options.port, backlog=4096).start()
        port = runner.addresses[0][1]
        yield Running(url=f"http://{options.host}:{port}/v1", sim=sim)
    finally:
        sim.closing.set()
        await runner.cleanup()
