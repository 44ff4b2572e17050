"""Prompts that do not fit into a judge's context are told before anything is paid."""

import asyncio
from typing import Any

import pytest
from aiohttp import web
from calling import serving

from lrq.config import Endpoint, JudgeSettings, Settings
from lrq.estimate.contexts import short_contexts

NAME = ("judge", "default", "m")
KEY = "key-of-some-length"


@pytest.mark.parametrize(
    ("listing", "tokens", "is_short"),
    [
        ({"data": [{"id": "m", "max_model_len": 4096}]}, 5000.0, True),
        ({"data": [{"id": "m", "max_model_len": 4096}]}, 4000.0, False),
        ({"data": [{"id": "other", "max_model_len": 4096}, {"id": "m"}]}, 5000.0, False),
        ({"error": "none here"}, 5000.0, False),
    ],
)
async def test_a_context_is_asked_for_with_all_that_the_endpoint_wants(listing: Any, tokens: float, is_short: bool):
    """Key, headers and query go along; one that names no context is not spoken of."""

    async def answer(request: web.Request) -> web.Response:
        given = request.headers.get("Authorization"), request.headers.get("X-Team"), request.query_string
        is_known = given == (f"Bearer {KEY}", "t", "api-version=1") and request.path.endswith("/models")
        return web.json_response(listing if is_known else {}, status=200 if is_known else 401)

    async with serving(answer) as url:
        endpoint = Endpoint(
            url=f"{url}/v1",
            model="m",
            api_key=KEY,
            headers={"X-Team": "t"},
            query={"api-version": "1"},
        )
        settings = Settings(judge=JudgeSettings(endpoints=(endpoint,)))
        notes = await asyncio.to_thread(short_contexts, settings, {NAME: tokens})
    assert len(notes) == is_short
    assert all("m has a context of 4,096 tokens" in note and "about 5,000" in note for note in notes)


async def test_one_server_of_a_pool_with_room_is_enough() -> None:
    """And where nothing will be asked, nobody is asked for a context."""

    async def answer(request: web.Request) -> web.Response:
        length = 4096 if "/small/" in request.path else 8192
        return web.json_response({"data": [{"id": "m", "max_model_len": length}]})

    async with serving(answer) as url:
        pool = tuple(Endpoint(url=f"{url}/{size}", model="m", server=size) for size in ("small", "large"))
        settings = Settings(judge=JudgeSettings(endpoints=pool))
        assert await asyncio.to_thread(short_contexts, settings, {NAME: 5000.0}) == []
        assert len(await asyncio.to_thread(short_contexts, settings, {NAME: 9000.0})) == 1
        assert await asyncio.to_thread(short_contexts, settings, {}) == []
