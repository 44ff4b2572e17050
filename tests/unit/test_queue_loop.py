"""The event loop that a worker's threads share."""

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from lrq.domain.errors import Stopping
from lrq.workers import loop


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    yield
    loop.close()
    loop.stopping.clear()


def test_all_threads_share_one_loop():
    """Coroutines of many threads run on one loop, in one thread that is none of theirs."""

    async def where() -> tuple[int, int]:
        await asyncio.sleep(0.01)
        return id(asyncio.get_running_loop()), threading.get_ident()

    with ThreadPoolExecutor(8) as pool:
        seen = list(pool.map(lambda _: (*loop.run(where()), threading.get_ident()), range(16)))
    assert len({place for place, _, _ in seen}) == 1
    assert len({runner for _, runner, _ in seen}) == 1
    assert {runner for _, runner, _ in seen}.isdisjoint({asker for _, _, asker in seen})


def test_errors_reach_the_thread_that_waits():
    """What a coroutine raises is raised where it was run from."""

    async def fails() -> None:
        raise ValueError("the coroutine's own")

    with pytest.raises(ValueError, match="the coroutine's own"):
        loop.run(fails())


def test_stopping_ends_waits_and_forbids_calls():
    """After `stop` a coroutine that waits for it goes on, and `check` raises."""

    async def waits() -> str:
        await asyncio.wait_for(loop.until_stopping(), 5)
        return "woken"

    loop.check()
    with ThreadPoolExecutor(1) as pool:
        woken = pool.submit(loop.run, waits())
        loop.stop()
        assert woken.result(5) == "woken"
    with pytest.raises(Stopping):
        loop.check()


async def _knows() -> bool:
    await loop.until_stopping()
    return loop.stopping.is_set()


def test_a_loop_begun_while_stopping_knows_it():
    """A stop that comes before the first coroutine is not missed."""
    loop.stop()
    assert loop.run(asyncio.wait_for(_knows(), 5))


def test_close_runs_the_closers_last_first_and_cancels_the_rest():
    """Closing leaves no task behind; the next coroutine gets a new loop."""
    order: list[str] = []

    async def closer(name: str) -> None:
        order.append(name)

    async def begins() -> "asyncio.Task[None]":
        return asyncio.ensure_future(asyncio.sleep(60))

    left = loop.run(begins())
    loop.at_close(lambda: closer("first added"))
    loop.at_close(lambda: closer("last added"))
    loop.close()
    assert order == ["last added", "first added"]
    assert left.cancelled()
    assert loop.run(asyncio.sleep(0, "again")) == "again"
