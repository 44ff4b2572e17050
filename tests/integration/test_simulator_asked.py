"""Whether a simulator listens is asked of this machine alone."""

import asyncio

import pytest
from aiohttp import web
from calling import serving

from lrq.sim.counting import is_simulator


async def test_it_is_known_by_its_header_and_leads_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """No proxy is asked, no redirect followed, and no other host spoken to."""
    followed: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        if "elsewhere" in request.path:
            followed.append(request.path)
            return web.Response(headers={"x-lrq-sim": "1"})
        if "redirect" in request.path:
            return web.Response(status=302, headers={"Location": "/elsewhere/models"})
        return web.Response(headers={"x-lrq-sim": "1"} if "sim" in request.path else {})

    async with serving(answer) as url:
        monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
        asked = {name: await asyncio.to_thread(is_simulator, f"{url}/{name}") for name in ("sim", "other", "redirect")}
    assert asked == {"sim": True, "other": False, "redirect": False}
    assert followed == []
    assert not is_simulator("http://192.0.2.1/v1")
