"""Rates of the last minute, and the figures made of them and of the ledger's sums."""

from typing import Any

import pytest

pytest.importorskip("prometheus_client")

from lrq.config import Endpoint
from lrq.ledger.runs import Run, UsageRow
from lrq.monitor.live import Lane, Live, Source, Standing
from lrq.monitor.metrics import families
from lrq.monitor.usage import Totals, picture

JUDGE = Lane("judge", "default")


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def live(clock: Clock) -> Live:
    return Live(clock)


def event(worker: str = "judge@one", calls: int = 6, *, run: int = 1, **lane: Any) -> dict[str, Any]:
    line = {"role": "judge", "endpoint": "default", "waiting": 3, "in_flight": 2, "rpm": 500, "tpm": None}
    usage = {"run": run, "role": "judge", "endpoint": "default", "dimension": "faithfulness"}
    return {
        "hostname": worker,
        "usage": [{**usage, "calls": calls, "tokens": calls * 100}],
        "lanes": [{**line, "concurrency": 8, **lane}],
    }


def source(run: int = 1) -> Source:
    return Source(run, "judge", "default", "faithfulness")


def test_rates_look_back_one_minute(live: Live, clock: Clock):
    """Six calls a second are 360 a minute; half a minute after the last, those of 30 seconds are left."""
    for _ in range(120):
        clock.now += 1
        live.add(event())
    assert live.rates()[source()].calls == 60 * 6
    clock.now += 30
    assert live.rates()[source()].calls == 30 * 6
    clock.now += 30
    assert live.rates() == {}


def test_rates_of_a_short_while_are_not_understated(live: Live, clock: Clock):
    """Ten seconds after the start, 60 calls are 360 a minute, and their 6,000 tokens 36,000."""
    for _ in range(10):
        clock.now += 1
        live.add(event())
    assert live.rates()[source()].calls == pytest.approx(360)
    assert live.rates()[source()].tokens == pytest.approx(36_000)


def test_runs_are_kept_apart(live: Live, clock: Clock):
    """Two runs may share an endpoint and a dimension."""
    clock.now += 60
    live.add(event(run=1, calls=6))
    live.add(event(run=2, calls=4))
    assert {source: rate.calls for source, rate in live.rates().items()} == {source(1): 6, source(2): 4}


def test_waiting_is_summed_over_workers_and_limits_are_the_last_told(live: Live, clock: Clock):
    """Each worker tells its own queue; all keep to the same limit."""
    live.add(event("one", waiting=3, in_flight=2, rpm=500))
    clock.now += 1
    live.add(event("two", waiting=4, in_flight=1, rpm=480))
    assert live.standings() == {JUDGE: Standing(waiting=7, in_flight=3, rpm=480, concurrency=8)}


def test_a_silent_worker_waits_for_nothing(live: Live, clock: Clock):
    """A killed worker takes its queue with it."""
    live.add(event("one"))
    clock.now += 4
    live.add(event("two", waiting=4, in_flight=1))
    clock.now += 2
    assert live.standings()[JUDGE].waiting == 4


@pytest.mark.parametrize(
    "broken",
    [
        {},
        {"usage": 5, "lanes": []},
        {"usage": [], "lanes": ["judge"]},
        {"usage": [{"run": 1}], "lanes": []},
        event(calls="many"),  # type: ignore[arg-type]
        event(waiting=None),
        event(rpm=float("inf")),
    ],
)
def test_an_event_of_another_form_is_dropped(live: Live, broken: dict[str, Any]):
    """Anyone on the bus can send; the page goes on."""
    live.add(broken)
    assert live.rates() == {}
    assert live.standings() == {}


def run(name: str, number: int) -> Run:
    return Run(
        id=number,
        name=name,
        recipe="longreward",
        config={},
        state="active",
        halt="",
        reason="",
        round=0,
        series=0,
        open_items=1,
        max_cost=5_000_000,
        max_tokens=None,
        spent_cost=1_250_000,
        spent_tokens=900,
        reserved_cost=0,
        reserved_tokens=0,
        unknown_cost=0,
        created_at=0.0,
    )


def row(kind: str, **values: Any) -> UsageRow:
    counts = dict.fromkeys(
        ("calls", "reused", "failed", "unknown", "unpriced", "prompt_tokens", "completion_tokens", "cached_tokens"), 0
    )
    names = {"run": "a", "role": "judge", "endpoint": "default", "model": "glm", "step": "faithfulness"}
    return UsageRow(
        **{**names, "dimension": "faithfulness", "kind": kind, **counts, "cost": 0, "latency_ms": 0, **values}  # type: ignore[arg-type]
    )


USAGE = [
    row("statements", calls=1, reused=2, prompt_tokens=100, completion_tokens=50, cost=250_000, latency_ms=900),
    row("support", calls=3, failed=1, prompt_tokens=600, cached_tokens=300, cost=1_000_000, latency_ms=300),
    row("", run="b", dimension="", calls=2, unpriced=2),
]


def shown(live: Live) -> dict[str, Any]:
    told = {JUDGE: Endpoint(url="http://localhost/v1", model="glm", rpm=600)}
    return picture(Totals(at=5.0, runs=[run("a", 1), run("b", 2)], usage=USAGE), live, told)


def test_kinds_of_prompt_are_summed_and_rates_joined(live: Live, clock: Clock):
    """250,000 + 1,000,000 millionths are 1.25; (900 + 300) ms over 4 calls are 300 each."""
    clock.now += 60
    live.add(event(calls=6))
    first, second = shown(live)["usage"]
    assert first == {
        "run": "a",
        "role": "judge",
        "endpoint": "default",
        "model": "glm",
        "dimension": "faithfulness",
        "calls": 4,
        "reused": 2,
        "failed": 1,
        "unknown": 0,
        "unpriced": 0,
        "prompt_tokens": 700,
        "completion_tokens": 50,
        "cached_tokens": 300,
        "cost": 1.25,
        "mean_latency_ms": 300,
        "calls_per_minute": 6.0,
    }
    assert second["cost"] is None  # two calls, neither priced: not zero
    assert second["calls_per_minute"] == 0.0


def test_endpoints_show_the_limit_in_force(live: Live):
    """What the settings tell, until a worker says what it keeps to."""
    (before,) = shown(live)["endpoints"]
    assert (before["rpm"], before["waiting"], before["model"]) == (600, 0, "glm")
    live.add(event(rpm=480))
    (after,) = shown(live)["endpoints"]
    assert (after["rpm"], after["waiting"], after["in_flight"]) == (480, 3, 2)


def test_runs_show_their_budget(live: Live):
    """Money leaves the ledger's millionths."""
    first = shown(live)["runs"][0]
    assert (first["run"], first["spent"], first["max_cost"], first["max_tokens"]) == ("a", 1.25, 5.0, None)


def test_metrics_hold_the_same_figures(live: Live):
    """Counters by outcome and kind, gauges per endpoint."""
    live.add(event())
    samples = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in families(shown(live))
        for sample in family.samples
    }
    labels = ("a", "default", "faithfulness", "glm", "judge")
    assert samples[("lrq_calls_total", *sorted((*labels, "bought")))] == 4
    assert samples[("lrq_calls_total", *sorted((*labels, "reused")))] == 2
    assert samples[("lrq_tokens_total", *sorted((*labels, "cached")))] == 300
    assert samples[("lrq_cost_total", *sorted(labels))] == 1.25
    assert samples[("lrq_calls_waiting", "default", "judge")] == 3
    assert samples[("lrq_limit", "default", "judge", "rpm")] == 500
    assert ("lrq_limit", "default", "judge", "tpm") not in samples
