"""What an item whose replies are bombs costs the five beside it: `python benchmarks/hostile.py [BOMB …]`.

Six items of six responses are judged on four dimensions by one process through a server that passes on to
`lrq judge-sim`, and answers whatever mentions one of the items with a bomb. Timed is the command from its start until
the five others are done, beside the same run with six honest items, which is made before and after: its figure is the
mean. Shown as well: the most memory that the judge process took. The server makes its bombs on the same cores.
"""

import argparse
import asyncio
import gzip
import sqlite3
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import closing, suppress
from pathlib import Path
from statistics import fmean
from typing import Any

import aiohttp
import orjson
from aiohttp import web
from common import Sim, Watch, fresh, show, write_lines

MARK = "Heligoland"
MIB = 1 << 20
OPENING = b'{"choices": [{"message": {"content": "'
CLOSING = b'"}, "finish_reason": "stop"}], "usage": {"prompt_tokens": 900, "completion_tokens": 900}}'


async def half_a_gigabyte() -> AsyncIterator[bytes]:
    for _ in range(512):
        yield b" " * MIB


async def packed() -> AsyncIterator[bytes]:
    yield PACKED


async def drops() -> AsyncIterator[bytes]:
    while True:
        yield b" "
        await asyncio.sleep(0.05)


async def statements() -> AsyncIterator[bytes]:
    yield OPENING + b"<statement>" * 11_000 + CLOSING


async def brackets() -> AsyncIterator[bytes]:
    yield OPENING + b"[[" * 60_000 + b"<think>" * 8_000 + CLOSING


PACKED = gzip.compress(b" " * (512 * MIB), 1)
BOMBS: dict[str, Callable[[], AsyncIterator[bytes]]] = {
    "half a gigabyte": half_a_gigabyte,
    "half a gigabyte in gzip": packed,
    "a drop at a time": drops,
    "120 kB of opening tags": statements,
    "120 kB of brackets, and thoughts": brackets,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bombs", nargs="*", metavar="BOMB", default=list(BOMBS), help=", ".join(BOMBS))
    options = parser.parse_args()
    rows = []
    with Sim("--latency", "300") as sim, Proxy(sim.url) as proxy:
        first, memory = measure(sim, proxy, "")
        measured = {name: measure(sim, proxy, name) for name in options.bombs}
        honest = fmean((first, measure(sim, proxy, "")[0]))
    rows.append(("six honest items", f"{honest:.1f}", "1.00x", f"{memory:.0f}"))
    for name, (seconds, peak) in measured.items():
        rows.append((name, f"{seconds:.1f}", f"{seconds / honest:.2f}x", f"{peak:.0f}"))
    show("five items beside one", ("", "seconds", "ratio", "judge MB"), rows)


def measure(sim: Sim, proxy: "Proxy", bomb: str) -> tuple[float, float]:
    """Return the seconds until five honest items were done, and the judge's peak of memory in MB."""
    proxy.bomb = BOMBS.get(bomb)
    judge = {"url": proxy.url, "model": "judge-sim", "timeout": 5}
    with tempfile.TemporaryDirectory() as folder, fresh(sim, judge=judge) as lrq:
        dataset = write_lines(Path(folder) / "items.jsonl", (item(n, bomb) for n in range(6)))
        begun = time.monotonic()
        process = lrq.start("run", dataset, "--no-train")
        watch = Watch(process.pid)
        while honest_done(lrq.home / "ledger.db") < 5:
            time.sleep(0.1)
            if time.monotonic() > begun + 300:
                raise SystemExit(f"{bomb}: five items were not done in 300 s\n{lrq.said()}")
        seconds = time.monotonic() - begun
        lrq.stop(process)
        watch.close()
        return seconds, watch.peaks["judge"] / 1e6


def item(number: int, bomb: str) -> dict[str, Any]:
    place = MARK if bomb and not number else f"Harbour {number}"
    context = " ".join(f"Ship {n} of {place} carries {n + number} tons." for n in range(60))
    responses = [f"Ship {n} of {place} carries {n + number} tons. It is the largest." for n in range(6)]
    question = f"What do the ships of {place} carry?"
    return {
        "id": "hostile" if place == MARK else place,
        "context": context,
        "question": question,
        "responses": responses,
    }


def honest_done(ledger: Path) -> int:
    with suppress(sqlite3.Error), closing(sqlite3.connect(f"file:{ledger}?mode=ro", uri=True)) as conn:
        query = "SELECT count(*) FROM items WHERE state = 'done' AND key != 'hostile'"
        return int(conn.execute(query).fetchone()[0])
    return 0


class Proxy:
    """A server before judge-sim, in a thread; what mentions the hostile item gets the bomb."""

    def __init__(self, url: str) -> None:
        self.bomb: Callable[[], AsyncIterator[bytes]] | None = None
        self._behind = url
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> "Proxy":
        self._thread.start()
        self.url = asyncio.run_coroutine_threadsafe(self._open(), self._loop).result()
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._session.close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    async def _open(self) -> str:
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        app = web.Application(client_max_size=64 * MIB)
        app.router.add_route("*", "/v1/{path:.*}", self._handle)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        return f"http://{host}:{port}/v1"

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        if self.bomb is not None and MARK.encode() in body:
            encoding = {"Content-Encoding": "gzip"} if self.bomb is packed else {}
            response = web.StreamResponse(headers={"Content-Type": "application/json", **encoding})
            with suppress(ConnectionError):
                await response.prepare(request)
                async for piece in self.bomb():
                    await response.write(piece)
            return response
        url = f"{self._behind}/{request.match_info['path']}"
        async with self._session.request(request.method, url, json=orjson.loads(body) if body else None) as reply:
            return web.Response(body=await reply.read(), status=reply.status, content_type="application/json")


if __name__ == "__main__":
    main()
