"""Prompt caches: the first call of a head goes ahead, and those that follow find what it has left."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from calling import calling, until
from conftest import RedisServer
from ledgers import opened, sqlite_ledger

from lrq.calls.heads import HEAD_BYTES, Heads
from lrq.calls.prices import Rates
from lrq.config import Endpoint, JudgeSettings, Price, Settings
from lrq.domain.records import Call, Purpose, Usage
from lrq.ledger import Ledger
from lrq.ledger import runs as runs_
from lrq.recipes import load_recipe
from lrq.sim.options import Options
from lrq.sim.server import Running, serve

COUNT = 30
DISCOUNT = Price(input=10, output=10, cached=1)
NO_DISCOUNT = Price(input=10, output=10)
PROMPTS = load_recipe("longreward").prompt_texts()


@pytest.fixture
def ledger(home: Path) -> Iterator[Ledger]:
    with sqlite_ledger(home) as settings, opened(settings) as made:
        yield made


def prompt(kind: str, number: int, language: str = "en") -> str:
    template = PROMPTS[f"{language}/{kind}"]
    fixed, _, rest = template.partition("{{")
    assert rest
    return f"{fixed}Case number {number}.\n\n[Answer]\n~~~~\nIt is {number}.\n~~~~\n"


def judge(sim: Running, **fields: Any) -> Settings:
    endpoint = Endpoint(url=sim.url, model="m", concurrency=COUNT, **fields)
    return Settings(judge=JudgeSettings(endpoints=(endpoint,)))


async def ask_at_once(ledger: Ledger, redis_url: str, settings: Settings, texts: list[str]) -> runs_.UsageRow:
    """All questions at the same moment; what was counted."""
    async with calling(ledger, settings, redis_url) as bench:
        purpose = Purpose(run=bench.run, kind="helpfulness")
        common = {"role": "judge", "endpoint": "default", "model": "m", "max_tokens": 64}
        calls = [Call(messages=({"role": "user", "content": text},), **common) for text in texts]  # type: ignore[arg-type]
        await asyncio.gather(*(bench.caller.call(call, purpose) for call in calls))
        with ledger.read() as tx:
            (row,) = runs_.usage_of(tx, bench.run)
        return row


@pytest.mark.parametrize(
    ("told", "goes_ahead"),
    [
        pytest.param({"price": DISCOUNT}, True, id="cached input is cheaper"),
        pytest.param({"price": DISCOUNT, "warm_cache": False}, False, id="told not to"),
        pytest.param({"price": NO_DISCOUNT}, False, id="nothing to gain"),
        pytest.param({"warm_cache": True}, True, id="told to, unpriced"),
    ],
)
async def test_one_call_goes_ahead_where_a_cache_pays(
    told: dict[str, Any], goes_ahead: bool, ledger: Ledger, redis_server: RedisServer
) -> None:
    """Of thirty calls of a kind that come at once the cache misses one, or as many as the limiter let begin."""
    async with serve(Options(latency_ms=300 if goes_ahead else 1500)) as sim:
        texts = [prompt("helpfulness", number) for number in range(COUNT)]
        row = await ask_at_once(ledger, redis_server.url, judge(sim, **told), texts)
        assert sim.stats()["tokens"]["cached"] == row.cached_tokens
    missed = COUNT - row.cached_tokens / 1152  # nine blocks of 128 tokens of the fixed part
    assert row.calls == COUNT
    assert missed == 1 if goes_ahead else missed >= 3


async def test_what_caching_saved_is_counted(ledger: Ledger, redis_server: RedisServer) -> None:
    """Cost and savings add up to what the calls would have cost without a cache, to the micro-unit."""
    async with serve(Options(latency_ms=100)) as sim:
        texts = [prompt("helpfulness", number) for number in range(COUNT)]
        row = await ask_at_once(ledger, redis_server.url, judge(sim, price=DISCOUNT), texts)
    assert row.saved == row.cached_tokens * 9
    assert row.cost + row.saved == (row.prompt_tokens + row.completion_tokens) * 10


async def test_kinds_with_a_short_fixed_part_do_not_wait() -> None:
    """Extractions of different parts begin alike for less than a cache keeps: each goes at once."""
    heads = Heads(patience=600)
    texts = [prompt("extraction", number) + f"{number} " * 3000 for number in range(COUNT)]
    turns = [heads.turn(call(text)) for text in texts]
    async with asyncio.timeout(20):
        await asyncio.gather(*(turn.wait() for turn in turns if turn is not None))
    assert None not in turns


async def test_several_questions_on_one_part_share_its_cache(ledger: Ledger, redis_server: RedisServer) -> None:
    """The document part stands before the question, so the second question pays for neither."""
    template = PROMPTS["en/extraction"].replace("{{part}}", "The captain of Sirius is Adams. " * 400)
    texts = [template.replace("{{question}}", f"Who is captain number {number}?") for number in range(4)]
    async with serve(Options(latency_ms=100)) as sim:
        row = await ask_at_once(ledger, redis_server.url, judge(sim, price=DISCOUNT), texts)
    assert row.cached_tokens > 0.7 * row.prompt_tokens


async def test_a_server_that_names_cached_tokens_has_a_cache(ledger: Ledger, redis_server: RedisServer) -> None:
    """Nobody told of a discount; once a reply counts cached tokens, the next head is warmed."""
    async with serve(Options(latency_ms=200)) as sim:
        settings = judge(sim)
        async with calling(ledger, settings, redis_server.url) as bench:
            for kind in ("helpfulness", "helpfulness", "completeness"):
                before = sim.stats()["tokens"]["cached"]
                texts = [prompt(kind, number) + kind for number in range(10)]
                await asyncio.gather(*(bench.ask(f"{text} {before}") for text in texts))
            assert sim.stats()["tokens"]["cached"] - before == 9 * 1152


async def test_a_failed_call_ahead_is_replaced(ledger: Ledger, redis_server: RedisServer) -> None:
    """When the call ahead gets no reply another goes in its place; nobody waits for good."""
    async with serve(Options(latency_ms=50, faults={"500": 0.5})) as sim:
        texts = [prompt("helpfulness", number) for number in range(COUNT)]
        async with asyncio.timeout(20):
            async with calling(ledger, judge(sim, price=DISCOUNT), redis_server.url) as bench:
                ended = await asyncio.gather(*(bench.ask(text) for text in texts), return_exceptions=True)
        assert sum(not isinstance(one, BaseException) for one in ended) > COUNT / 2


async def test_a_stop_frees_those_who_wait_for_the_first(ledger: Ledger, redis_server: RedisServer) -> None:
    """The call ahead is committed, the others are given up at once and unpaid."""
    async with serve(Options(latency_ms=1000)) as sim:
        texts = [prompt("helpfulness", number) for number in range(COUNT)]
        async with calling(ledger, judge(sim, price=DISCOUNT), redis_server.url) as bench:
            asked = [asyncio.create_task(bench.ask(text)) for text in texts]
            await until(lambda: sim.stats()["in_flight"] == 1 and len(bench.calls()) == COUNT)
            await bench.caller.stop()
            ended = await asyncio.gather(*asked, return_exceptions=True)
            assert sum(not isinstance(one, BaseException) for one in ended) == sim.stats()["complete"] == 1
            assert bench.reserved() == (0, 0)


# ----- the rule alone


def call(text: str) -> Call:
    return Call(role="judge", endpoint="default", model="m", messages=({"role": "user", "content": text},))


async def test_patience_ends_and_warmth_does() -> None:
    """Who has waited long enough goes without being ahead; after minutes without a call a head is cold again."""
    now = 0.0
    heads = Heads(patience=0.05, clock=lambda: now)
    first, second = heads.turn(call("x" * 5000)), heads.turn(call("x" * 4500 + "y"))
    assert first is not None
    assert second is not None
    await first.wait()
    waiting = asyncio.create_task(second.wait())
    await asyncio.sleep(0.01)
    assert not waiting.done()
    now = 0.06
    async with asyncio.timeout(20):
        await waiting
    first.end(answered=True)
    assert await leads(heads) is False
    now = 300.0
    assert await leads(heads) is True


async def leads(heads: Heads) -> bool:
    """Whether a call of that head would have others wait."""
    turn = heads.turn(call("x" * 5000))
    assert turn is not None
    await turn.wait()
    other = heads.turn(call("x" * 5000))
    assert other is not None
    waiting = asyncio.create_task(other.wait())
    await asyncio.sleep(0.01)
    waits = not waiting.done()
    turn.end(answered=True)
    await waiting
    return waits


def test_a_prompt_that_is_too_short_to_be_cached_has_no_turn() -> None:
    """Bytes count, for Chinese has three to a character."""
    heads = Heads()
    assert heads.turn(call("x" * (HEAD_BYTES - 1))) is None
    assert heads.turn(call("字" * (HEAD_BYTES // 3 + 1))) is not None


@pytest.mark.parametrize("name", sorted(PROMPTS))
def test_which_fixed_parts_are_heads(name: str) -> None:
    """All kinds of judging but extraction, in both languages; parts of prompts are none."""
    _, kind = name.split("/")
    fixed = PROMPTS[name].partition("{{")[0]
    whole = kind not in {"extraction", "part", "passage", "statement"}
    assert (len(fixed.encode()) >= HEAD_BYTES) is whole


def test_savings_are_what_cached_input_would_have_cost() -> None:
    """(10 − 1) for each of 80 cached tokens; nothing where the discount is none."""
    usage = Usage(prompt_tokens=100, completion_tokens=10, cached_tokens=80)
    assert Rates(input=10, output=20, cached=1).saved(usage) == 720
    assert Rates(input=10, output=20, cached=10).saved(usage) == 0
