"""What the charts of a run show; of a large run, of a sample of its items."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import orjson
import sqlalchemy as sa

from lrq.ledger import Ledger, Transaction
from lrq.ledger.runs import Run
from lrq.ledger.schema import calls, metrics, rows
from lrq.reports.run_sample import Place, load_lengths, load_rewards, load_values, of_current_round, pages, sample_items

BINS = 20
_MOST_POINTS = 1_500  # in the chart of reward against length
_MOST_STEPS = 400  # of a training, in its curves
_FEW = 3  # pairs of values that a correlation needs


def run_charts(ledger: Ledger, run: Run) -> dict[str, Any]:
    """Return distributions, correlations, margins, calls by kind and training curves as plain data."""
    with ledger.read() as tx:
        ids, of = sample_items(tx, run)
        values = load_values(tx, ids)
        rewarded = load_rewards(tx, ids)
        lengths = load_lengths(tx, ids)
        query = of_current_round(sa.select(rows.c.margin), rows).where(rows.c.margin.is_not(None))
        margins = [
            margin for page in pages(ids) for margin in tx.execute(query.where(rows.c.item_id.in_(page))).scalars()
        ]
        kinds = _kinds(tx, ids)
        curves = _curves(tx, run)
    figures = {**values, "reward": rewarded}
    # Pearson's correlation of each two over the responses that have both; None where there is none.
    matrix = [[_correlation(first, second) for second in figures.values()] for first in figures.values()]
    return {
        "items": len(ids),
        "of": of,
        "dimensions": {name: histogram(list(by_response.values())) for name, by_response in values.items()},
        "reward": histogram(list(rewarded.values())),
        "margin": histogram(margins),
        "agreement": {"names": list(figures), "matrix": matrix},
        "length": _against_length(rewarded, lengths),
        "kinds": kinds,
        "curves": curves,
    }


def histogram(values: Sequence[float], bins: int = BINS) -> dict[str, Any] | None:
    """Return counts in `bins` equal parts of a round range, with mean and quartiles; None where there is no value."""
    if not values:
        return None
    numbers = np.asarray(values, dtype=float)
    low, high = _round_range(float(numbers.min()), float(numbers.max()))
    counts, _ = np.histogram(numbers, bins=bins, range=(low, high))
    quartiles = np.quantile(numbers, [0.25, 0.5, 0.75])
    return {
        "low": low,
        "high": high,
        "counts": counts.tolist(),
        "values": len(values),
        "mean": float(numbers.mean()),
        "quartiles": quartiles.tolist(),
    }


def _round_range(low: float, high: float) -> tuple[float, float]:
    """Return the range of a chart: 0 to 1, 0 to 5 or 0 to 10 where values lie there, else what they span."""
    for top in (1.0, 5.0, 10.0):
        if low >= 0 and high <= top:
            return 0.0, top
    return (low, high) if low < high else (low - 0.5, high + 0.5)


def _correlation(first: Mapping[Place, float], other: Mapping[Place, float]) -> float | None:
    pairs = [(value, other[response]) for response, value in first.items() if response in other]
    if len(pairs) < _FEW:
        return None
    a, b = np.asarray(pairs, dtype=float).T
    if a.std() < 1e-12 or b.std() < 1e-12:
        return None
    return round(float(np.corrcoef(a, b)[0, 1]), 4)


def _against_length(rewarded: Mapping[Place, float], lengths: Mapping[Place, float]) -> dict[str, Any]:
    places = [key for key in rewarded if key in lengths]
    step = max(1, len(places) // _MOST_POINTS)
    points = [[lengths[key], rewarded[key], key[0], key[1], key[2]] for key in places[::step]]
    return {"points": points, "correlation": _correlation(rewarded, lengths)}


# ----- reading


def _kinds(tx: Transaction, ids: Sequence[int]) -> list[dict[str, Any]]:
    """Sum the calls made for these items by step and kind, with the quantiles of their seconds."""
    names = ("role", "step", "kind", "state", "attempt", "cost", "latency_ms")
    query = sa.select(*(calls.c[name] for name in names))
    groups: dict[tuple[str, str, str], list[sa.Row[Any]]] = defaultdict(list)
    for page in pages(ids):
        for row in tx.execute(query.where(calls.c.item_id.in_(page))):
            groups[row.role, row.step, row.kind].append(row)
    return [_kind(*name, group) for name, group in sorted(groups.items())]


def _kind(role: str, step: str, kind: str, group: Sequence[sa.Row[Any]]) -> dict[str, Any]:
    seconds = [row.latency_ms / 1000 for row in group if row.state == "done"]
    costs = [row.cost for row in group if row.cost is not None]
    quantiles = np.quantile(seconds, [0.5, 0.95]).tolist() if seconds else [None, None]
    return {
        "role": role,
        "step": step,
        "kind": kind,
        "calls": len(group),
        "reasks": sum(row.attempt > 0 for row in group),
        "failed": sum(row.state in {"failed", "unknown"} for row in group),
        "cost": sum(costs) / 1e6 if costs else None,
        "seconds": sum(seconds),
        "p50": quantiles[0],
        "p95": quantiles[1],
    }


def _curves(tx: Transaction, run: Run) -> list[dict[str, Any]]:
    """Return the metrics of each training by their names, as [step, value]."""
    query = sa.select(metrics).where(metrics.c.run_id == run.id)
    trainings: dict[tuple[int, int], list[tuple[int, dict[str, Any]]]] = defaultdict(list)
    for row in tx.execute(query.order_by(metrics.c.round, metrics.c.window, metrics.c.step)):
        trainings[row.round, row.window].append((row.step, orjson.loads(row.body or "{}")))
    return [{"round": r, "window": w, "metrics": _series(steps)} for (r, w), steps in trainings.items()]


def _series(steps: Sequence[tuple[int, Mapping[str, Any]]]) -> dict[str, list[list[float]]]:
    step = max(1, len(steps) // _MOST_STEPS)
    series: dict[str, list[list[float]]] = defaultdict(list)
    for number, body in steps[::step]:
        for name, value in body.items():
            if isinstance(value, int | float) and name not in {"step", "of", "epoch", "seconds"}:
                series[name].append([number, value])
    return dict(series)
