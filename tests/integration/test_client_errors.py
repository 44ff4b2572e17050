"""What the client makes of a server's errors: who is asked again, who is not, and what it costs."""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from calling import ANSWER, Scene, answer, calling, judge_at, question, serving, until
from ledgers import opened, sqlite_ledger
from pydantic import SecretStr

from lrq.calls.transport import Transport
from lrq.calls.tries import Patience
from lrq.config import Settings
from lrq.domain.errors import CallFailed, CallRefused, LrqError, RunHalted
from lrq.ledger import Ledger, runs


@pytest.fixture
def ledger(home: Path) -> Iterator[Ledger]:
    with sqlite_ledger(home) as settings, opened(settings) as made:
        yield made


PROMPT = (1 + 64) * 1  # one byte and a template's tokens at 1
BOUND = PROMPT + 16 * 2  # sixteen tokens of reply at 2


def error(status: int, message: str = "no", code: str = "", **more: Any) -> web.Response:
    return web.json_response({"error": {"message": message, "code": code}}, status=status, **more)


@pytest.mark.parametrize(
    ("status", "code"),
    [(400, "context_length_exceeded"), (400, "content_filter"), (413, ""), (415, ""), (422, "invalid_value")],
)
async def test_what_is_wrong_with_the_request_itself_is_asked_once(scene: Scene, status: int, code: str) -> None:
    """It would be refused again: one request, nothing charged, and who asks again later is told the same for free."""
    async with scene(lambda _: error(status, "too long", code)) as bench:
        for _ in range(2):
            with pytest.raises(CallRefused, match="too long"):
                await bench.ask()
        assert len(bench.requests) == 1
        row = bench.row()
        assert (row.state, row.spent_cost, row.spent_tokens) == ("active", 0, 0)
        assert bench.reserved() == (0, 0)


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (401, "invalid_api_key"),
        (402, "insufficient_balance"),
        (403, ""),
        (404, "model_not_found"),
        (307, ""),
        (400, "Arrearage"),
        (429, "insufficient_quota"),
        (429, "1113"),
    ],
)
async def test_what_is_wrong_with_the_account_pauses_the_run(scene: Scene, status: int, code: str) -> None:
    """Whoever may mend it reads one line; nothing is charged, and nothing more is asked."""
    async with scene(lambda _: error(status, "who are you?", code)) as bench:
        for _ in range(2):
            with pytest.raises(RunHalted, match="who are you"):
                await bench.ask()
        assert len(bench.requests) == 1
        row = bench.row()
        assert (row.state, row.halt, row.spent_cost, bench.reserved()) == ("paused", "account", 0, (0, 0))
        assert "\n" not in row.reason
        assert f"HTTP {status}" in row.reason
        assert "lrq resume" in row.reason


async def test_a_mended_account_goes_on_with_the_same_calls(scene: Scene) -> None:
    """After the resume the very same question is asked again: no failure stands in its way."""
    async with scene(lambda n: error(401) if n == 1 else answer()) as bench:
        with pytest.raises(RunHalted):
            await bench.ask()
        with bench.ledger.write() as tx:
            runs.activate(tx, bench.run)
        assert (await bench.ask()).choices[0].text == "[[7]]"


def unreadable(body: bytes, content_type: str = "application/json") -> Callable[[int], web.Response]:
    return lambda _: web.Response(body=body, content_type=content_type)


@pytest.mark.parametrize(
    ("respond", "reason", "unknown", "known"),
    [
        (lambda _: error(500), "HTTP 500", 0, 0),
        (lambda _: error(503, headers={"Retry-After": "0"}), "HTTP 503", 0, 0),
        (lambda _: error(504), "HTTP 504", BOUND, 0),
        (lambda _: error(408), "HTTP 408", 0, 0),
        (unreadable(b""), "HTTP 200", 0, PROMPT),
        (
            unreadable(b"<html>maintenance</html>", "text/html"),
            "HTTP 200: a page in place of a reply: maintenance",
            0,
            0,
        ),
        (unreadable(b'{"odd": 7}'), "form of a reply", 0, PROMPT + 10 * 2),  # a token for each of ten bytes
        (unreadable(b'{"choices": [{"message": {"content": 7}}]}'), "form of a reply", 0, BOUND),
        (unreadable(b'{"odd": 7, "usage": {"prompt_tokens": 3, "completion_tokens": 1}}'), "odd", 0, 3 * 1 + 1 * 2),
        (unreadable(b'{"error": {"message": "overloaded"}}'), "overloaded", 0, 0),
    ],
)
async def test_what_may_pass_is_tried_a_bounded_number_of_times(
    scene: Scene, respond: Callable[[int], Any], reason: str, unknown: int, known: int
) -> None:
    """Three tries here, then the call has failed. What nobody has answered stays charged at its bound, an answer that
    cannot be read by what came of it, an error not at all.
    """
    async with scene(respond) as bench:
        with pytest.raises(CallFailed, match=reason) as failed:
            await bench.ask()
        assert "(3 tries)" in str(failed.value)
        assert len(bench.requests) == 3
        row = bench.row()
        assert (row.spent_cost, row.unknown_cost) == (3 * (unknown + known), 3 * unknown)
        assert (row.state, bench.reserved()) == ("active", (0, 0))
        with pytest.raises(CallFailed):
            await bench.ask()
        assert len(bench.requests) == 3


async def test_a_reset_and_a_timeout_are_tried_again_and_stay_charged(scene: Scene) -> None:
    """The server may have answered both: two unknown deliveries, then the reply."""

    async def respond(number: int) -> web.Response:
        if number == 1:
            await asyncio.sleep(10)
        if number == 2:
            raise asyncio.CancelledError  # aiohttp closes the connection without a reply
        return answer()

    async with scene(respond, timeout=2) as bench:
        assert (await bench.ask()).choices[0].text == "[[7]]"
        assert len(bench.requests) == 3
        row = bench.row()
        assert row.unknown_cost == 2 * BOUND
        assert row.spent_cost == row.unknown_cost + 10 * 1 + 5 * 2
        assert bench.reserved() == (0, 0)


async def test_a_server_that_is_not_there_costs_nothing(ledger: Ledger, redis_server: Any) -> None:
    """A refused connection never reached anyone."""

    async def never(_: web.Request) -> web.Response:
        raise AssertionError

    async with serving(never) as url:
        settings = judge_at(url, Settings())
    async with calling(ledger, settings, redis_server.url) as bench:
        with pytest.raises(CallFailed, match="cannot connect"):
            await bench.ask()
        assert (bench.row().spent_cost, bench.reserved()) == (0, (0, 0))


@pytest.mark.parametrize(("form", "seconds"), [("seconds", 0.2), ("date", 0.9)])
async def test_retry_after_is_obeyed_in_both_forms(scene: Scene, form: str, seconds: float) -> None:
    """Seconds, or a date, which has no fractions: two seconds ahead is at least one."""
    came: list[float] = []

    def respond(number: int) -> web.Response:
        came.append(asyncio.get_running_loop().time())
        date = format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True)
        after = date if form == "date" else "0.2"
        return error(429, "slower", headers={"Retry-After": after}) if number == 1 else answer()

    async with scene(respond) as bench:
        await bench.ask()
        assert came[1] - came[0] >= seconds


async def test_a_worker_without_the_endpoint_says_so_and_marks_nothing(scene: Scene) -> None:
    """Its settings are at fault, not the call: no row is left behind."""
    async with scene(lambda _: answer()) as bench:
        with pytest.raises(LrqError, match="no judge endpoint named 'other'"):
            await bench.caller.call(replace(question("q"), endpoint="other"), bench.purpose)
        assert bench.calls() == []


async def test_uncounted_replies_are_never_free(scene: Scene) -> None:
    """No usage in the reply: bytes are charged in place of tokens, and the row says so."""
    async with scene(lambda _: web.json_response({"choices": ANSWER["choices"]})) as bench:
        await bench.ask("four")
        (row,) = bench.calls()
        assert (row.prompt_tokens, row.completion_tokens) == (4 + 64, len("[[7]]"))
        assert "counted no tokens" in row.reason
        assert bench.row().spent_cost == 68 * 1 + 5 * 2
        assert bench.row().spent_tokens == 73


async def test_a_key_that_the_server_repeats_is_kept_nowhere(scene: Scene) -> None:
    """Neither the exception nor the ledger holds a part of it, wherever the reason is cut; its line feed is dropped."""
    key = "sk-" + "k" * 200 + "-end"
    async with scene(lambda _: error(400, f"{'x' * 150} key {key} is odd"), api_key=f"{key}\n") as bench:
        with pytest.raises(CallRefused) as refused:
            await bench.ask()
        assert "***" in str(refused.value)
        assert "kkk" not in str(refused.value) + bench.calls()[0].reason


async def test_a_key_in_the_query_is_kept_nowhere(scene: Scene) -> None:
    """Nor a password in the URL: a server that repeats the address it was asked at does not bring them back."""
    secret = "q/k+" + "z" * 40
    written = "q%2Fk%2B" + "z" * 40

    def repeat(_: int) -> web.Response:
        return error(400, f"cannot POST /v1/chat/completions?api-key={written} nor {secret}")

    async with scene(repeat, query={"api-key": SecretStr(secret)}) as bench:
        with pytest.raises(CallRefused) as refused:
            await bench.ask()
        shown = str(refused.value) + bench.calls()[0].reason
        assert "***" in shown
        assert "zzz" not in shown
        assert "zzz" not in repr(bench.caller._settings)


async def test_a_redirect_is_not_followed_with_the_key(ledger: Ledger, redis_server: Any) -> None:
    """Another host could be anyone's."""
    elsewhere: list[str] = []

    async def catch(request: web.Request) -> web.Response:
        elsewhere.append(request.headers.get("Authorization", ""))
        return answer()

    async with serving(catch) as other:

        async def redirect(request: web.Request) -> web.Response:
            assert request.headers["Authorization"] == "Bearer sk-secret"
            return web.Response(status=307, headers={"Location": f"{other}/chat/completions"})

        async with serving(redirect) as url:
            settings = judge_at(url, Settings(), api_key="sk-secret")
            async with calling(ledger, settings, redis_server.url) as bench:
                with pytest.raises(RunHalted, match="HTTP 307"):
                    await bench.ask()
    assert elsewhere == []


@pytest.mark.parametrize("key", ["1", "x", "none", "token", "EMPTY"])
async def test_a_dummy_key_does_not_spoil_replies(scene: Scene, key: str) -> None:
    """What servers of one's own are given for a key is no secret, and stands in every reply."""
    said = "none of it is EMPTY: token x, mark [[1]]"
    async with scene(lambda _: answer(choices=[{"message": {"content": said}}]), api_key=SecretStr(key)) as bench:
        reply = await bench.ask()
        assert reply.choices[0].text == said
        assert (reply.usage.prompt_tokens, reply.usage.completion_tokens) == (10, 5)
        assert len(bench.requests) == 1


async def test_openai_s_key_goes_to_no_other_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """OPENAI_API_KEY in the environment is OpenAI's."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-openai")
    seen: list[Any] = []

    async def handle(request: web.Request) -> web.Response:
        seen.append(request.headers.get("Authorization"))
        return answer()

    async with serving(handle) as url:
        transport = Transport()
        outcome = await transport.post(judge_at(url, Settings()).judge.endpoints[0], question("q"), "key")
        await transport.close()
    assert outcome.kind == "ok"
    assert seen == [None]


async def test_an_endpoint_that_only_fails_is_named_with_what_it_says(scene: Scene) -> None:
    """As long as calls wait for it: whoever looks at the run learns what to mend."""
    is_well = False

    def respond(_number: int) -> web.Response:
        return answer() if is_well else error(500, "no memory")

    async with scene(respond, patience=Patience(first_pause=0.2)) as bench:
        asked = [asyncio.create_task(bench.ask(str(number))) for number in range(10)]
        await until(lambda: bool(bench.caller.waits_for()), 30)
        assert list(bench.caller.waits_for().values()) == ["HTTP 500: no memory"]
        is_well = True
        async with asyncio.timeout(60):
            await asyncio.gather(*asked)
        assert bench.caller.waits_for() == {}
