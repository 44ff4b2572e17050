"""Whose fault a denial is: how the endpoint answers others decides, and what the pause says."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from calling import Bench, answer, calling, judge_at, make_run, question, serving
from ledgers import opened, sqlite_ledger

from lrq.config import Settings
from lrq.domain.errors import CallRefused, RunHalted
from lrq.domain.records import Reply
from lrq.ledger import Ledger
from lrq.ledger.schema import items


@pytest.fixture
def ledger(home: Path) -> Iterator[Ledger]:
    with sqlite_ledger(home) as settings, opened(settings) as made:
        yield made


def add_items(ledger: Ledger, run: int, count: int) -> None:
    """Items 1 to `count`, which are called item-1 and so on."""
    rows = [
        {"run_id": run, "key": f"item-{number}", "body": "{}", "state": "judging"} for number in range(1, count + 1)
    ]
    with ledger.write() as tx:
        tx.execute(items.insert(), rows)


async def ask(bench: Bench, text: str, item: int) -> Any:
    return await bench.caller.call(question(text), replace(bench.purpose, item=item))


def denied(status: int, message: str = "no") -> web.Response:
    return web.json_response({"error": {"message": message}}, status=status)


class Answers:
    """A server that denies whatever holds a word."""

    def __init__(self, status: int) -> None:
        self.status = status
        self.word = "forbidden"
        self.delay = 0.05
        self.requests: list[str] = []

    async def handle(self, request: web.Request) -> web.Response:
        text = (await request.json())["messages"][0]["content"]
        self.requests.append(text)
        if self.word in text:
            return denied(self.status)
        await asyncio.sleep(self.delay)
        return answer()


@pytest.mark.parametrize("status", [400, 403, 404])
async def test_what_is_denied_to_one_while_others_pass_is_its_own_fault(
    ledger: Ledger, redis_server: Any, status: int
) -> None:
    """The first to be answered is the denial: it waits until others are."""
    server, run = Answers(status), make_run(ledger)
    async with (
        serving(server.handle) as url,
        calling(ledger, judge_at(url, Settings()), redis_server.url, run=run) as bench,
    ):
        asked = [ask(bench, f"{'forbidden' if item == 1 else 'good'} {item}", item) for item in range(1, 9)]
        found = await asyncio.gather(*asked, return_exceptions=True)
        assert isinstance(found[0], CallRefused)
        assert all(isinstance(one, Reply) for one in found[1:])
        assert bench.row().state == "active"


@pytest.mark.parametrize("status", [400, 403, 404])
async def test_what_is_denied_to_all_is_the_account_s(ledger: Ledger, redis_server: Any, status: int) -> None:
    """No score is lost: after a resume each is asked again."""
    server, run = Answers(status), make_run(ledger)
    add_items(ledger, run, 8)
    async with (
        serving(server.handle) as url,
        calling(ledger, judge_at(url, Settings()), redis_server.url, run=run) as bench,
    ):
        asked = [ask(bench, f"forbidden {item}", item) for item in range(1, 9)]
        found = await asyncio.gather(*asked, return_exceptions=True)
        assert {type(one) for one in found} == {RunHalted}
        assert "the judge's endpoint refuses every call, of item item-" in bench.row().reason
        assert {row.state for row in bench.calls()} == {"unknown"}  # free to be asked again
        assert len(server.requests) <= 8 * 3


async def test_an_account_that_ends_in_the_middle_loses_no_score(ledger: Ledger, redis_server: Any) -> None:
    """It answered a moment ago; but three items are denied, and none passes any more."""
    server, run = Answers(403), make_run(ledger)
    add_items(ledger, run, 8)
    async with (
        serving(server.handle) as url,
        calling(ledger, judge_at(url, Settings()), redis_server.url, run=run) as bench,
    ):
        await asyncio.gather(*(ask(bench, f"good {item}", item) for item in range(1, 9)))
        server.word = "more"
        asked = [ask(bench, f"more {item}", item) for item in range(1, 9)]
        assert {type(one) for one in await asyncio.gather(*asked, return_exceptions=True)} == {RunHalted}
        row = bench.row()
        assert (row.state, row.halt) == ("paused", "account")
        assert "and has answered 8 other calls: HTTP 403: no" in row.reason
        assert "`lrq resume r --skip item-" in row.reason
        assert not [row for row in bench.calls() if row.state == "failed"]


async def test_another_process_s_answers_count(ledger: Ledger, redis_server: Any) -> None:
    """This one has had none."""
    server, run = Answers(403), make_run(ledger)
    async with serving(server.handle) as url:
        settings = judge_at(url, Settings())
        async with calling(ledger, settings, redis_server.url, run=run) as one:
            await ask(one, "good", 1)
        async with calling(ledger, settings, redis_server.url, run=run) as other:
            with pytest.raises(CallRefused):
                await ask(other, "forbidden", 2)


async def test_a_request_above_the_rate_alone_is_not_waited_for(ledger: Ledger, redis_server: Any) -> None:
    """It says so of itself; the others are not slowed down."""
    message = "Request too large for m on tokens per min (TPM): Limit 30000, Requested 45000."

    async def handle(request: web.Request) -> web.Response:
        text = (await request.json())["messages"][0]["content"]
        return denied(429, message) if "large" in text else answer()

    async with serving(handle) as url, calling(ledger, judge_at(url, Settings()), redis_server.url) as bench:
        asked = [ask(bench, f"{'large' if item == 1 else 'good'} {item}", item) for item in range(1, 9)]
        found = await asyncio.gather(*asked, return_exceptions=True)
        assert isinstance(found[0], CallRefused)
        assert all(isinstance(one, Reply) for one in found[1:])
        (view,) = bench.limiter.view().values()
        assert not view.requests.learnt
        assert not view.tokens.learnt
