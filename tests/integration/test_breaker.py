"""What has only failed pauses the run: unreadable judges, refusals, errors in place of replies."""

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from aiohttp import web
from calling import SOON, Bench, Scene, answer, calling, judge_at, make_run, serving
from ledgers import BOTH, opened, some_ledger, sqlite_ledger

from lrq.calls.breaker import WarmUp
from lrq.config import Settings
from lrq.domain.errors import CallRefused, RunHalted, Unscored
from lrq.domain.marks import read_score
from lrq.domain.records import Call
from lrq.judge.asking import Asker, JudgeModel
from lrq.ledger import Ledger, Writer, runs
from lrq.ledger.breakers import LIMIT, NoteFailure, NoteSuccess, Question
from lrq.ledger.schema import items

EMBEDDING = Call(role="embedding", endpoint="default", model="m", input=("text",))
MODEL = JudgeModel(endpoint="default", model="m")


@pytest.fixture
def ledger(home: Path) -> Iterator[Ledger]:
    with sqlite_ledger(home) as settings, opened(settings) as made:
        yield made


@pytest.fixture(params=BOTH)
def any_ledger(request: pytest.FixtureRequest, home: Path) -> Iterator[Ledger]:
    with some_ledger(request, home) as settings, opened(settings) as made:
        yield made


async def ask(bench: Bench, number: int, kind: str = "helpfulness") -> Any:
    purpose = replace(bench.purpose, item=number)
    asker = Asker(caller=bench.caller, models=lambda *_: MODEL, purpose=purpose, report=bench.caller.breaker.read)
    return await asker(kind, f"prompt {number} {kind}", read_score, dimension=kind, max_tokens=64)


def says(text: str, finish: str = "stop") -> web.Response:
    return answer(choices=[{"message": {"content": text}, "finish_reason": finish}])


async def ask_all(bench: Bench, count: int, kind: str = "helpfulness") -> list[Any]:
    return await asyncio.gather(*(ask(bench, number, kind) for number in range(count)), return_exceptions=True)


@pytest.mark.parametrize(
    ("text", "finish", "advice"),
    [
        ("I would say eight.\x1b[31m", "stop", "the prompt's form"),
        ("", "stop", "raise judge.reasoning_tokens"),
        ("", "MAX_TOKENS", "raise judge.reasoning_tokens"),
        ("", "SAFETY", "loosen the server's filter"),
        ("I would say eight. [[8]]", "abort", "why it ends its replies so"),
    ],
)
async def test_a_judge_that_can_never_be_read_pauses_the_run(scene: Scene, text: str, finish: str, advice: str) -> None:
    """Twenty calls, and the few in flight; the reason has a reply in printable letters, and what to set."""
    async with scene(lambda _: says(text, finish)) as bench:
        found = await ask_all(bench, 100)
        assert all(isinstance(one, RunHalted) for one in found)
        assert LIMIT <= len(bench.requests) <= 2 * LIMIT
        row = bench.row()
        assert (row.state, row.halt) == ("paused", "account")
        assert f"{LIMIT} in a row" in row.reason
        assert advice in row.reason
        assert "lrq resume r" in row.reason
        assert row.reason.isprintable()
        assert not text or "I would say eight." in row.reason


async def test_two_processes_count_together(ledger: Ledger, redis_server: Any) -> None:
    """Neither alone would have seen twenty."""
    requests: list[int] = []

    async def handle(_: web.Request) -> web.Response:
        requests.append(1)
        await asyncio.sleep(0.02)
        return says("no mark")

    async with serving(handle) as url:
        settings, run = judge_at(url, Settings()), make_run(ledger)
        async with (
            calling(ledger, settings, redis_server.url, run=run) as one,
            calling(ledger, settings, redis_server.url, run=run) as other,
        ):
            await asyncio.gather(ask_all(one, 50, "helpfulness"), ask_all(other, 50, "logicality"))
            assert one.row().state == "paused"
            assert len(requests) <= 2 * LIMIT


async def test_a_kind_of_question_is_counted_for_itself(scene: Scene) -> None:
    """The judge is well, but for one kind of prompt."""
    async with scene(lambda _: says("[[7]]")) as bench:
        assert [one.value for one in await ask_all(bench, 30)] == [7.0] * 30
        question = Question(run=bench.run, role="judge", endpoint="default", model="m", kind="extraction")
        for number in range(LIMIT - 1):
            await bench.writer.write(NoteFailure(question=question, item=number, reason="no"))
            await bench.writer.write(NoteSuccess(question=replace(question, kind="helpfulness")))
        assert bench.row().state == "active"
        with pytest.raises(RunHalted, match="the extraction calls to m have only failed, 20 in a row"):
            await bench.writer.write(NoteFailure(question=question, item=1, reason="no"))


async def test_a_judge_that_is_read_now_and_then_goes_on(scene: Scene) -> None:
    """One of six replies holds a mark: no row of twenty."""
    async with scene(lambda n: says("[[7]]" if n % 6 == 0 else "no mark")) as bench:
        for number in range(30):
            with suppress(Unscored):
                await ask(bench, number)
        assert bench.row().state == "active"
        assert len(bench.requests) > 3 * LIMIT


async def test_an_error_in_each_reply_pauses_the_run(scene: Scene) -> None:
    """The server is there and answers, so that nobody waits for it as for one that is down."""
    body = {"choices": [{"message": {"content": ""}, "error": {"code": 502, "message": "connection lost"}}]}
    async with scene(lambda _: web.json_response(body), patience=replace(SOON, failures=9)) as bench:
        found = await ask_all(bench, 40)
        assert {type(one) for one in found} == {RunHalted}
        assert "connection lost" in bench.row().reason
        assert len(bench.requests) <= 2 * LIMIT
        assert bench.row().spent_cost == 0


LOGIN = b"<!DOCTYPE html><html><head><title>Sign in</title><script>if (a < b) {}</script></head><body>to go on</body>"


async def test_a_page_in_place_of_replies_pauses_the_run(scene: Scene) -> None:
    """A wrong path, or a proxy's login: no time helps, nothing is charged, and the reason has the page's words."""
    page = partial(web.Response, body=LOGIN, content_type="text/html")
    async with scene(lambda _: page(), patience=replace(SOON, failures=9)) as bench:
        found = await ask_all(bench, 40)
        assert {type(error) for error in found} == {RunHalted}
        reason = bench.row().reason
        assert "a page in place of a reply: Sign in to go on; see that its url" in reason
        assert len(bench.requests) <= 2 * LIMIT
        assert (bench.row().spent_cost, bench.row().unknown_cost) == (0, 0)


@pytest.mark.parametrize("vectors", [[[], []], [[1.0]], []])
async def test_an_embedding_server_without_vectors_pauses_the_run(scene: Scene, vectors: list[Any]) -> None:
    """Its requests are not made smaller without end: it is none of their sizes."""
    data = [{"index": index, "embedding": vector} for index, vector in enumerate(vectors)]
    async with scene(lambda _: web.json_response({"data": data}), patience=replace(SOON, failures=9)) as bench:
        calls = [replace(EMBEDDING, input=(f"text {number}", "another")) for number in range(40)]
        found = await asyncio.gather(
            *(bench.caller.call(call, replace(bench.purpose, item=n)) for n, call in enumerate(calls)),
            return_exceptions=True,
        )
        assert {type(error) for error in found} == {RunHalted}
        assert "the embedding's calls to m have only failed" in bench.row().reason
        assert len(bench.requests) <= 3 * LIMIT


async def test_what_is_known_is_no_failure_of_today(scene: Scene) -> None:
    """After a resume old replies are read again for nothing; the count has begun anew."""
    async with scene(lambda _: says("no mark")) as bench:
        await ask_all(bench, 50)
        bought = len(bench.requests)
        with bench.ledger.write() as tx:
            runs.activate(tx, bench.run)
        await ask_all(bench, 50)
        assert bought + LIMIT <= len(bench.requests) <= bought + 2 * LIMIT
        assert bench.row().state == "paused"


async def note(writer: Writer, question: Question, count: int, numbers: list[int]) -> None:
    for place in range(count):
        failure = NoteFailure(question=question, item=numbers[place % len(numbers)], reason="HTTP 400: no")
        await writer.write(failure)


async def test_one_bad_item_is_not_the_endpoint(any_ledger: Ledger) -> None:
    """Where others went well before, it takes the failures of several; the reason names them."""
    run = make_run(any_ledger)
    with any_ledger.write() as tx:
        values = [{"run_id": run, "key": f"item-{number}", "body": "{}", "state": "judging"} for number in range(1, 10)]
        tx.execute(items.insert(), values)
        tx.execute(sa.text("UPDATE runs SET open_items = 9"))
        ids = list(tx.execute(sa.select(items.c.id).order_by(items.c.id)).scalars())
    question = Question(run=run, role="judge", endpoint="default", model="m", kind="support")
    writer = Writer(any_ledger)
    try:
        await writer.write(NoteSuccess(question=question))
        await note(writer, question, 3 * LIMIT, ids[:1])
        with pytest.raises(RunHalted, match=r"60 in a row|63 in a row") as halted:
            await note(writer, question, 3, ids[1:4])
        assert "(items item-1, item-2, item-3)" in str(halted.value)
    finally:
        await asyncio.to_thread(writer.close)


async def test_refusals_without_end_pause_the_run(scene: Scene) -> None:
    """Nothing is paid for them, and nothing comes of them."""
    refusal = {"error": {"message": "the prompt is too long for this deployment"}}
    async with scene(lambda _: web.json_response(refusal, status=400)) as bench:
        found = await ask_all(bench, 60)
        assert {type(one) for one in found} <= {RunHalted, Unscored, CallRefused}
        assert bench.row().state == "paused"
        assert "too long for this deployment" in bench.row().reason
        assert len(bench.requests) <= 2 * LIMIT


async def test_few_calls_are_in_flight_until_one_has_brought_something() -> None:
    """Ten; then all that wait go at once, and who is cancelled takes nobody's turn."""
    warm_up = WarmUp()
    waiting = [asyncio.create_task(warm_up.enter()) for _ in range(30)]
    await asyncio.sleep(0)
    assert sum(task.done() for task in waiting) == 10
    waiting[10].cancel()
    warm_up.leave()
    await asyncio.sleep(0.01)
    assert sum(task.done() and not task.cancelled() for task in waiting) == 11
    warm_up.prove()
    await asyncio.sleep(0.01)
    assert all(task.done() for task in waiting)
