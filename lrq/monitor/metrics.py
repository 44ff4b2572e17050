"""The same figures as Prometheus series, beside Flower's own at `/metrics`."""

from collections.abc import Iterable, Mapping
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

_OUTCOMES = {"bought": "calls", "reused": "reused", "failed": "failed", "unknown": "unknown"}
_KINDS = {"prompt": "prompt_tokens", "completion": "completion_tokens", "cached": "cached_tokens"}
_OF_USAGE = ("run", "role", "endpoint", "model", "dimension")
_OF_LANE = ("role", "endpoint", "model")


def families(shown: Mapping[str, Any]) -> Iterable[Any]:
    """Return the metric families of a picture of `lrq.monitor.usage`."""
    calls = CounterMetricFamily("lrq_calls", "Paid calls", labels=(*_OF_USAGE, "outcome"))
    tokens = CounterMetricFamily("lrq_tokens", "Tokens; cached ones are part of prompt", labels=(*_OF_USAGE, "kind"))
    cost = CounterMetricFamily("lrq_cost", "Money, in the currency of the settings", labels=_OF_USAGE)
    unpriced = CounterMetricFamily("lrq_unpriced_calls", "Calls without a known price", labels=_OF_USAGE)
    latency = CounterMetricFamily("lrq_call_seconds", "Seconds that bought calls took, added up", labels=_OF_USAGE)
    for row in shown["usage"]:
        names = [row[name] for name in _OF_USAGE]
        for outcome, column in _OUTCOMES.items():
            calls.add_metric([*names, outcome], row[column])
        for kind, column in _KINDS.items():
            tokens.add_metric([*names, kind], row[column])
        cost.add_metric(names, row["cost"] or 0.0)
        unpriced.add_metric(names, row["unpriced"])
        latency.add_metric(names, row["latency_ms"] / 1000)
    return [
        calls,
        tokens,
        cost,
        unpriced,
        latency,
        *_of_runs(shown["runs"]),
        *_gauges(shown["endpoints"]),
        *_live(shown),
    ]


def _of_runs(runs: Iterable[Mapping[str, Any]]) -> Iterable[Any]:
    items = GaugeMetricFamily("lrq_items", "Items by how far they are", labels=("run", "state"))
    money = GaugeMetricFamily("lrq_run_cost", "Money of a run: spent, reserved, budget", labels=("run", "kind"))
    active = GaugeMetricFamily("lrq_run_active", "1 while a run is worked on", labels=("run",))
    for row in runs:
        for state, number in (("open", row["items"] - row["ended"]), ("failed", row["failed"])):
            items.add_metric([row["run"], state], number)
        items.add_metric([row["run"], "done"], row["ended"] - row["failed"])
        for kind, column in (("spent", "spent"), ("reserved", "reserved"), ("budget", "max_cost")):
            if row[column] is not None:
                money.add_metric([row["run"], kind], row[column])
        active.add_metric([row["run"]], row["state"] == "active")
    return [items, money, active]


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


def _live(shown: Mapping[str, Any]) -> Iterable[Any]:
    throttled = CounterMetricFamily("lrq_throttled_calls", "Answers with status 429 since Flower started")
    throttled.add_metric([], shown["live"]["throttled"])
    reasks = CounterMetricFamily("lrq_reasks", "Re-asks after unreadable replies since Flower started")
    reasks.add_metric([], shown["live"]["reasks"])
    is_read = GaugeMetricFamily("lrq_ledger_up", "1 while the ledger can be read", value=float(not shown["error"]))
    return [throttled, reasks, is_read]
