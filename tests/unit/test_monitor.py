"""Rates of the last minute, and the figures made of them and of the ledger's sums."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("prometheus_client")

from lrq.calls.limiter import LaneView, Rate
from lrq.config import Endpoint
from lrq.ledger.runs import Run, UsageRow
from lrq.monitor.live import Live, Source
from lrq.monitor.metrics import families
from lrq.monitor.usage import Totals, picture


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


def event(calls: object = 6, run: object = 1) -> dict[str, Any]:
    names = {"role": "judge", "endpoint": "default", "dimension": "faithfulness"}
    return {"hostname": "judge@one", "usage": [{"run": run, **names, "calls": calls}]}


def source(run: int = 1) -> Source:
    return Source(run, "judge", "default", "faithfulness")


def test_rates_look_back_one_minute(live: Live, clock: Clock):
    """Six calls a second are 360 a minute; half a minute after the last, those of 30 seconds are left."""
    for _ in range(120):
        clock.now += 1
        live.add(event())
    assert live.rates() == {source(): 360}
    clock.now += 30
    assert live.rates() == {source(): 180}
    clock.now += 30
    assert live.rates() == {}


def test_rates_of_a_short_while_are_not_understated(live: Live, clock: Clock):
    """Ten seconds after the start, 60 calls are 360 a minute."""
    for _ in range(10):
        clock.now += 1
        live.add(event())
    assert live.rates()[source()] == pytest.approx(360)


def test_runs_are_kept_apart_and_workers_summed(live: Live, clock: Clock):
    """Two runs may share an endpoint and a dimension; 6 + 5 calls of the first come from two workers."""
    clock.now += 60
    for told in (event(6, run=1), event(5, run=1), event(4, run=2)):
        live.add(told)
    assert live.rates() == {source(1): 11, source(2): 4}


@pytest.mark.parametrize(
    "broken",
    [
        {},
        {"usage": 5},
        {"usage": ["judge"]},
        {"usage": [{"run": 1}]},
        event("many"),
        event(None),
        event(1, run=float("inf")),
    ],
)
def test_an_event_of_another_form_is_dropped(live: Live, broken: dict[str, Any]):
    """Anyone on the bus can send; the page goes on."""
    live.add(broken)
    assert live.rates() == {}


def test_curves_sum_five_seconds_each(live: Live, clock: Clock):
    """12 calls of 5 s are 144 a minute; 12 × 250 micro-units 0.036 a minute; 600 of 2,400 prompt tokens cached."""
    figures = {"prompt_tokens": 2400, "cached_tokens": 600, "completion_tokens": 120, "cost": 3000, "latency_ms": 6000}
    told = event(12)
    told["usage"][0] |= {**figures, "throttled": 1, "reasks": 2, "reused": 3}
    live.add(told)
    clock.now += 5
    curves = live.curves()
    assert curves["seconds"] == 5
    assert curves["points"] == [
        {
            "calls": 144,
            "tokens": 30_240,
            "cost": pytest.approx(0.036),
            "latency_ms": 500,
            "throttled": 12,
            "failed": 0,
            "reasks": 24,
            "reused": 36,
            "cached": 0.25,
        }
    ]
    assert live.curves(run=2)["points"][0]["calls"] == 0
    assert live.totals["throttled"] == 1


def test_curves_look_back_a_quarter_of_an_hour(live: Live, clock: Clock):
    """180 points at most, and what is older is not kept."""
    for _ in range(2000):
        clock.now += 1
        live.add(event(1))
    points = live.curves()["points"]
    assert len(points) == 180
    assert {point["calls"] for point in points} == {60}
    assert len(live._seconds) <= 910


def test_a_flood_of_sources_does_not_grow(live: Live):
    """Anyone on the bus can send names; 200 a second are kept."""
    for number in range(1000):
        live.add(event(1, run=number))
    assert len(live.rates()) == 200


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


NAME = "judge.default.glm-4.5"
ENDPOINTS = {NAME: ("judge", Endpoint(url="http://localhost/v1", model="glm-4.5", rpm=600))}
LANE = LaneView(
    name=NAME,
    requests=Rate(limit=480.0, used=390, learnt=True),
    tokens=Rate(limit=None, used=120_000, learnt=False),
    concurrency=64,
    in_flight=12,
    waiting=31,
    paused=0.0,
    probing=False,
)


def shown(lanes: dict[str, LaneView] | None = None, live: Live | None = None) -> dict[str, Any]:
    return picture(Totals(at=5.0, runs=[run("a", 1), run("b", 2)], usage=USAGE), live or Live(), lanes or {}, ENDPOINTS)


def test_kinds_of_prompt_are_summed_and_rates_joined(live: Live, clock: Clock):
    """250,000 + 1,000,000 millionths are 1.25; (900 + 300) ms over 4 calls are 300 each."""
    clock.now += 60
    live.add(event(6))
    first, second = shown(live=live)["usage"]
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
        "latency_ms": 1200,
        "mean_latency_ms": 300,
        "calls_per_minute": 6.0,
    }
    assert second["cost"] is None  # two calls, neither priced: not zero
    assert second["calls_per_minute"] == 0.0


def test_endpoints_show_the_limits_in_force():
    """What the settings tell, until the limiter knows better."""
    (before,) = shown()["endpoints"]
    assert (before["role"], before["endpoint"], before["model"]) == ("judge", "default", "glm-4.5")
    assert (before["rpm"], before["waiting"], before["learned"]) == (600, 0, False)
    (after,) = shown({NAME: LANE})["endpoints"]
    assert (after["rpm"], after["calls_per_minute"], after["waiting"], after["in_flight"]) == (480, 390, 31, 12)
    assert after["learned"]


def test_an_endpoint_that_left_the_settings_is_still_shown():
    """A run keeps the judges it was frozen with."""
    gone = replace(LANE, name="judge.old.glm-3.5")
    names = [(row["role"], row["endpoint"]) for row in shown({gone.name: gone})["endpoints"]]
    assert names == [("judge", "default"), ("judge", "old.glm-3.5")]


def test_runs_show_their_budget():
    """Money leaves the ledger's millionths."""
    first = shown()["runs"][0]
    assert (first["run"], first["spent"], first["max_cost"], first["max_tokens"]) == ("a", 1.25, 5.0, None)


def test_a_picture_of_one_run_leaves_others_out(live: Live):
    """Usage, tasks and curves; the list of runs stays, to choose from."""
    live.add(event(6, run=2))
    of_a = picture(Totals(runs=[run("a", 1), run("b", 2)], usage=USAGE), live, {}, ENDPOINTS, run="a")
    assert {row["run"] for row in of_a["usage"]} == {"a"}
    assert [row["run"] for row in of_a["runs"]] == ["a", "b"]


def test_metrics_hold_the_same_figures():
    """Counters by outcome and kind, gauges per endpoint."""
    samples = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in families(shown({NAME: LANE}))
        for sample in family.samples
    }
    labels = ("a", "default", "faithfulness", "glm", "judge")
    assert samples[("lrq_calls_total", *sorted((*labels, "bought")))] == 4
    assert samples[("lrq_calls_total", *sorted((*labels, "reused")))] == 2
    assert samples[("lrq_tokens_total", *sorted((*labels, "cached")))] == 300
    assert samples[("lrq_cost_total", *sorted(labels))] == 1.25
    lane = ("default", "glm-4.5", "judge")
    assert samples[("lrq_calls_waiting", *lane)] == 31
    assert samples[("lrq_limit", *sorted((*lane, "rpm")))] == 480
    assert ("lrq_limit", *sorted((*lane, "tpm"))) not in samples


def test_the_dashboard_asks_for_series_that_there_are():
    """Each series that a panel names is one of `/metrics`, and so are the labels it chooses by."""
    path = Path(__file__).parents[2] / "deploy" / "grafana" / "lrq.json"
    queries = [target["expr"] for panel in json.loads(path.read_text())["panels"] for target in panel["targets"]]
    samples = [sample for family in families(shown({NAME: LANE})) for sample in family.samples]
    labels = {sample.name: set(sample.labels) for sample in samples}
    named = [found for query in queries for found in re.findall(r"(lrq_\w+)(?:\{([^}]*)\})?", query)]
    assert len(named) > 10
    for series, chosen in named:
        assert set(re.findall(r"(\w+)=~?", chosen)) <= labels[series], series
