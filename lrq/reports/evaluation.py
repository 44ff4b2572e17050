"""How policies do on held-out items: mean rewards by item, and the difference to the first policy."""

import random
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from lrq.ledger import Ledger
from lrq.ledger import items as items_
from lrq.ledger import runs as runs_

RESAMPLES = 2000  # of the items, for the interval
_SEED = 0

Means = Mapping[str, float]  # of rewards, by item


def item_means(ledger: Ledger, run: str) -> dict[str, float]:
    """Return the mean reward of the responses to each item of the run named `run`, by the item's id.

    An item without any reward is left out.
    """
    means: dict[str, float] = {}
    after = 0
    with ledger.read() as tx:
        id_ = runs_.get_run(tx, run).id
        while page := items_.item_ids(tx, id_, after=after):
            for item in page:
                row, _ = items_.load_item(tx, item)
                values = [r.value for r in items_.load_rewards(tx, item, row.round) if r.value is not None]
                if values:
                    means[row.key] = statistics.fmean(values)
            after = page[-1]
    return means


def mean_over_runs(runs: Sequence[Means]) -> dict[str, float]:
    """Return each item's mean over the runs in which it has one."""
    items = {item for means in runs for item in means}
    return {item: statistics.fmean(means[item] for means in runs if item in means) for item in items}


def compare_policies(evaluated: Mapping[str, Sequence[Means]]) -> list[dict[str, Any]]:
    """Return mean reward and paired difference to the first policy, one record for each policy.

    `evaluated` has the runs of each policy by its label. The reward is the mean of the items, each the mean of its runs
    (Multifaceted Bench, arXiv 2405.17977, averages three runs); `runs` are the means of each.
    """
    means = {label: mean_over_runs(runs) for label, runs in evaluated.items()}
    first = next(iter(means.values()))
    compared: list[dict[str, Any]] = []
    for label, rewards in means.items():
        facts: dict[str, Any] = {"policy": label, "items": len(rewards), "reward": _mean(rewards)}
        if len(evaluated[label]) > 1:
            facts["runs"] = [_mean(run) for run in evaluated[label]]
        compared.append(facts if rewards is first else facts | paired_difference(first, rewards))
    return compared


def paired_difference(first: Means, second: Means) -> dict[str, Any]:
    """Return the mean of `second` − `first` over common items and its 95 % bootstrap interval; empty without any."""
    common = sorted(first.keys() & second.keys())
    if not common:
        return {}
    differences = [second[item] - first[item] for item in common]
    generator = random.Random(_SEED)
    resampled = sorted(statistics.fmean(generator.choices(differences, k=len(common))) for _ in range(RESAMPLES))
    interval = [resampled[int(RESAMPLES * 0.025)], resampled[int(RESAMPLES * 0.975)]]
    return {"difference": statistics.fmean(differences), "interval": interval}


def _mean(means: Means) -> float | None:
    return statistics.fmean(means.values()) if means else None
