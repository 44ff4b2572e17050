"""Estimates: from a few items to all, from a pilot to the rest, from calls to hours."""

import random
from functools import partial
from math import sqrt
from statistics import variance

import pytest

from lrq.domain.lines import Entry
from lrq.domain.records import Call, Item, Purpose, Response
from lrq.domain.tokens import count_tokens
from lrq.estimate.dry_run import Reservoir, stand_ins
from lrq.judge.estimate import (
    Amount,
    Bill,
    Capacity,
    Group,
    Known,
    Size,
    calibrated,
    duration,
    merged,
    replied,
    scale,
)
from lrq.recipes import RECIPES
from lrq.sim.counting import GUESSES, PER_CHARACTER, Counter


def group(kind: str, endpoint: str = "default", model: str = "m") -> Group:
    return Group("judge", endpoint, model, kind, kind, kind)


KINDS = RECIPES["longreward"].kinds
SCORES, EXTRACTION = group("helpfulness"), group("extraction")


def item(responses: int, chars: int) -> tuple[Size, Bill]:
    """An item whose scores go with its responses and whose extractions with its context."""
    size = Size(responses=responses, context_chars=chars, read_chars=responses * chars)
    scores = Amount(calls=responses, prompt_tokens=1000 * responses, completion_tokens=20 * responses)
    return size, {SCORES: scores, EXTRACTION: Amount(calls=chars / 100, prompt_tokens=chars)}


def totals(items: list[tuple[Size, Bill]]) -> tuple[Size, Bill]:
    size = items[0][0]
    for one, _ in items[1:]:
        size += one
    return size, merged(bill for _, bill in items)


# ----- scaling


def test_what_is_looked_at_whole_is_exact() -> None:
    """A sample of all items is its own sum, whatever measure explains it best."""
    items = [item(3, 500), item(7, 100), item(1, 9000)]
    size, bill = totals(items)
    found = scale(items, size)
    assert found.uncertainty == 0
    for name, amount in bill.items():
        assert found.bill[name].tokens == pytest.approx(amount.tokens)
        assert found.bill[name].calls == pytest.approx(amount.calls)


def test_each_group_grows_with_what_explains_it() -> None:
    """Four items of a hundred tell all: scores follow responses and extractions characters, both to the call."""
    rng = random.Random(0)
    items = [item(rng.randint(1, 20), rng.randint(100, 50_000)) for _ in range(100)]
    size, bill = totals(items)
    found = scale(items[:4], size)
    for name, amount in bill.items():
        assert found.bill[name].tokens == pytest.approx(amount.tokens)
    assert found.uncertainty == pytest.approx(0, abs=1e-6)


def test_uncertainty_is_that_of_a_random_sample() -> None:
    """Items alike in size whose calls differ: 1.96 standard errors of a sum, without replacement."""
    tokens = [100.0, 300.0, 200.0, 400.0]
    sample: list[tuple[Size, Bill]] = [(Size(), {SCORES: Amount(calls=1, prompt_tokens=value)}) for value in tokens]
    found = scale(sample, Size(items=40))
    assert found.bill[SCORES].prompt_tokens == 250 * 40
    error = 40 * sqrt((1 - 4 / 40) * variance(tokens) / 4)
    assert found.uncertainty == pytest.approx(1.96 * error / (250 * 40))


def test_the_interval_holds_the_truth_nineteen_times_of_twenty() -> None:
    """Over 300 samples of 30 of 1,000 items the stated interval covers the true sum as often as it says."""
    rng = random.Random(1)
    items = [item(rng.randint(1, 20), int(rng.lognormvariate(8, 1))) for _ in range(1000)]
    noisy: list[tuple[Size, Bill]] = []
    for size, bill in items:
        scores = bill[SCORES]
        tokens = scores.prompt_tokens * rng.uniform(0.5, 1.5)
        noisy.append((size, {**bill, SCORES: Amount(calls=scores.calls, prompt_tokens=tokens)}))
    whole, bill = totals(noisy)
    truth = sum(amount.tokens for amount in bill.values())
    covered = 0
    for _ in range(300):
        found = scale(rng.sample(noisy, 30), whole)
        estimate = sum(amount.tokens for amount in found.bill.values())
        covered += abs(estimate - truth) <= found.uncertainty * estimate
    assert 0.88 <= covered / 300 <= 0.99


def test_a_reservoir_sees_each_once_and_keeps_some_of_all() -> None:
    """Sizes are summed over all entries; the kept ones are a random choice, the same for the same file."""
    kept = []
    for _ in range(2):
        reservoir = Reservoir(10)
        for n in range(1000):
            reservoir.add(Size(context_chars=100), Entry(item=Item(id=str(n)), responses=(Response(text="a", k=0),)))
        assert (reservoir.total.items, reservoir.total.context_chars) == (1000, 100_000)
        assert (reservoir.with_responses, reservoir.responses) == (1000, 1000)
        kept.append([int(entry.item.id) for _, entry in reservoir.sample(10**9)])
    assert kept[0] == kept[1]
    assert len(set(kept[0])) == 10
    assert max(kept[0]) > 500


def test_long_documents_are_looked_at_less_often() -> None:
    """The sample holds about so many characters by the mean of all lines, three items at least."""
    reservoir = Reservoir(30)
    for n in range(50):
        reservoir.add(Size(context_chars=100_000), Entry(item=Item(id=str(n))))
    assert len(reservoir.sample(1_000_000)) == 10
    assert len(reservoir.sample(1000)) == 3


# ----- replies, caches and pilots


def test_replies_are_as_long_as_the_endpoint_has_counted() -> None:
    """Else typical for a score, as they are for what carries its material, and whatever a simulator says."""
    bill = {SCORES: Amount(calls=10, prompt_tokens=1000, completion_tokens=50)}
    carried = {EXTRACTION: Amount(calls=10, prompt_tokens=1000, completion_tokens=70)}
    known = {("judge", "default", "m", "helpfulness"): Known(completion_tokens=33, cached_share=0.5, seconds=1)}
    long_replies = partial(replied, kinds=KINDS, caches=(), simulated=())
    assert long_replies(bill, {})[SCORES].completion_tokens == 10 * 110
    assert long_replies(carried, {})[EXTRACTION].completion_tokens == 70
    assert long_replies(bill, known)[SCORES].completion_tokens == 330
    assert long_replies(bill, {}, simulated=("default",))[SCORES].completion_tokens == 50
    assert long_replies(bill, {}, kinds={})[SCORES].completion_tokens == 50, "of no kind: as it was counted"


def test_nothing_is_taken_for_cached_without_a_reason() -> None:
    """A cheaper price for cached input is one, cached tokens that were counted are a better one."""
    bill = {SCORES: Amount(calls=10, prompt_tokens=1000, cached_tokens=800)}
    known = {("judge", "default", "m", "helpfulness"): Known(completion_tokens=33, cached_share=0.25, seconds=1)}
    cached = partial(replied, kinds=KINDS, caches=(), simulated=())
    assert cached(bill, {})[SCORES].cached_tokens == 0
    assert cached(bill, {}, caches=("default",))[SCORES].cached_tokens == 800
    assert cached(bill, known, caches=("default",))[SCORES].cached_tokens == 250


def test_a_pilot_corrects_kind_by_kind() -> None:
    """Half as many calls as foreseen, twice the tokens of a reply: so it is for all; what it did not meet stays."""
    foreseen = {SCORES: Amount(calls=10, prompt_tokens=1000, completion_tokens=100)}
    billed = {group("helpfulness", "other", "n"): Amount(calls=5, prompt_tokens=500, completion_tokens=200)}
    whole = {
        SCORES: Amount(calls=100, prompt_tokens=10_000, completion_tokens=1000),
        EXTRACTION: Amount(calls=7, prompt_tokens=70),
    }
    found = calibrated(whole, foreseen, billed)
    assert found[SCORES] == Amount(calls=50, prompt_tokens=5000, completion_tokens=2000)
    assert found[EXTRACTION] == whole[EXTRACTION]


# ----- time


@pytest.mark.parametrize(
    ("capacity", "hours", "by"),
    [
        (Capacity(rpm=100), 1.0, "requests"),  # 6,000 calls at 100 a minute
        (Capacity(rpm=100, tpm=50_000), 2.0, "tokens"),  # 6 million tokens at 50,000 a minute: 120 minutes
        (Capacity(rpm=100, concurrency=1), 10 / 3, "concurrency"),  # 6,000 calls of 2 s one after the other
        (Capacity(concurrency=100), 1 / 30, "concurrency"),
    ],
)
def test_the_tightest_limit_decides(capacity: Capacity, hours: float, by: str) -> None:
    """6,000 calls of 1,000 tokens and two seconds each."""
    amount = Amount(calls=6000, prompt_tokens=5_000_000, completion_tokens=1_000_000)
    found = duration(amount, 2.0, capacity)
    assert found is not None
    assert (found.hours, found.by) == (pytest.approx(hours), by)


def test_without_a_limit_nobody_knows() -> None:
    """No hours are made up."""
    assert duration(Amount(calls=6000), 2.0, Capacity()) is None


# ----- counting and standing in


async def test_equal_questions_are_counted_once() -> None:
    """As in the ledger: the same key is one call, another draw is another."""
    counter = Counter(simulated=("e",))
    text = "Task: logicality\n\n[Question]\n~~~~\nWho?\n~~~~\n\n[Answer]\n~~~~\nIt is so.\n~~~~\n"
    for draw in (0, 0, 1):
        call = Call(role="judge", endpoint="e", model="m", messages=({"role": "user", "content": text},), draw=draw)
        await counter.call(call, Purpose(run=0, kind="logicality"))
    (amount,) = counter.take().values()
    assert amount.calls == 2
    assert amount.prompt_tokens == 2 * count_tokens(f"user\n{text}")
    assert counter.take() == {}


async def test_chinese_is_converted_and_english_is_not() -> None:
    """A judge's vocabulary has words of several characters; a simulator counts as we do."""
    amounts = {}
    for endpoint in ("simulator", "judge"):
        for text in ("The captain of Sirius is Adams. " * 20, "天狼星号的船长是张三" * 20):
            counter = Counter(simulated=("simulator",))
            messages = ({"role": "user", "content": text},)
            await counter.call(Call(role="judge", endpoint=endpoint, model="m", messages=messages), Purpose(run=0))
            amounts[endpoint, text[0]] = next(iter(counter.take().values())).prompt_tokens
    assert amounts["judge", "T"] == amounts["simulator", "T"]
    assert amounts["judge", "天"] == pytest.approx(PER_CHARACTER * 200, abs=3)
    assert amounts["simulator", "天"] == pytest.approx(200, abs=3)


async def test_what_the_simulator_does_not_know_is_guessed_and_said() -> None:
    """Each attempt tries another mark and is not counted again: a kind of prompt of one's own is one call."""
    counter = Counter()
    replies = []
    for attempt in range(len(GUESSES)):
        messages = ({"role": "user", "content": "Task: witticism\n\nHow witty?"},)
        call = Call(role="judge", endpoint="e", model="m", messages=messages, attempt=attempt)
        replies.append((await counter.call(call, Purpose(run=0, kind="witticism"))).choices[0].text)
    assert replies == list(GUESSES)
    assert counter.guessed == {"witticism"}
    (amount,) = counter.take().values()
    assert amount.calls == 1


@pytest.mark.parametrize("context", ["The captain of Sirius is Adams. " * 3, "一号码头停着一艘船。" * 200, ""])
def test_stand_ins_are_different_texts_of_the_length_asked_for(context: str) -> None:
    """Ten stretches of the document, or of what there is; none equal, or they would be judged once."""
    texts = stand_ins(Item(id="1", context=context, question="Who is the captain of Sirius, and since when?"), 10, 20)
    assert len(set(texts)) == 10
    assert {count_tokens(text) for text in texts} <= {19, 20, 21}
