"""What a server may send beside an answer has an end: interim answers, status lines, headers, framing and trailers."""

import asyncio
import contextlib
import time

import pytest
from calling import question

from lrq.calls.transport import Transport
from lrq.config import Endpoint

ANSWER = b'HTTP/1.1 200 OK\r\nContent-Length: 48\r\n\r\n{"choices": [{"message": {"content": "[[7]]"}}]}'
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
HEADER = b"X-A: " + b"a" * 8000 + b"\r\n"
LONG = b"a" * 65536
# What the response begins with, and what follows without end.
ENDLESS = {
    "103": (b"", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"),
    "100, many at once": (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 5000),
    "blank lines": (b"", b"\r\n" * 30_000),
    "a version": (b"HTTP/", LONG),
    "a status in words": (b"HTTP/1.1 200 ", LONG),
    "headers": (b"HTTP/1.1 200 OK\r\n", HEADER),
    "a header": (b"HTTP/1.1 200 OK\r\nX-A: ", LONG),
    "the name of a header": (b"HTTP/1.1 200 OK\r\nX", LONG),
    "the length of a chunk": (CHUNKED, b"0" * 65536),
    "what follows the length of a chunk": (CHUNKED + b"5;", LONG),
    "chunks of a byte, with words": (CHUNKED, b"1;" + b"e" * 5000 + b"\r\n \r\n"),
    "trailers": (CHUNKED + b"0\r\n", HEADER),
    "a trailer": (CHUNKED + b"0\r\nX-A: ", LONG),
}


@pytest.mark.parametrize("name", ENDLESS)
async def test_what_comes_beside_an_answer_has_an_end(name: str) -> None:
    """Long before the timeout, and the next request is answered: its connection is another."""
    start, piece = ENDLESS[name]
    hostile = True

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(start)
            while hostile:
                writer.write(piece)
                await writer.drain()
            writer.write(ANSWER)
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    transport = Transport()
    server = await asyncio.start_server(respond, "127.0.0.1", 0)
    async with server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        asked = time.monotonic()
        outcome = await transport.post(Endpoint(url=url, model="m", timeout=120), question("q"), "k")
        assert time.monotonic() - asked < 60
        hostile, start = False, b""
        answered = await transport.post(Endpoint(url=url, model="m", timeout=120), question("q"), "k")
        await transport.close()
    assert (outcome.kind, outcome.unknown) == ("failed", True), outcome.reason
    assert answered.kind == "ok", answered.reason


async def test_a_few_interim_answers_are_passed_over() -> None:
    """As servers send them that load slowly."""

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\n" * 5)
        writer.write(ANSWER)
        await writer.drain()
        writer.close()

    transport = Transport()
    server = await asyncio.start_server(respond, "127.0.0.1", 0)
    async with server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        outcome = await transport.post(Endpoint(url=url, model="m", timeout=30), question("q"), "k")
        await transport.close()
    assert outcome.choices[0].text == "[[7]]"
