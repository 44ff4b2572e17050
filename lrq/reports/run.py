"""A run in numbers: what `status` knows, summed by dimension."""

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from lrq.ledger import Ledger, Transaction
from lrq.ledger import runs as runs_
from lrq.ledger.items import count_rows
from lrq.ledger.runs import Run
from lrq.ledger.schema import calls, rewards, rows
from lrq.reports.before_after import before_and_after
from lrq.reports.facts import NO_SCORES, run_facts

_COUNTS = ("calls", "reused", "prompt_tokens", "cached_tokens", "completion_tokens", "unpriced")


def list_runs(ledger: Ledger) -> list[dict[str, Any]]:
    """Return every run with its items, pairs, calls and money, the newest first."""
    with ledger.read() as tx:
        return [_listed(tx, run) for run in reversed(runs_.all_runs(tx))]


def _listed(tx: Transaction, run: Run) -> dict[str, Any]:
    usage = runs_.usage_of(tx, run.id)
    is_priced = not usage or any(row.calls > row.unpriced for row in usage)
    return {
        "run": run.name,
        "recipe": run.recipe,
        "state": run.state,
        "reason": run.reason,
        "created_at": run.created_at,
        "round": run.round,
        "items": runs_.item_states(tx, run.id),
        "pairs": count_rows(tx, run.id),
        "calls": sum(row.calls for row in usage),
        "spent": run.spent_cost / 1e6 if is_priced else None,
    }


def summary(ledger: Ledger, run: Run) -> dict[str, Any]:
    """Return what `status` knows, summed by dimension, with spreads and servers."""
    facts, evaluations = run_facts(ledger, run), before_and_after(ledger, run)
    names = (
        "run", "recipe", "state", "reason", "items", "set_aside", "no_pair", "failed", "calls", "money", "rounds",
        "unscored", "rejected",
    )  # fmt: skip
    with ledger.read() as tx:
        query = sa.select(sa.func.avg(rows.c.margin)).where(rows.c.run_id == run.id)
        return {
            **{name: facts[name] for name in names},
            "responses": facts["responses"]["count"],
            "cut_responses": facts["responses"]["cut"],
            "dimensions": _dimensions(tx, run, facts),
            "reward": _reward(tx, run),
            "pairs": {"count": facts["pairs"], "margin": _rounded(tx.execute(query).scalar())},
            "servers": _servers(tx, run),
            "trainings": facts["trainings"],
            "before_after": evaluations,
        }


def _dimensions(tx: Transaction, run: Run, facts: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Scores and calls of each dimension; of a step's calls for no dimension, under the step's name."""
    by_name: dict[str, list[Mapping[str, Any]]] = {name: [] for name in facts["scores"]}
    for row in facts["usage"]:
        by_name.setdefault(row["dimension"] or row["step"], []).append(row)
    count = max(1, facts["items"].get("done", 0))
    dimensions = {}
    for name, usage in by_name.items():
        states = facts["scores"].get(name, NO_SCORES)
        sums = {column: sum(row[column] for row in usage) for column in _COUNTS}
        money = {part: sum(row[part] for row in usage) for part in ("cost", "saved")}
        is_priced = sums["calls"] > sums["unpriced"]
        dimensions[name] = {
            "values": states["value"],
            "mean": states["mean"],
            "deviation": states["deviation"],
            "not_applicable": states["not_applicable"],
            "unscored": states["unscored"],
            **sums,
            **{part: amount if is_priced else None for part, amount in money.items()},
            "calls_per_item": round((sums["calls"] + sums["reused"]) / count, 2),
        }
    return dimensions


def _reward(tx: Transaction, run: Run) -> dict[str, Any]:
    """Return count, mean and standard deviation of the rewards of the current round."""
    value = rewards.c.value
    query = sa.select(sa.func.count(value), sa.func.avg(value), sa.func.avg(value * value)).select_from(rewards)
    count, mean, square = tx.execute(runs_.of_current_round(tx, run.id, query, rewards)).one()
    deviation = None if mean is None else max(0.0, square - mean * mean) ** 0.5
    return {"values": count, "mean": _rounded(mean), "deviation": _rounded(deviation)}


def _servers(tx: Transaction, run: Run) -> dict[str, int]:
    """Replies by who gave them."""
    query = sa.select(calls.c.server, sa.func.count().label("number")).where(calls.c.run_id == run.id)
    query = query.where(calls.c.state == "done").group_by(calls.c.server).order_by(calls.c.server)
    return {row.server: row.number for row in tx.execute(query)}


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
