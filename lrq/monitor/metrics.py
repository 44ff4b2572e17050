"""The same figures as Prometheus series, beside Flower's own at `/metrics`."""

from collections.abc import Iterable, Mapping
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

_OUTCOMES = {"bought": "calls", "reused": "reused", "failed": "failed", "unknown": "unknown"}
_KINDS = {"prompt": "prompt_tokens", "completion": "completion_tokens", "cached": "cached_tokens"}
_OF_USAGE = ("run", "role", "endpoint", "model", "dimension")
_OF_LANE = ("role", "endpoint", "model")


def families(shown: Mapping[str, Any]) -> Iterable[Any]:
    """The metric families of a picture of `lrq.monitor.usage`."""
    calls = CounterMetricFamily("lrq_calls", "Paid calls", labels=(*_OF_USAGE, "outcome"))
    tokens = CounterMetricFamily("lrq_tokens", "Tokens; cached ones are part of prompt", labels=(*_OF_USAGE, "kind"))
    cost = CounterMetricFamily("lrq_cost", "Money, in the currency of the settings", labels=_OF_USAGE)
    unpriced = CounterMetricFamily("lrq_unpriced_calls", "Calls without a known price", labels=_OF_USAGE)
    for row in shown["usage"]:
        names = [row[name] for name in _OF_USAGE]
        for outcome, column in _OUTCOMES.items():
            calls.add_metric([*names, outcome], row[column])
        for kind, column in _KINDS.items():
            tokens.add_metric([*names, kind], row[column])
        cost.add_metric(names, row["cost"] or 0.0)
        unpriced.add_metric(names, row["unpriced"])
    return [calls, tokens, cost, unpriced, *_gauges(shown["endpoints"])]


def _gauges(endpoints: Iterable[Mapping[str, Any]]) -> Iterable[Any]:
    waiting = GaugeMetricFamily("lrq_calls_waiting", "Calls that wait for the limits", labels=_OF_LANE)
    in_flight = GaugeMetricFamily("lrq_calls_in_flight", "Calls sent and not answered yet", labels=_OF_LANE)
    limit = GaugeMetricFamily("lrq_limit", "Limits in force", labels=(*_OF_LANE, "kind"))
    for row in endpoints:
        names = [row[name] for name in _OF_LANE]
        waiting.add_metric(names, row["waiting"])
        in_flight.add_metric(names, row["in_flight"])
        for kind in ("rpm", "tpm", "concurrency"):
            if row[kind] is not None:
                limit.add_metric([*names, kind], row[kind])
    return [waiting, in_flight, limit]
