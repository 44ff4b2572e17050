"""OpenTelemetry: a run is a trace, a call a span of it, by the conventions for generative AI. No text leaves.

It is on where the user names a collector with OTEL_EXPORTER_OTLP_ENDPOINT, and off else. All processes that work on a
run put their spans into one trace without a word to each other: its id follows from the ledger and the run.
"""

import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from opentelemetry import trace
from opentelemetry.metrics import MeterProvider
from opentelemetry.sdk.trace.id_generator import IdGenerator, RandomIdGenerator
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from lrq.calls.observing import CallEvent
from lrq.domain.logs import current_work
from lrq.ledger.runs import Run


class Telemetry:
    """Makes spans and metrics of calls, and the span of a whole run.

    Args:
        tracers: an SDK's TracerProvider whose id generator is `RunIds`.
        meters: an SDK's MeterProvider.
        ledger_id: tells the runs of ledgers apart.
    """

    def __init__(self, tracers: Any, meters: MeterProvider, ledger_id: str) -> None:
        self._tracers, self._meters = tracers, meters
        self._ledger_id = ledger_id
        self._tracer = tracers.get_tracer("lrq")
        meter = meters.get_meter("lrq")
        self._tokens = meter.create_histogram("gen_ai.client.token.usage", "{token}", "Tokens of a call")
        self._duration = meter.create_histogram("gen_ai.client.operation.duration", "s", "Time of a call")
        self._calls = meter.create_counter("lrq.calls", "{call}", "Calls by outcome")
        self._cost = meter.create_counter("lrq.cost", "1", "Money, in the currency of the settings")

    def observe(self, event: CallEvent) -> None:
        """Record one event of a call; a reused reply is a count, no span."""
        names = self._names(event)
        self._calls.add(1, {**names, "lrq.outcome": event.outcome})
        if event.outcome == "reused":
            return
        failure = {} if event.outcome == "bought" else {"error.type": event.outcome}
        self._duration.record(event.latency, names | failure)
        self._add_span(event, names | failure)
        if not failure:
            for kind, number in (("input", event.usage.prompt_tokens), ("output", event.usage.completion_tokens)):
                self._tokens.record(number, {**names, "gen_ai.token.type": kind})
            self._cost.add((event.cost_micros or 0) / 1e6, names)

    def add_run(self, run: Run, ended: float | None = None) -> None:
        """Record the span of a whole run, the root of its trace: from its making until now, or `ended`."""
        attributes = {"lrq.run": run.name, "lrq.recipe": run.recipe, "lrq.state": run.state}
        ids: RunIds = self._tracers.id_generator
        with ids.fixed(*run_ids(self._ledger_id, run.id)):
            context = trace.set_span_in_context(trace.INVALID_SPAN)
            start = _ns(run.created_at)
            span = self._tracer.start_span(f"run {run.name}", context, attributes=attributes, start_time=start)
        if run.state not in {"active", "done"}:
            span.set_status(Status(StatusCode.ERROR, run.reason[:200]))
        span.end(_ns(ended or time.time()))

    def close(self) -> None:
        """Send what has not been sent yet."""
        self._tracers.shutdown()
        self._meters.shutdown()  # type: ignore[attr-defined]

    def _names(self, event: CallEvent) -> dict[str, Any]:
        call = event.call
        return {
            "gen_ai.operation.name": "embeddings" if call.role == "embedding" else "chat",
            "gen_ai.provider.name": call.endpoint,
            "gen_ai.request.model": call.model,
            "lrq.role": call.role,
            "lrq.step": event.purpose.step,
            "lrq.dimension": event.purpose.dimension,
        }

    def _add_span(self, event: CallEvent, names: dict[str, Any]) -> None:
        call, end = event.call, time.time()
        requested = {
            "gen_ai.request.temperature": call.temperature,
            "gen_ai.request.max_tokens": call.max_tokens,
            "gen_ai.request.choice.count": call.n,
        }
        used = {
            "gen_ai.usage.input_tokens": event.usage.prompt_tokens,
            "gen_ai.usage.output_tokens": event.usage.completion_tokens,
            "gen_ai.usage.cache_read.input_tokens": event.usage.cached_tokens,
            "lrq.cost": None if event.cost_micros is None else event.cost_micros / 1e6,
        }
        work = {f"lrq.{name}": value for name, value in current_work().items()}
        attributes = {**work, **names, **requested, "lrq.kind": event.purpose.kind, "lrq.attempt": call.attempt}
        attributes |= used if event.outcome == "bought" else {}
        span = self._tracer.start_span(
            f"{names['gen_ai.operation.name']} {call.model}",
            self._context(event.purpose.run),
            SpanKind.CLIENT,
            {name: value for name, value in attributes.items() if value is not None},
            start_time=_ns(end - event.latency),
        )
        if event.outcome != "bought":
            span.set_status(Status(StatusCode.ERROR, event.outcome))
        span.end(_ns(end))

    def _context(self, run: int) -> Any:
        trace_id, span_id = run_ids(self._ledger_id, run)
        root = SpanContext(trace_id, span_id, is_remote=True, trace_flags=TraceFlags(TraceFlags.SAMPLED))
        return trace.set_span_in_context(NonRecordingSpan(root))


class RunIds(IdGenerator):
    """Random ids, but for the span of a run."""

    def __init__(self) -> None:
        self._random = RandomIdGenerator()
        self._fixed: tuple[int, int] | None = None

    @contextmanager
    def fixed(self, trace_id: int, span_id: int) -> Iterator[None]:
        """Give spans that are started within these ids."""
        self._fixed = trace_id, span_id
        yield
        self._fixed = None

    def generate_trace_id(self) -> int:
        return self._fixed[0] if self._fixed else self._random.generate_trace_id()

    def generate_span_id(self) -> int:
        return self._fixed[1] if self._fixed else self._random.generate_span_id()


def run_ids(ledger_id: str, run: int) -> tuple[int, int]:
    """Return the ids of a run's trace, of 128 bits, and of its root span, of 64."""
    digest = hashlib.sha256(f"lrq:{ledger_id}:{run}".encode()).digest()
    return int.from_bytes(digest[:16]), int.from_bytes(digest[16:24])


def open_telemetry(ledger_id: str, service: str) -> Telemetry:
    """Export to the collector that the OTEL_* variables name; `service` is this process's type."""
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter  # noqa: PLC0415
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
    from opentelemetry.sdk.metrics import MeterProvider as Meters  # noqa: PLC0415
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader  # noqa: PLC0415
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

    resource = Resource.create({"service.name": os.environ.get("OTEL_SERVICE_NAME", f"lrq-{service}")})
    tracers = TracerProvider(resource=resource, id_generator=RunIds())
    tracers.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    meters = Meters([PeriodicExportingMetricReader(OTLPMetricExporter())], resource)
    return Telemetry(tracers, meters, ledger_id)


def _ns(seconds: float) -> int:
    return round(seconds * 1e9)
