"""Spans and metrics of calls, in the SDK's in-memory exporters."""

from typing import Any

import pytest

pytest.importorskip("opentelemetry.sdk")

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from lrq.calls.observing import CallEvent
from lrq.domain.logs import working_on
from lrq.domain.records import Call, Purpose, Usage
from lrq.ledger.runs import Run
from lrq.workers.telemetry import RunIds, Telemetry, run_ids

CALL = Call(role="judge", endpoint="default", model="glm-4.5", temperature=0.01, max_tokens=512, attempt=1)
PURPOSE = Purpose(run=7, item=3, step="faithfulness", dimension="faithfulness", kind="support")
USAGE = Usage(prompt_tokens=900, completion_tokens=40, cached_tokens=600)


class Collector:
    """A Telemetry and what it has exported."""

    def __init__(self) -> None:
        self.exporter, self.reader = InMemorySpanExporter(), InMemoryMetricReader()
        tracers = TracerProvider(id_generator=RunIds())
        tracers.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.telemetry = Telemetry(tracers, MeterProvider([self.reader]), "ledger-1")

    def observe(self, outcome: Any, **more: Any) -> None:
        self.telemetry.observe(CallEvent(call=CALL, purpose=PURPOSE, outcome=outcome, **more))

    def spans(self) -> Any:
        return self.exporter.get_finished_spans()

    def metrics(self) -> dict[str, Any]:
        (resource,) = self.reader.get_metrics_data().resource_metrics
        return {metric.name: metric.data.data_points for scope in resource.scope_metrics for metric in scope.metrics}


@pytest.fixture
def collector() -> Collector:
    return Collector()


def test_a_call_is_a_span_of_its_run(collector: Collector) -> None:
    """By the conventions for generative AI, with its work, tokens, price and time; no text."""
    with working_on(run="journals", item="ship-03", step="faithfulness"):
        collector.observe("bought", usage=USAGE, cost_micros=2500, latency=1.5)
    (span,) = collector.spans()
    assert (span.name, span.kind) == ("chat glm-4.5", SpanKind.CLIENT)
    assert (span.context.trace_id, span.parent.span_id) == run_ids("ledger-1", 7)
    assert (span.end_time - span.start_time) / 1e9 == pytest.approx(1.5)
    assert dict(span.attributes) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "default",
        "gen_ai.request.model": "glm-4.5",
        "gen_ai.request.temperature": 0.01,
        "gen_ai.request.max_tokens": 512,
        "gen_ai.request.choice.count": 1,
        "gen_ai.usage.input_tokens": 900,
        "gen_ai.usage.output_tokens": 40,
        "gen_ai.usage.cache_read.input_tokens": 600,
        "lrq.role": "judge",
        "lrq.run": "journals",
        "lrq.item": "ship-03",
        "lrq.step": "faithfulness",
        "lrq.dimension": "faithfulness",
        "lrq.kind": "support",
        "lrq.attempt": 1,
        "lrq.cost": 0.0025,
    }


def test_a_run_is_the_root_of_its_trace(collector: Collector) -> None:
    """Two processes that know nothing of each other meet in one trace; a paused run is an error with its reason."""
    other = Collector()
    other.observe("bought", usage=USAGE)
    (call,) = other.spans()
    names = {"recipe": "longreward", "config": {}, "state": "paused", "halt": "user", "reason": "lunch"}
    zeros = dict.fromkeys(
        (
            "round",
            "series",
            "open_items",
            "spent_cost",
            "spent_tokens",
            "reserved_cost",
            "reserved_tokens",
            "unknown_cost",
        ),
        0,
    )
    run = Run(id=7, name="journals", created_at=100.0, max_cost=None, max_tokens=None, **names, **zeros)  # type: ignore[arg-type]
    collector.telemetry.add_run(run, ended=160.0)
    (root,) = collector.spans()
    assert root.name == "run journals"
    assert root.parent is None
    assert (root.end_time - root.start_time) / 1e9 == 60
    assert root.context.trace_id == call.context.trace_id
    assert root.context.span_id == call.parent.span_id
    assert (root.status.status_code, root.status.description) == (StatusCode.ERROR, "lunch")
    collector.observe("bought", usage=USAGE)  # ids of calls are random again
    assert collector.spans()[-1].context.span_id != root.context.span_id


def test_what_failed_is_an_error_and_what_is_reused_no_span(collector: Collector) -> None:
    """429s and failures by their type; the server's words stay here, for they may quote the prompt."""
    collector.observe("throttled", latency=0.1, reason="SECRET words")
    collector.observe("failed", latency=0.2)
    collector.observe("reused")
    throttled, failed = collector.spans()
    assert throttled.attributes["error.type"] == "throttled"
    assert failed.attributes["error.type"] == "failed"
    assert throttled.status.status_code is StatusCode.ERROR
    assert "SECRET" not in throttled.to_json()
    outcomes = {point.attributes["lrq.outcome"]: point.value for point in collector.metrics()["lrq.calls"]}
    assert outcomes == {"throttled": 1, "failed": 1, "reused": 1}


def test_metrics_sum_tokens_time_and_money(collector: Collector) -> None:
    """Two calls of 900 + 40 tokens, 1.5 s and 0.0025 each."""
    for _ in range(2):
        collector.observe("bought", usage=USAGE, cost_micros=2500, latency=1.5)
    metrics = collector.metrics()
    tokens = {point.attributes["gen_ai.token.type"]: point.sum for point in metrics["gen_ai.client.token.usage"]}
    assert tokens == {"input": 1800, "output": 80}
    assert metrics["gen_ai.client.operation.duration"][0].sum == 3.0
    assert metrics["lrq.cost"][0].value == pytest.approx(0.005)
