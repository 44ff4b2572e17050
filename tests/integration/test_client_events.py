"""What a process tells of its calls while it makes them, and limits that are set meanwhile."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiohttp import web
from calling import Scene, answer, until
from ledgers import opened, sqlite_ledger

from lrq.calls.observing import CallEvent
from lrq.ledger import Ledger
from lrq.ledger.changes import set_limits


@pytest.fixture
def ledger(home: Path) -> Iterator[Ledger]:
    with sqlite_ledger(home) as settings, opened(settings) as made:
        yield made


async def test_observers_hear_of_every_answer_and_reuse(scene: Scene) -> None:
    """A 429, the reply after it, and a second question that needs none."""
    slow = web.json_response({"error": {"message": "slow down"}}, status=429, headers={"Retry-After": "0"})
    events: list[CallEvent] = []
    async with scene(lambda number: slow if number == 1 else answer()) as bench:
        bench.caller.observers.append(events.append)
        await bench.ask()
        await bench.ask()
    assert [event.outcome for event in events] == ["throttled", "bought", "reused"]
    assert "slow down" in events[0].reason
    assert events[1].usage.prompt_tokens > 0
    assert events[1].cost_micros == 20
    assert events[1].latency > 0


async def test_limits_that_are_set_in_the_ledger_hold_within_seconds(scene: Scene) -> None:
    """Twelve calls wait behind one at a time; with a limit of four, four are in flight."""
    release = asyncio.Event()

    async def hold(_number: int) -> web.Response:
        await release.wait()
        return answer()

    async with scene(hold, concurrency=1) as bench:
        asked = [asyncio.create_task(bench.ask(f"q{n}")) for n in range(12)]
        await until(lambda: len(bench.requests) == 1)
        with bench.ledger.write() as tx:
            set_limits(tx, "judge.default.m", {"concurrency": 4})
        await until(lambda: len(bench.requests) == 4, 20)
        await asyncio.sleep(0.5)
        assert len(bench.requests) == 4
        release.set()
        await asyncio.gather(*asked)
