"""How far a run is while it works: cheap to ask for again and again, whatever its size."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from lrq.ledger import Ledger, Transaction
from lrq.ledger import runs as runs_
from lrq.ledger.items import count_rows
from lrq.ledger.runs import Run, UsageRow
from lrq.ledger.schema import tasks
from lrq.reports.facts import pace_facts, process_facts

_ORDER = {"sample": 0, "aggregate": 2, "train": 3}  # steps of judging stand between


def progress_of(ledger: Ledger, run: Run) -> dict[str, Any]:
    """Return items, stages, pace, money spent and expected, training, and what is waited for."""
    with ledger.read() as tx:
        usage = runs_.usage_of(tx, run.id)
        states = runs_.item_states(tx, run.id)
        ended = states.get("done", 0) + states.get("failed", 0)
        failed = runs_.item_reasons(tx, run.id, "failed") if states.get("failed") else {}
        # What processes wait for, in their words.
        notes = (process["note"].get("waiting for") for process in process_facts(ledger))
        return {
            "run": run.name,
            "state": run.state,
            "reason": run.reason,
            "round": run.round,
            "items": sum(states.values()),
            "ended": ended,
            "failed": failed,
            "pairs": count_rows(tx, run.id),
            "calls": sum(row.calls for row in usage),
            "money": _money(run, usage, ended, sum(states.values())),
            "pace": pace_facts(tx, run, usage),
            "stages": _stages(tx, run, usage),
            "training": runs_.last_metric(tx, run.id),
            "waits": sorted({str(note) for note in notes if note}),
        }


def _money(run: Run, usage: Sequence[UsageRow], ended: int, items: int) -> dict[str, Any]:
    """Spent so far, and at the end at what an item has cost: that of items at work counts as if they were done."""
    is_priced = any(row.calls > row.unpriced for row in usage)
    is_known = is_priced and ended and run.state == "active" and ended < items
    return {
        "spent": run.spent_cost / 1e6 if is_priced or not usage else None,
        "expected": run.spent_cost / 1e6 * items / ended if is_known else None,
        "max_cost": None if run.max_cost is None else run.max_cost / 1e6,
    }


def _stages(tx: Transaction, run: Run, usage: Sequence[UsageRow]) -> list[dict[str, Any]]:
    """Return open tasks and calls of each stage, in the order of an item's way."""
    query = sa.select(tasks.c.name, tasks.c.state, sa.func.count().label("number")).where(tasks.c.run_id == run.id)
    open_: dict[str, dict[str, int]] = defaultdict(dict)
    for row in tx.execute(query.group_by(tasks.c.name, tasks.c.state)):
        states = open_[row.name.partition(".")[0] if row.name.startswith("train.") else row.name]
        states[row.state] = states.get(row.state, 0) + row.number
    rows: dict[str, list[UsageRow]] = defaultdict(list)
    for used in usage:
        rows[used.step or "sample"].append(used)
    names = sorted(open_.keys() | rows.keys(), key=lambda name: (_ORDER.get(name, 1), name))
    return [_stage(name, open_.get(name, {}), rows.get(name, [])) for name in names]


def _stage(name: str, states: Mapping[str, int], usage: Sequence[UsageRow]) -> dict[str, Any]:
    calls = sum(row.calls for row in usage)
    is_priced = calls > sum(row.unpriced for row in usage)
    return {
        "stage": name,
        "ready": states.get("ready", 0) + states.get("sent", 0),
        "at_work": states.get("running", 0),
        "calls": calls,
        "failed": sum(row.failed + row.unknown for row in usage),
        "cost": sum(row.cost for row in usage) / 1e6 if is_priced else None,
        "latency": sum(row.latency_ms for row in usage) / calls / 1000 if calls else None,
    }
