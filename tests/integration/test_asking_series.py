"""Re-asks through the real client: what is bought, what is read again for nothing, what stands in the ledger."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from calling import Bench, Scene, answer
from ledgers import opened, sqlite_ledger

from lrq.domain.errors import Unscored
from lrq.domain.marks import read_score
from lrq.judge.asking import Asker, JudgeModel
from lrq.ledger import Ledger


@pytest.fixture
def ledger(home: Path) -> Iterator[Ledger]:
    with sqlite_ledger(home) as settings, opened(settings) as made:
        yield made


MODEL = JudgeModel(endpoint="default", model="m")


async def score(bench: Bench, series: int = 0) -> Any:
    ask = Asker(caller=bench.caller, models=lambda *_: MODEL, purpose=bench.purpose, series=series)
    return await ask("helpfulness", "prompt", read_score, dimension="helpfulness", max_tokens=64)


def says(text: str, finish: str = "stop", **message: str) -> web.Response:
    return answer(choices=[{"message": {"content": text, **message}, "finish_reason": finish}])


async def test_five_attempts_at_two_temperatures_reach_the_server(scene: Scene) -> None:
    """0.01, then 0.95: equal bodies from the second on, and five calls all the same."""
    async with scene(lambda _: says("no mark")) as bench:
        with pytest.raises(Unscored, match="5 attempts"):
            await score(bench)
        assert [body["temperature"] for body in bench.requests] == [0.01, 0.95, 0.95, 0.95, 0.95]
        assert [row.attempt for row in bench.calls()] == [0, 1, 2, 3, 4]
        assert bench.row().spent_cost == 5 * 20


async def test_a_cut_reply_is_asked_again_with_twice_the_room(scene: Scene) -> None:
    """The server sees the doubled limit."""
    async with scene(lambda n: says("[[3]] and", "length") if n < 3 else says("[[9]]")) as bench:
        assert (await score(bench)).value == 9.0
        assert [body["max_tokens"] for body in bench.requests] == [64, 128, 256]


async def test_a_judge_that_reasons_is_read_by_its_answer(scene: Scene) -> None:
    """Its reasoning is kept beside it, for `show`."""
    async with scene(lambda _: says("[[4]]", reasoning_content="perhaps [[9]]")) as bench:
        assert (await score(bench)).value == 4.0


async def test_a_filter_s_notice_is_paid_for_and_is_no_answer(scene: Scene) -> None:
    """Though it holds a mark."""
    async with scene(lambda n: says("[[10]]", "content_filter") if n == 1 else says("[[2]]")) as bench:
        assert (await score(bench)).value == 2.0


async def test_a_redelivered_step_buys_nothing_again(scene: Scene) -> None:
    """Neither the readable reply, nor the unreadable ones before it."""
    async with scene(lambda n: says("no mark" if n < 3 else "[[6]]")) as bench:
        first = await score(bench)
        again = await score(bench)
        assert (again.value, again.calls) == (first.value, first.calls)
        assert len(again.calls) == 3
        assert len(bench.requests) == 3


async def test_a_retry_reads_the_old_series_for_nothing_and_asks_a_new_one(scene: Scene) -> None:
    """Five unreadable replies are not bought again; the sixth is the first of the new series."""
    async with scene(lambda n: says("no mark" if n <= 5 else "[[8]]")) as bench:
        with pytest.raises(Unscored):
            await score(bench)
        found = await score(bench, series=1)
        assert found.value == 8.0
        assert len(bench.requests) == 6
        assert bench.requests[5]["temperature"] == 0.01
        assert [(row.series, row.attempt) for row in bench.calls()] == [(0, n) for n in range(5)] + [(1, 0)]
        assert (await score(bench, series=2)).calls == found.calls
        assert len(bench.requests) == 6


async def test_a_retry_asks_again_what_the_server_could_not_answer(scene: Scene) -> None:
    """A failed call stays failed in its series, and is free to be asked in the next."""
    async with scene(lambda n: web.json_response({}, status=500) if n <= 3 else says("[[5]]")) as bench:
        for _ in range(2):
            with pytest.raises(Unscored, match="HTTP 500"):
                await score(bench)
        assert len(bench.requests) == 3
        assert (await score(bench, series=1)).value == 5.0
        assert len(bench.requests) == 4
