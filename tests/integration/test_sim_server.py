"""judge-sim over HTTP: limits, faults, and counts that can be trusted."""

import asyncio
import base64
import signal
import socket
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import numpy as np
import pytest
from click.testing import CliRunner

from lrq.cli.judge_sim import judge_sim
from lrq.domain.errors import UsageError
from lrq.sim.options import Options
from lrq.sim.server import Running, serve

JUDGE = "Task: logicality\n[Question]\n~~~~\nWhich colour?\n~~~~\n[Answer]\n~~~~\nAnna is red.\n~~~~"


class Client:
    """A server and a session that talks to it."""

    def __init__(self, running: Running, session: aiohttp.ClientSession) -> None:
        self.running, self.session = running, session

    async def chat(self, content: str = JUDGE, headers: dict[str, str] | None = None, **fields: Any) -> "Reply":
        body = {"model": "m", "messages": [{"role": "user", "content": content}], **fields}
        return await self.post("/chat/completions", body, headers)

    async def post(self, path: str, body: dict[str, Any], headers: dict[str, str] | None = None) -> "Reply":
        async with self.session.post(self.running.url + path, json=body, headers=headers) as response:
            return Reply(response.status, dict(response.headers), await response.json())

    async def stats(self) -> dict[str, Any]:
        async with self.session.get(self.running.url.removesuffix("/v1") + "/stats") as response:
            found: dict[str, Any] = await response.json()
            return found


class Reply:
    def __init__(self, status: int, headers: dict[str, str], json: dict[str, Any]) -> None:
        self.status, self.headers, self.json = status, headers, json

    @property
    def text(self) -> str:
        return str(self.json["choices"][0]["message"]["content"])


@asynccontextmanager
async def client(**options: Any) -> AsyncIterator[Client]:
    async with serve(Options(**options)) as running, aiohttp.ClientSession() as session:
        yield Client(running, session)


async def until(condition: Any) -> None:
    for _ in range(3000):
        if condition():
            return
        await asyncio.sleep(0.01)
    pytest.fail("it did not come to pass within 30 s")


async def ask_and_go(sim: Client) -> None:
    """A client that gives up once its request has arrived."""
    asked = asyncio.create_task(sim.chat())
    await until(lambda: sim.running.stats()["in_flight"] == 1)
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    await until(lambda: sim.running.stats()["in_flight"] == 0)


async def test_it_says_everywhere_that_it_is_no_language_model() -> None:
    """In the list of models, in a header of every reply, in the counts and in the help."""
    async with client() as sim:
        async with sim.session.get(sim.running.url + "/models") as response:
            models = await response.json()
        assert "not a language model" in models["data"][0]["owned_by"]
        assert (await sim.chat()).headers["x-lrq-sim"] == "not a language model"
        assert "not a language model" in (await sim.stats())["notice"]
    assert "not a language model" in CliRunner().invoke(judge_sim, ["--help"]).output


async def test_the_same_body_gets_the_same_reply_and_is_counted_as_a_duplicate() -> None:
    """Three complete replies to two bodies are one duplicate; an idempotency key tells equal bodies apart."""
    async with client() as sim:
        first, again, _other = await sim.chat(), await sim.chat(), await sim.chat(JUDGE + " ")
        assert first.json == again.json
        stats = await sim.stats()
        assert {name: stats[name] for name in ("received", "complete", "distinct", "duplicates")} == {
            "received": 3, "complete": 3, "distinct": 2, "duplicates": 1,
        }  # fmt: skip
        assert stats["replies"] == {"logicality": {"200": 3}}
        for key in "ab":
            await sim.chat(headers={"Idempotency-Key": key})
        assert (await sim.stats())["duplicates"] == 1


async def test_usage_counts_what_the_prompt_cache_held() -> None:
    """A prompt of over 1,024 tokens is new once, and then known up to its last whole block."""
    async with client() as sim:
        replies = [await sim.chat(" tide" * 1500 + tail) for tail in (" red", " blue")]
        cached = [reply.json["usage"]["prompt_tokens_details"]["cached_tokens"] for reply in replies]
        assert cached == [0, 11 * 128]
        assert (await sim.stats())["tokens"]["cached"] == 11 * 128


async def test_counts_start_again_when_reset() -> None:
    """Everything counted is zero again."""
    async with client() as sim:
        await sim.chat()
        async with sim.session.post(sim.running.url.removesuffix("/v1") + "/stats/reset") as response:
            assert response.status == 200
        stats = await sim.stats()
        assert (stats["received"], stats["complete"], stats["tokens"]["prompt"]) == (0, 0, 0)


@pytest.mark.parametrize(
    ("options", "headers", "status", "code"),
    [
        ({"api_key": "right"}, {"Authorization": "Bearer wrong"}, 401, "invalid_api_key"),
        ({"api_key": "right"}, {"Authorization": "Bearer right"}, 200, None),
        ({"models": ("other",)}, {}, 404, "model_not_found"),
        ({"max_context": 20}, {}, 400, "context_length_exceeded"),
        ({"quota": 0}, {}, 429, "insufficient_quota"),
    ],
)
async def test_refusals_have_the_codes_that_clients_know(
    options: dict[str, Any], headers: dict[str, str], status: int, code: str | None
) -> None:
    """Each refusal is told by status and code; none counts as a complete reply."""
    async with client(**options) as sim:
        reply = await sim.chat(headers=headers)
        assert (reply.status, reply.json.get("error", {}).get("code")) == (status, code)
        assert (await sim.stats())["complete"] == (status == 200)


async def test_bodies_that_are_no_request_and_unknown_paths_are_refused() -> None:
    """400 and 404, with an error that says why."""
    async with client() as sim:
        async with sim.session.post(sim.running.url + "/chat/completions", data=b"{torn") as response:
            assert (response.status, (await response.json())["error"]["message"]) == (400, "The body is not JSON.")
        assert (await sim.post("/completions", {})).status == 404


async def test_more_requests_than_the_limit_are_told_when_to_come_again() -> None:
    """Of five at once two fit; the others learn from the headers when the window has room, and then there is."""
    async with client(rpm=2, window=3) as sim:
        replies = await asyncio.gather(*(sim.chat(f"Hello {i}.") for i in range(5)))
        assert sorted(reply.status for reply in replies) == [200, 200, 429, 429, 429]
        refused = next(reply for reply in replies if reply.status == 429)
        assert refused.headers["x-ratelimit-limit-requests"] == "2"
        assert refused.headers["x-ratelimit-remaining-requests"] == "0"
        assert 0 < float(refused.headers["Retry-After"]) <= 3.01
        await asyncio.sleep(float(refused.headers["Retry-After"]))
        assert (await sim.chat("Hello 9.")).status == 200
        stats = await sim.stats()
        assert stats["refused"] == {"requests": 3}
        assert stats["worst_window"]["requests"] == 2


async def test_tokens_and_concurrency_are_limited_too_and_headers_can_be_off() -> None:
    """A token limit below one request refuses it for good; of two at once the second is too many."""
    async with client(tpm=10, headers=False) as sim:
        reply = await sim.chat()
        assert reply.status == 429
        assert not {name for name in reply.headers if name.lower().startswith(("x-ratelimit", "retry"))}
    async with client(concurrency=1, latency_ms=1000) as sim:
        replies = await asyncio.gather(sim.chat("One."), sim.chat("Two."))
        assert sorted(reply.status for reply in replies) == [200, 429]
        assert (await sim.stats())["peak_in_flight"] == 1


async def test_slots_let_requests_wait_instead() -> None:
    """With one slot three requests of 20 ms are all answered, one after the other."""
    async with client(slots=1, latency_ms=20) as sim:
        started = asyncio.get_running_loop().time()
        replies = await asyncio.gather(*(sim.chat(f"Hello {i}.") for i in range(3)))
        assert [reply.status for reply in replies] == [200] * 3
        assert asyncio.get_running_loop().time() - started >= 0.06


async def test_a_retried_request_can_succeed() -> None:
    """At half of all requests failing, forty tries of one body see both a 500 and an answer; a new server the same."""

    async def statuses() -> list[int]:
        async with client(faults={"500": 0.5}, seed=3) as sim:
            return [(await sim.chat()).status for _ in range(40)]

    found = await statuses()
    assert set(found) == {200, 500}
    assert found == await statuses()


async def test_a_reset_and_a_hang_are_no_complete_replies() -> None:
    """The client sees a broken connection, or nothing until it gives up; the server counts nothing as sent."""
    async with client(faults={"reset": 1.0}) as sim:
        with pytest.raises(aiohttp.ClientError):
            await sim.chat()
        assert (await sim.stats())["complete"] == 0
    async with client(faults={"hang": 1.0}) as sim:
        await ask_and_go(sim)
        stats = await sim.stats()
        assert (stats["complete"], stats["aborted"], stats["faults"]) == (0, 1, {"hang": 1})
    async with client(faults={"hang": 1.0}, hang_seconds=0.05) as sim:
        with pytest.raises(aiohttp.ClientError):
            await sim.chat()


async def test_empty_and_unreadable_replies_are_complete_and_paid_for() -> None:
    """They have status 200 and usage; what they lack is content."""
    async with client(faults={"empty": 1.0}) as sim:
        assert (await sim.chat()).text == ""
        assert (await sim.stats())["complete"] == 1
    async with client(faults={"unreadable": 1.0}) as sim:
        reply = await sim.chat()
        assert reply.text
        assert "[[10]]" not in reply.text
        assert reply.json["usage"]["completion_tokens"] > 0
        texts = ["one", "two"]
        assert len((await sim.post("/embeddings", {"model": "m", "input": texts})).json["data"]) == 1


async def test_a_reply_nobody_waits_for_is_not_sent() -> None:
    """A client that gives up during the latency is not counted as served."""
    async with client(latency_ms=60_000) as sim:
        await ask_and_go(sim)
        stats = await sim.stats()
        assert (stats["complete"], stats["aborted"]) == (0, 1)


async def test_a_reply_counts_once_its_last_byte_has_left() -> None:
    """A client that takes a part of a long reply and goes was sent no complete reply."""
    async with client(dimensions=8192) as sim:
        host, port = sim.running.url.removeprefix("http://").removesuffix("/v1").split(":")
        body = b'{"model":"m","input":[%s]}' % b",".join(b'"word %d"' % number for number in range(400))
        with socket.create_connection((host, int(port))) as connection:
            connection.setblocking(False)
            head = b"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body)
            await asyncio.get_running_loop().sock_sendall(connection, head + body)
            await asyncio.get_running_loop().sock_recv(connection, 1000)
            stats = sim.running.stats()
            assert (stats["in_flight"], stats["complete"]) == (1, 0)
        await until(lambda: sim.running.stats()["in_flight"] == 0)
        stats = sim.running.stats()
        assert (stats["complete"], stats["aborted"]) == (0, 1)


async def test_embeddings_come_as_numbers_and_as_base64() -> None:
    """Both are the same vectors, in the order of the input."""
    async with client(dimensions=16) as sim:
        body = {"model": "m", "input": ["Anna is red", "安娜是红色的"]}
        plain = (await sim.post("/embeddings", body)).json
        coded = (await sim.post("/embeddings", body | {"encoding_format": "base64"})).json
        decoded = [np.frombuffer(base64.b64decode(row["embedding"]), dtype="<f4") for row in coded["data"]]
        assert np.allclose(np.array(decoded), [row["embedding"] for row in plain["data"]])
        assert [row["index"] for row in plain["data"]] == [0, 1]
        assert len(plain["data"][0]["embedding"]) == 16
        assert plain["usage"]["prompt_tokens"] > 0


async def test_reasoning_judges_keep_their_reasoning_apart() -> None:
    """The content is the mark alone."""
    async with client(reasoning=True) as sim:
        message = (await sim.chat()).json["choices"][0]["message"]
        assert message["content"] == "[[10]]"
        assert message["reasoning_content"]


async def test_canned_replies_are_all_alike_and_counted() -> None:
    """For benchmarks of clients: one reply to everything, with the counts intact."""
    async with client(canned=True) as sim:
        assert [(await sim.chat(f"{i}")).text for i in range(3)] == ["[[7]]"] * 3
        assert (await sim.stats())["replies"] == {"canned": {"200": 3}}


async def test_as_a_program_it_says_where_it_listens_and_ends_on_sigterm() -> None:
    """The ready line carries the address; a SIGTERM with a request hanging ends it with code 0."""
    program = "from lrq.cli.judge_sim import judge_sim; judge_sim()"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, "--port", "0", "--fault-hang", "1", stdout=PIPE, stderr=PIPE
    )
    assert process.stdout is not None
    assert process.stderr is not None
    banner, ready = (await process.stderr.readline()).decode(), (await process.stdout.readline()).decode()
    assert "not a language model" in banner
    assert ready.startswith("judge-sim listening on http://127.0.0.1:")
    url = ready.split()[-1]
    async with aiohttp.ClientSession() as session:
        hanging = asyncio.ensure_future(session.post(url + "/embeddings", json={"model": "m", "input": "a"}))
        for _ in range(500):
            async with session.get(url.removesuffix("/v1") + "/stats") as response:
                if (await response.json())["in_flight"]:
                    break
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 20) == 0
        with pytest.raises(aiohttp.ClientError):
            await hanging


def test_a_taken_port_is_a_usage_error() -> None:
    """One line says where it could not listen and what to do."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        result = CliRunner().invoke(judge_sim, ["--port", str(taken.getsockname()[1])])
    assert isinstance(result.exception, UsageError)
    assert "choose another --port" in str(result.exception)


def test_rates_that_do_not_add_up_are_a_usage_error() -> None:
    """More than all requests cannot fail."""
    result = CliRunner().invoke(judge_sim, ["--fault-500", "0.6", "--fault-reset", "0.6"])
    assert result.exit_code == 2
    assert "add up to at most 1" in result.output


async def test_a_page_of_another_site_is_refused():
    """By its name on every path, and by its origin where it would write."""
    async with serve(Options()) as running, aiohttp.ClientSession() as session:
        for path in ("/models", "/chat/completions"):
            async with session.get(running.url + path, headers={"Host": "evil.example"}) as reply:
                assert (reply.status, (await reply.json())["error"]["code"]) == (403, "foreign_host")
        async with session.post(running.url + "/embeddings", headers={"Origin": "http://evil.example"}) as reply:
            assert reply.status == 403
        assert running.stats()["received"] == 0


def test_a_simulator_that_others_can_reach_wants_a_key():
    found = CliRunner().invoke(judge_sim, ["--host", "0.0.0.0", "--port", "0"])
    assert isinstance(found.exception, UsageError), found.output
    assert "set --api-key" in str(found.exception)
