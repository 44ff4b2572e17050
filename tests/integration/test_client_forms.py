"""Endpoints that want another form of requests: asked again at once, at no cost, learned once for all processes."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from calling import ANSWER, Bench, answer, calling, judge_at, make_run, question, serving
from ledgers import opened, sqlite_ledger

from lrq.calls.transport import Transport
from lrq.config import Endpoint, Settings
from lrq.domain.errors import CallRefused
from lrq.domain.records import Call, Purpose
from lrq.ledger import Ledger


@pytest.fixture
def ledger(home: Path) -> Iterator[Ledger]:
    with sqlite_ledger(home) as settings, opened(settings) as made:
        yield made


def refusal(message: str, param: str | None = None) -> web.Response:
    return web.json_response({"error": {"message": message, "param": param}}, status=400)


def reasoner(body: dict[str, Any]) -> web.Response:
    if "max_tokens" in body:
        return refusal("Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.", "max_tokens")
    if "temperature" in body:
        return refusal("Unsupported value: 'temperature' does not support 0.5 with this model.", "temperature")
    return answer()


class Server:
    """Answers each body as `respond` has it; keeps the bodies."""

    def __init__(self, respond: Callable[[dict[str, Any]], web.Response]) -> None:
        self.respond = respond
        self.bodies: list[dict[str, Any]] = []

    async def handle(self, request: web.Request) -> web.Response:
        self.bodies.append(await request.json())
        return self.respond(self.bodies[-1])


@asynccontextmanager
async def asking(
    ledger: Ledger, redis_url: str, server: Server, run: int | None = None, **endpoint: Any
) -> AsyncIterator[Bench]:
    async with serving(server.handle) as url:
        settings = judge_at(url, Settings(), **endpoint)
        async with calling(ledger, settings, redis_url, run=run) as bench:
            yield bench


async def test_a_form_is_learned_once_and_costs_nothing(ledger: Ledger, redis_server: Any) -> None:
    """Two refusals, then replies alone; the next process knows, and finds what was paid for under the same key."""
    server = Server(reasoner)
    async with serving(server.handle) as url:
        settings = judge_at(url, Settings())
        async with calling(ledger, settings, redis_server.url) as bench:
            run = bench.run
            first = await bench.ask("one", temperature=0.5)
            await bench.ask("two", temperature=0.5)
            assert len(server.bodies) == 4
            assert server.bodies[-1]["max_completion_tokens"] == 16
            row = bench.row()
            assert (row.spent_cost, row.unknown_cost, bench.reserved()) == (2 * 20, 0, (0, 0))
            assert [call.state for call in bench.calls()] == ["done", "done"]
        async with calling(ledger, settings, redis_server.url, run=run) as bench:
            assert (await bench.ask("one", temperature=0.5)).key == first.key
            await bench.ask("three", temperature=0.5)
            assert len(server.bodies) == 5


async def test_a_call_is_asked_in_a_bounded_number_of_forms(ledger: Ledger, redis_server: Any) -> None:
    """A server that refuses whatever it is sent refuses the call."""
    server = Server(lambda body: refusal(f"{next(iter(body.keys() - {'model', 'messages'}), 'it')} is not supported"))
    async with asking(ledger, redis_server.url, server) as bench:
        with pytest.raises(CallRefused, match="not supported"):
            await bench.ask("q", temperature=0.5, seed=1)
        assert len(server.bodies) < 10
        assert bench.row().spent_cost == 0


def thinker(body: dict[str, Any]) -> web.Response:
    """Thinks for a thousand tokens first."""
    if body["max_tokens"] >= 1010:
        message = {"content": "[[7]]", "reasoning_content": "hm " * 1000}
        usage = {
            "prompt_tokens": 10,
            "completion_tokens": 1005,
            "completion_tokens_details": {"reasoning_tokens": 1000},
        }
        return web.json_response({"choices": [{"message": message, "finish_reason": "stop"}], "usage": usage})
    usage = {"prompt_tokens": 10, "completion_tokens": body["max_tokens"]}
    return web.json_response({"choices": [{"message": {"content": None}, "finish_reason": "length"}], "usage": usage})


async def test_a_thinking_judge_cuts_its_first_replies_and_no_more(ledger: Ledger, redis_server: Any) -> None:
    """Three calls go ahead; by them the others get room, which the budget has reserved."""
    server = Server(thinker)
    async with asking(ledger, redis_server.url, server) as bench:
        purpose = Purpose(run=bench.run, kind="support")
        asked = [bench.caller.call(question(str(number)), purpose) for number in range(20)]
        replies = await asyncio.gather(*asked)
        cut = [reply.choices[0].finish for reply in replies].count("length")
        assert cut in {1, 2, 3}
        assert sorted(body["max_tokens"] for body in server.bodies) == [16] * cut + [16 + 4096] * (20 - cut)
        assert sum(call.reasoning_tokens for call in bench.calls()) == (20 - cut) * 1000


async def test_a_charge_above_its_bound_pauses_a_run_with_a_budget(ledger: Ledger, redis_server: Any) -> None:
    """It is recorded as counted, and from then on as much is reserved."""
    usage = {"prompt_tokens": 500, "completion_tokens": 5}
    run = make_run(ledger, max_cost=100_000)
    async with asking(ledger, redis_server.url, Server(lambda _: answer(usage=usage)), run=run) as bench:
        await bench.ask()
        row = bench.row()
        assert (row.state, row.halt, row.spent_cost) == ("paused", "budget", 510)
        assert "counted more tokens" in row.reason
        assert "counted more tokens" in bench.calls()[0].reason
        form = bench.caller.adapting.learned.form(bench.caller._settings.judge.endpoints[0], question("q"), "")
        assert form.prompt_factor == pytest.approx(500 / 65)


async def test_a_count_that_cannot_be_is_estimated(ledger: Ledger, redis_server: Any) -> None:
    """Bytes are charged, and the row says so; nothing is paused."""
    usage = {"prompt_tokens": 2_000_000_000, "completion_tokens": 5}
    run = make_run(ledger, max_cost=100_000)
    async with asking(ledger, redis_server.url, Server(lambda _: answer(usage=usage)), run=run) as bench:
        await bench.ask()
        assert (bench.row().state, bench.row().spent_cost) == ("active", 65 + 2 * 5)
        assert "cannot be" in bench.calls()[0].reason


@pytest.mark.parametrize(
    ("path", "fields", "wanted"),
    [
        ("/openai/deployments/d", {}, {"api-key": "sk-secret-of-azure", "api-version": "2024-10-21"}),
        ("/openai/deployments/d?api-version=7", {}, {"api-key": "sk-secret-of-azure", "api-version": "7"}),
        ("/openai/deployments/d/chat/completions?api-version=7", {}, {"api-version": "7"}),
        ("/gw", {"headers": {"X-Team": "${LRQ_TEST_TEAM}"}}, {"X-Team": "team-of-many", "Authorization": "Bearer sk-"}),
        ("/gw", {"headers": {"authorization": "Basic abc"}}, {"Authorization": "Basic abc"}),
        ("/gw", {"query": {"k": "${LRQ_TEST_TEAM}"}}, {"k": "team-of-many"}),
    ],
)
async def test_headers_and_query_reach_the_server(
    monkeypatch: pytest.MonkeyPatch, path: str, fields: dict[str, Any], wanted: dict[str, str]
) -> None:
    """Of the settings, of the URL, of the environment and of the preset; what a server repeats of them is blotted."""
    monkeypatch.setenv("LRQ_TEST_TEAM", "team-of-many")
    seen: dict[str, str] = {}
    paths: list[str] = []

    async def handle(request: web.Request) -> web.Response:
        seen.update(request.headers)
        seen.update(request.query)
        paths.append(request.path)
        return answer(choices=[{"message": {"content": f"{dict(request.headers)} {request.query_string}"}}])

    async with serving(handle) as url:
        base = url.removesuffix("/v1") + path
        endpoint = Endpoint.model_validate({"url": base, "model": "m", "api_key": "sk-secret-of-azure", **fields})
        transport = Transport()
        outcome = await transport.post(endpoint, question("q"), "key")
        await transport.close()
    assert all(seen[name].startswith(value) for name, value in wanted.items())
    assert paths == [path.partition("?")[0].removesuffix("/chat/completions") + "/chat/completions"]
    assert not any(secret in outcome.choices[0].text for secret in ("sk-secret-of-azure", "team-of-many"))


async def test_an_endpoint_s_models_tell_their_context(ledger: Ledger) -> None:
    """In a request that is free, under any of the names that servers have for it."""
    models = [{"id": "a", "max_model_len": 8192}, {"id": "b", "context_length": 4096}, {"id": "c"}, "d"]

    async def handle(_: web.Request) -> web.Response:
        return web.json_response({"data": models})

    async with serving(handle) as url:
        transport = Transport()
        found = await transport.models(Endpoint(url=url, model="a"))
        gone = await transport.models(Endpoint(url="http://127.0.0.1:1/v1", model="a"))
        await transport.close()
    assert (found.problem, found.contexts) == ("", {"a": 8192, "b": 4096})
    assert "is the server up" in gone.problem


async def test_n_that_is_not_taken_brings_one_choice(ledger: Ledger, redis_server: Any) -> None:
    """The policy asks for the others one by one; the first is paid for once."""
    server = Server(lambda body: refusal("n must be 1") if body.get("n", 1) > 1 else web.json_response(ANSWER))
    async with asking(ledger, redis_server.url, server) as bench:
        call = Call(role="judge", endpoint="default", model="m", messages=question("q").messages, max_tokens=16, n=3)
        reply = await bench.caller.call(call, bench.purpose)
    assert len(reply.choices) == 1
    assert [body.get("n") for body in server.bodies] == [3, None]
