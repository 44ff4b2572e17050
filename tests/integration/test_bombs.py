"""What a server sends beyond any honest answer: bounded in memory and time, and told in words."""

import asyncio
import contextlib
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from bombs import BOMBS, detonate, packed
from calling import ANSWER, calling, judge_at, serving

from lrq.calls.body import largest_reply
from lrq.calls.forms import parameters
from lrq.calls.transport import Transport
from lrq.config import Endpoint, Settings
from lrq.domain.errors import CallFailed
from lrq.domain.records import Call
from lrq.ledger import Ledger

pytestmark = pytest.mark.slow

MOST = 400 << 20  # bytes of a process that is sent a bomb


async def run(url: str, name: str) -> dict[str, Any]:
    program = Path(__file__).with_name("bombs.py")
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(program), url, name, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    result: dict[str, Any] = json.loads(out)
    return result


@pytest.mark.parametrize("name", BOMBS)
async def test_a_bomb_costs_a_bounded_memory_and_is_told_in_words(name: str) -> None:
    """Twelve at once, replies and vectors, and the list of models: each is a failure, and the process stays small."""
    status, *_, pattern = BOMBS[name]
    async with serving(detonate) as url:
        result = await run(url, name)
    assert result["peak"] < MOST
    assert result["contexts"] == {}
    for kind, reason, unknown, is_charged in result["outcomes"]:
        assert re.match(pattern, reason), reason
        assert kind in {200: {"failed"}, 400: {"refused", "denied"}, 429: {"throttled"}}[status]
        assert unknown == ("drop" in name)  # what came is charged by its length, not as if nobody knew
        assert is_charged == (status == 200 and "page" not in name and "drop" not in name)


async def test_the_largest_honest_vectors_are_read() -> None:
    """64 texts, 4,096 numbers each with all their digits, packed and plain, are within the bound."""
    row = [-0.012345678901234567] * 4096
    call = Call(role="embedding", endpoint="default", model="m", input=("text",) * 64)
    body = json.dumps({"data": [{"index": at, "embedding": row} for at in range(64)]}, indent=1).encode()

    async def answer(request: web.Request) -> web.Response:
        response = web.Response(body=body, content_type="application/json")
        if "packed" in request.path:
            response.enable_compression()
        return response

    transport = Transport()
    async with serving(answer) as url:
        for address in (url, f"{url}/packed"):
            outcome = await transport.post(Endpoint(url=address, model="m"), call, "k")
            assert (outcome.kind, len(outcome.vectors)) == ("ok", 64)
            assert list(outcome.vectors[63]) == row
    await transport.close()
    assert len(body) < largest_reply(call, parameters(call))


@pytest.mark.parametrize("name", ["without end", "gzip of half a gigabyte", "small objects", "a drop at a time"])
async def test_a_hostile_item_costs_five_others_nothing(ledger: Ledger, redis_server: Any, name: str) -> None:
    """They are asked once each, and answered while it still fails; what came for it is charged within its bound."""
    status, encoding, pieces, _ = BOMBS[name]
    packed(512, 31)  # takes seconds, and the server is in this process
    asked: list[str] = []

    async def handle(request: web.Request) -> web.StreamResponse:
        text = (await request.json())["messages"][0]["content"]
        asked.append(text)
        if text != "hostile":
            return web.json_response(ANSWER)
        response = web.StreamResponse(status=status, headers={"Content-Encoding": encoding} if encoding else {})
        with contextlib.suppress(ConnectionError):
            await response.prepare(request)
            async for piece in pieces():
                await response.write(piece)
        return response

    async with serving(handle) as url:
        settings = judge_at(url, Settings(), timeout=3.0)
        async with calling(ledger, settings, redis_server.url) as bench:
            hostile = asyncio.create_task(bench.ask("hostile"))
            others = await asyncio.gather(*(bench.ask(f"honest {number}") for number in range(5)))
            if name == "a drop at a time":
                assert not hostile.done()  # it is still being waited for, and holds up nobody
            with pytest.raises(CallFailed):
                await hostile
            assert [reply.choices[0].text for reply in others] == ["[[7]]"] * 5
            assert sorted(text for text in asked if text != "hostile") == [f"honest {number}" for number in range(5)]
            rows = {row.state for row in bench.calls()}
            assert rows == {"done", "failed"}
            assert bench.reserved() == (0, 0)
