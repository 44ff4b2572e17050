"""What training brought: evaluations of the policy a run began with beside those of the models it made."""

import math
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from lrq.ledger import Ledger, Transaction
from lrq.ledger import runs as runs_
from lrq.ledger.runs import Run
from lrq.ledger.schema import items, rewards

_95 = 1.96  # standard errors


def before_and_after(ledger: Ledger, run: Run) -> list[dict[str, Any]]:
    """Return each evaluation of a model of the run beside one of the policy it began with, over their common items.

    Evaluations are runs: what `lrq evaluate` makes of a policy's folder. `difference` has a 95 % interval by the
    standard error of the items' differences. Empty where there is nothing to compare.
    """
    with ledger.read() as tx:
        models = {_resolved(row.model): row.round for row in runs_.trainings_of(tx, run.id) if row.model}
        start = _resolved((run.config.get("policy") or {}).get("path") or "")
        if not models or not start:
            return []
        evaluations = [evaluation for evaluation in runs_.all_runs(tx) if evaluation.id != run.id]
        paths = {
            evaluation.id: _resolved((evaluation.config.get("policy") or {}).get("path") or "")
            for evaluation in evaluations
        }
        before = {
            evaluation.name: _item_means(tx, evaluation) for evaluation in evaluations if paths[evaluation.id] == start
        }
        after = [evaluation for evaluation in evaluations if paths[evaluation.id] in models]
        return [
            _compare(evaluation, models[paths[evaluation.id]], name, means, _item_means(tx, evaluation))
            for evaluation in after
            for name, means in _alike(before, tx, evaluation)
        ]


def _resolved(path: str) -> str:
    return str(Path(path).resolve()) if path else ""


def _alike(
    before: Mapping[str, Mapping[str, float]], tx: Transaction, after: Run
) -> list[tuple[str, Mapping[str, float]]]:
    """Return the evaluation before that shares most items, if any does."""
    keys = _item_means(tx, after).keys()
    shared = sorted(before.items(), key=lambda entry: len(entry[1].keys() & keys))
    return [shared[-1]] if shared and shared[-1][1].keys() & keys else []


def _item_means(tx: Transaction, run: Run) -> dict[str, float]:
    query = sa.select(items.c.key, sa.func.avg(rewards.c.value).label("mean"))
    query = query.join(items, items.c.id == rewards.c.item_id).where(rewards.c.value.is_not(None))
    of_run = items.c.run_id == run.id, rewards.c.round == items.c.round
    return {row.key: row.mean for row in tx.execute(query.where(*of_run).group_by(items.c.key))}


def _compare(
    after: Run, round_: int, before: str, first: Mapping[str, float], second: Mapping[str, float]
) -> dict[str, Any]:
    keys = sorted(first.keys() & second.keys())
    differences = [second[key] - first[key] for key in keys]
    mean = statistics.fmean(differences)
    error = statistics.stdev(differences) / math.sqrt(len(keys)) if len(keys) > 1 else None
    return {
        "round": round_,
        "before": before,
        "after": after.name,
        "items": len(keys),
        "mean_before": statistics.fmean(first[key] for key in keys),
        "mean_after": statistics.fmean(second[key] for key in keys),
        "difference": mean,
        "interval": None if error is None else [mean - _95 * error, mean + _95 * error],
        "better": sum(difference > 0 for difference in differences),
        "worse": sum(difference < 0 for difference in differences),
    }
