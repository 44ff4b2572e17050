"""What was not sent is charged to nobody, and says what to mend."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from calling import answer, calling, judge_at, question, serving
from ledgers import opened, sqlite_ledger
from pydantic import SecretStr

from lrq.calls.outcomes import Outcome
from lrq.calls.transport import Transport
from lrq.config import Endpoint, Settings
from lrq.domain.errors import CallFailed, RunHalted
from lrq.ledger import Ledger


@pytest.fixture
def ledger(home: Path) -> Iterator[Ledger]:
    with sqlite_ledger(home) as settings, opened(settings) as made:
        yield made


async def well(_: web.Request) -> web.Response:
    return answer()


async def post(endpoint: Endpoint) -> Outcome:
    transport = Transport()
    try:
        return await transport.post(endpoint, question("q"), "key")
    finally:
        await transport.close()


def endpoint(url: str, **fields: Any) -> Endpoint:
    return Endpoint(url=url, model="m", **{"timeout": 5.0, **fields})


async def test_a_key_that_no_header_can_hold_pauses_the_run(
    ledger: Ledger, redis_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is charged, however often it is asked; the key is not shown."""
    async with serving(well) as url:
        settings = judge_at(url, Settings(), api_key="sk-good-key-of-a-file")
        broken = SecretStr("sk-first-key-of-a-file\nsk-second-key")  # past the settings, which would refuse it
        bad = settings.judge.endpoints[0].model_copy(update={"api_key": broken})
        judge = settings.judge.model_copy(update={"endpoints": (bad,)})
        settings = settings.model_copy(update={"judge": judge})
        async with calling(ledger, settings, redis_server.url) as bench:
            with pytest.raises(RunHalted, match="such as a line feed") as halted:
                await bench.ask()
            row = bench.row()
            assert (row.state, row.spent_cost, row.unknown_cost, bench.reserved()) == ("paused", 0, 0, (0, 0))
            assert "sk-" not in str(halted.value) + row.reason


async def test_a_user_in_the_url_beside_a_key_is_said(ledger: Ledger, redis_server: Any) -> None:
    """The client cannot send both."""
    async with serving(well) as url:
        settings = judge_at(url.replace("//", "//user:secret@"), Settings(), api_key="sk-a-key-of-some-length")
        async with calling(ledger, settings, redis_server.url) as bench:
            with pytest.raises(RunHalted, match="user and password beside a key") as halted:
                await bench.ask()
            assert bench.row().spent_cost == 0
            assert "secret" not in str(halted.value)


async def test_a_connection_that_is_refused_was_no_delivery() -> None:
    """Nor is a server that speaks no TLS."""
    async with serving(well) as url:
        tls = await post(endpoint(url.replace("http://", "https://")))
    gone = await post(endpoint(url))
    assert "without TLS its URL begins with http://" in tls.reason
    assert "not permitted" not in tls.reason
    for outcome in (tls, gone):
        assert (outcome.kind, outcome.unknown, outcome.is_unsent) == ("failed", False, True)
        assert outcome.reason.startswith("cannot connect: ")


@pytest.mark.parametrize(("status", "kind"), [(407, "account"), (403, "account"), (502, "failed")])
async def test_a_proxy_that_refuses_was_no_delivery(monkeypatch: pytest.MonkeyPatch, status: int, kind: str) -> None:
    """Its answer is not the endpoint's."""

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 {status} No\r\nContent-Length: 0\r\n\r\n".encode())
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{port}")
        outcome = await post(endpoint("https://judge.invalid/v1", proxy="environment"))
        named = await post(endpoint("https://judge.invalid/v1", proxy=f"http://me:pw-of-proxy@127.0.0.1:{port}"))
        ignored = await post(endpoint("https://judge.invalid/v1"))
    assert named.reason == outcome.reason
    assert "its host name is not known here" in ignored.reason
    assert ignored.reason.endswith("the environment's proxy is not used: set `proxy: environment` to use it")
    assert (outcome.kind, outcome.unknown, outcome.is_unsent) == (kind, False, True)
    assert f"the proxy answers HTTP {status}" in outcome.reason


async def test_what_went_out_and_was_not_answered_is_unknown() -> None:
    """The connection is closed after the request."""

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    async with server:
        outcome = await post(endpoint(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"))
    assert (outcome.kind, outcome.unknown, outcome.is_unsent) == ("failed", True, False)


CUT = b'HTTP/1.1 200 OK\r\nContent-Length: 4000\r\n\r\n{"choices": [{"message": {"content": "[[7'
BLANK = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n\n\r\n11\r\n: still thinking\n\r\n"


@pytest.mark.parametrize("ends", [True, False])
@pytest.mark.parametrize(
    ("sent", "unread"),
    [
        (CUT, 4000),
        (CUT.replace(b"Content-Length: 4000\r\n", b""), len(CUT) - CUT.index(b"{")),
        (BLANK, None),
    ],
)
async def test_a_body_that_is_cut_off_is_charged_by_its_length(
    ledger: Ledger, redis_server: Any, sent: bytes, unread: int | None, ends: bool
) -> None:
    """By a timeout or a reset alike; where nothing but blanks and comments came, nobody knows."""
    if ends and unread and b"Length" not in sent:
        return  # such a body is whole

    async def stop_in_the_middle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(sent)
        await writer.drain()
        if not ends:
            await reader.read()  # until the client has had enough
        writer.close()

    server = await asyncio.start_server(stop_in_the_middle, "127.0.0.1", 0)
    async with server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        outcome = await post(endpoint(url, timeout=0.5))
        settings = judge_at(url, Settings(), timeout=0.5)
        async with calling(ledger, settings, redis_server.url) as bench:
            with pytest.raises(CallFailed, match="cut off after" if unread else "no answer"):
                await bench.ask()
            row = bench.row()
    assert (outcome.kind, outcome.unread, outcome.unknown) == ("failed", unread, unread is None)
    assert (row.spent_cost > 0, row.unknown_cost > 0, bench.reserved()) == (True, unread is None, (0, 0))
