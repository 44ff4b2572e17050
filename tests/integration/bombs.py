"""Answers that no honest server gives, and a process that asks for them and prints what came of it.

Run as a program: `bombs.py URL NAME…` asks for each, several at once, and prints one line of JSON for each.
"""

import asyncio
import contextlib
import functools
import gzip
import json
import re
import sys
import zlib
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import zstandard
from aiohttp import web
from calling import question

from lrq.calls.transport import Transport
from lrq.config import Endpoint

AT_ONCE = 12
MIB = 1 << 20
ZEROS = bytes(MIB)
REPLY = b'{"choices": [{"message": {"content": "[[7]]"}}], "padding": "'


@functools.cache
def packed(unpacked: int, wbits: int, start: bytes = REPLY) -> bytes:
    """So many MiB of blanks after the beginning of a reply, as gzip (31), zlib (15) or bare deflate (-15)."""
    packer = zlib.compressobj(9, wbits=wbits)
    pieces = [packer.compress(start), *(packer.compress(b" " * MIB) for _ in range(unpacked)), packer.flush()]
    return b"".join(pieces)


async def once(piece: bytes) -> AsyncIterator[bytes]:
    yield piece


async def repeated(piece: bytes, times: int, start: bytes = b"") -> AsyncIterator[bytes]:
    yield start
    for _ in range(times):
        yield piece


async def dripping() -> AsyncIterator[bytes]:
    while True:
        yield b" "
        await asyncio.sleep(0.05)


# Name → status, its packing, pieces of the body, and what the reason says.
Bomb = tuple[int, str, Callable[[], AsyncIterator[bytes]], str]
LONG = r"HTTP 200: the reply is longer than [\d,]+ bytes and was not read to its end"
PARTS = r"HTTP 200: the reply has more parts than any answer"
PACKED = r"HTTP 200: the reply cannot be unpacked"
BOMBS: dict[str, Bomb] = {
    "plain half a gigabyte": (200, "", lambda: repeated(b"x" * MIB, 500, REPLY), LONG),
    "without end": (200, "", lambda: repeated(b"\n" * MIB, 10**9), LONG),
    "gzip of half a gigabyte": (200, "gzip", lambda: once(packed(512, 31)), LONG),
    "zlib of half a gigabyte": (200, "deflate", lambda: once(packed(512, 15)), LONG),
    "deflate of half a gigabyte": (200, "deflate", lambda: once(packed(512, -15)), LONG),
    "gzip in gzip": (
        200,
        "gzip",
        lambda: once(gzip.compress(packed(512, 31))),
        r"HTTP 200: the body does not have the form",
    ),
    "empty members of gzip": (200, "gzip", lambda: repeated(gzip.compress(b"") * 10_000, 10**9), LONG),
    "damaged gzip": (200, "gzip", lambda: repeated(b"\x1f\x8b\x08 damaged", 100), PACKED),
    "zstd": (200, "zstd", lambda: once(zstandard.compress(ZEROS * 200)), r"HTTP 200: the reply is packed in a way"),
    "brotli": (200, "br", lambda: repeated(b"\x5b\xff" * 4096, 10**9), LONG),
    "lists in lists": (200, "", lambda: once(b'{"choices": [' + b"[]," * (1_300_000) + b"1]}"), PARTS),
    "small objects": (200, "gzip", lambda: once(gzip.compress(b"[" + b'{"":0},' * 590_000 + b"1]")), PARTS),
    "deeper than the stack": (200, "", lambda: once(b"[" * 100_000), r"HTTP 200: the body does not have the form"),
    "an error without end": (429, "", lambda: repeated(b"slow down " * 100_000, 10**9), r"HTTP 429: slow down"),
    "a packed error": (400, "gzip", lambda: once(packed(512, 31, b"too long ")), r"HTTP 400: too long"),
    "a page without end": (200, "", lambda: repeated(b"<b>" * 100_000, 10**9, b"<html>"), LONG),
    "a drop at a time": (200, "", dripping, r"no answer: \w*TimeoutError"),
}


async def detonate(request: web.Request) -> web.StreamResponse:
    """Answer with the bomb that the path names by its number."""
    name = list(BOMBS)[int(re.findall(r"/bomb(\d+)/", request.path)[0])]
    status, encoding, pieces, _ = BOMBS[name]
    response = web.StreamResponse(status=status, headers={"Content-Encoding": encoding} if encoding else {})
    with contextlib.suppress(ConnectionError):  # whoever asked has had enough
        await response.prepare(request)
        async for piece in pieces():
            await response.write(piece)
        await response.write_eof()
    return response


def peak() -> int:
    """Bytes of memory that this process has had at most."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) * 1024


async def ask(url: str, name: str) -> dict[str, object]:
    """Ask for one bomb as a judge, as an embedding and for the list of models; say what came of it."""
    number = list(BOMBS).index(name)
    endpoint = Endpoint(url=url.replace("/v1", f"/bomb{number}/v1"), model="m", timeout=2.0 if "drop" in name else 60.0)
    transport = Transport()
    call = question("q")
    embedding = replace(call, role="embedding", messages=(), input=("text",) * 64)
    asked = [transport.post(endpoint, call if at % 2 else embedding, "k") for at in range(AT_ONCE)]
    outcomes = await asyncio.gather(*asked)
    models = await transport.models(endpoint, seconds=2.0)
    await transport.close()
    return {
        "name": name,
        "peak": peak(),
        "contexts": dict(models.contexts),
        "outcomes": sorted({(one.kind, one.reason, one.unknown, one.unread is not None) for one in outcomes}),
    }


async def main(url: str, names: list[str]) -> None:
    for name in names:
        print(json.dumps(await ask(url, name)), flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2:]))
