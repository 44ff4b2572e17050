"""What is known of a run, as plain data: `status`, `run` and their --json print it."""

from collections import defaultdict
from dataclasses import asdict
from typing import Any

import orjson
import redis.asyncio
import sqlalchemy as sa

from lrq.calls.learned import Learned, words
from lrq.calls.limiter import read_lanes
from lrq.config import Settings
from lrq.domain.records import ROLES
from lrq.ledger import Ledger, Transaction, intakes
from lrq.ledger import processes as processes_
from lrq.ledger import runs as runs_
from lrq.ledger.items import CUT, count_rows
from lrq.ledger.learned import all_facts
from lrq.ledger.pace import pace_of
from lrq.ledger.runs import Run, UsageRow
from lrq.ledger.schema import items, prompts, responses, rewards
from lrq.queue.celery import prefix_of
from lrq.run_config import schedule_of

NO_SCORES: dict[str, Any] = {"mean": None, "deviation": None, "value": 0, "not_applicable": 0, "unscored": 0}


def run_facts(ledger: Ledger, run: Run) -> dict[str, Any]:
    """Return items, scores, pairs, calls and money of one run; money in units of the currency, `latency` in seconds."""
    with ledger.read() as tx:
        usage = runs_.usage_of(tx, run.id)
        return {
            "run": run.name,
            "recipe": run.recipe,
            "state": run.state,
            "halted_by": run.halt,
            "reason": run.reason or (intakes.advice(run.name) if intakes.is_interrupted(tx, run.id) else ""),
            "items": runs_.item_states(tx, run.id),
            "set_aside": runs_.count_rejected(tx, run.id),
            "rejected": runs_.reject_reasons(tx, run.id),
            "unscored": runs_.unscored_reasons(tx, run.id),
            "responses": _responses(tx, run),
            "sampling": _sampling(tx, run),
            "scores": _scores(tx, run),
            "rewards": _rewards(tx, run),
            "round": run.round,
            "rounds": _rounds(tx, run),
            "pairs": count_rows(tx, run.id),
            "no_pair": {reason: n for reason, n in runs_.item_reasons(tx, run.id, "done").items() if reason},
            "failed": runs_.item_reasons(tx, run.id, "failed"),
            "queues": _queues(tx, run),
            "calls": _calls(usage),
            "money": _money(run, usage),
            "usage": [_usage(row) for row in usage],
            "pace": pace_facts(tx, run, usage),
            "trainings": [_training(row) for row in runs_.trainings_of(tx, run.id)],
        }


def pace_facts(tx: Transaction, run: Run, usage: list[UsageRow]) -> dict[str, Any]:
    """Return how the latest calls went, and `seconds_left` at their rate by the calls that items took so far.

    It is None for a run that is not active, or of which nothing is known yet.
    """
    pace, states = pace_of(tx, run.id), runs_.item_states(tx, run.id)
    ended = states.get("done", 0) + states.get("failed", 0)
    open_, call_count = sum(states.values()) - ended, sum(row.calls for row in usage)
    is_known = run.state == "active" and ended and open_ and call_count and pace.per_second
    left = open_ * call_count / ended / pace.per_second if is_known and pace.per_second else None
    return {**asdict(pace), "seconds_left": left}


def process_facts(ledger: Ledger) -> list[dict[str, Any]]:
    """Return the living processes and what they say of themselves."""
    with ledger.read() as tx:
        return [
            {"type": row.type, "host": row.host, "pid": row.pid, "note": orjson.loads(row.note or "{}")}
            for row in processes_.living(tx)
        ]


async def lane_facts(ledger: Ledger, settings: Settings) -> list[dict[str, Any]]:
    """Return how the limits of all endpoints in `settings` stand over all processes; nothing while Redis is silent."""
    client = redis.asyncio.Redis.from_url(settings.redis(), socket_connect_timeout=1, socket_timeout=2)
    try:
        lanes = await read_lanes(client, prefix_of(ledger.id))
    except (redis.RedisError, OSError):
        return []
    finally:
        await client.aclose()
    return [asdict(lane) for lane in lanes.values()]


def learned_facts(ledger: Ledger, settings: Settings) -> list[dict[str, Any]]:
    """Return what is known of the ways of the endpoints in `settings`, in words; without those of which nothing is."""
    with ledger.read() as tx:
        learned = Learned(all_facts(tx))
    facts = []
    for role in ROLES:
        for endpoint in settings.endpoints(role):
            lessons = words(learned.about(endpoint, endpoint.model))
            facts += [{"name": settings.lane(role, endpoint), "learned": lessons}] if lessons else []
    return facts


def unscored(ledger: Ledger, run: Run) -> int:
    facts = run_facts(ledger, run)
    missing: int = sum(counts["unscored"] for counts in facts["scores"].values())
    failed: int = sum(facts["failed"].values())
    return missing + failed


def _responses(tx: Transaction, run: Run) -> dict[str, Any]:
    cut = sa.func.sum(sa.case((responses.c.finish == CUT, 1), else_=0)).label("cut")
    columns = sa.func.count().label("number"), sa.func.sum(responses.c.tokens).label("tokens"), cut
    query = sa.select(responses.c.reason, *columns).join(items, items.c.id == responses.c.item_id)
    query = query.where(items.c.run_id == run.id).group_by(responses.c.reason)
    rows = tx.execute(query).all()
    return {
        "count": sum(row.number for row in rows),
        "tokens": sum(row.tokens or 0 for row in rows),
        "cut": sum(row.cut or 0 for row in rows),
        "without_text": {row.reason: row.number for row in rows if row.reason},
    }


def _sampling(tx: Transaction, run: Run) -> dict[str, Any]:
    """Work of all samplers together; prompts are prefilled once for all their responses."""
    names = ("prompt_tokens", "completion_tokens", "seconds")
    sums = [sa.func.coalesce(sa.func.sum(prompts.c[name]), 0).label(name) for name in names]
    query = sa.select(*sums).join(items, items.c.id == prompts.c.item_id).where(items.c.run_id == run.id)
    row = tx.execute(query).one()
    speed = round(row.completion_tokens / row.seconds, 1) if row.seconds else None
    return {name: getattr(row, name) for name in names} | {"tokens_per_second": speed}


def _scores(tx: Transaction, run: Run) -> dict[str, dict[str, Any]]:
    by_dimension: dict[str, dict[str, Any]] = defaultdict(NO_SCORES.copy)
    for row in runs_.score_states(tx, run.id):
        by_dimension[row.dimension][row.state] = row.number
        if row.state == "value":
            by_dimension[row.dimension]["mean"] = round(row.mean, 4)
            by_dimension[row.dimension]["deviation"] = round(max(0.0, row.square - row.mean**2) ** 0.5, 4)
    return dict(by_dimension)


def _rewards(tx: Transaction, run: Run) -> dict[str, Any]:
    query = sa.select(sa.func.count(rewards.c.value), sa.func.avg(rewards.c.value), sa.func.count())
    query = query.join(items, items.c.id == rewards.c.item_id).where(items.c.run_id == run.id)
    values, mean, total = tx.execute(query).one()
    return {"mean": None if mean is None else round(mean, 3), "values": values, "none": total - values}


def _rounds(tx: Transaction, run: Run) -> list[dict[str, Any]]:
    """Return what each round brought; nothing where the run has but one."""
    schedule = schedule_of(run.config.get("train"))
    if schedule is None or schedule.rounds == 1:
        return []
    return runs_.round_facts(tx, run.id)


def _queues(tx: Transaction, run: Run) -> dict[str, dict[str, int]]:
    by_queue: dict[str, dict[str, int]] = defaultdict(dict)
    for row in runs_.task_states(tx, run.id):
        by_queue[row.queue][row.state] = row.number
    return dict(by_queue)


def _calls(usage: list[UsageRow]) -> dict[str, Any]:
    names = ("calls", "reused", "failed", "unknown", "prompt_tokens", "completion_tokens", "cached_tokens")
    sums = {name: sum(getattr(row, name) for row in usage) for name in names}
    return {**sums, "cache_hit_rate": _share(sums["cached_tokens"], sums["prompt_tokens"])}


def _share(part: int, total: int) -> float | None:
    return round(part / total, 4) if total else None


def _money(run: Run, usage: list[UsageRow]) -> dict[str, Any]:
    is_priced = any(row.calls > row.unpriced for row in usage)
    return {
        "spent": run.spent_cost / 1e6,
        "unknown_outcome": run.unknown_cost / 1e6,
        "reserved": run.reserved_cost / 1e6,
        "max_cost": None if run.max_cost is None else run.max_cost / 1e6,
        "tokens": run.spent_tokens,
        "max_tokens": run.max_tokens,
        "unpriced_calls": sum(row.unpriced for row in usage),
        "saved_by_caches": sum(row.saved for row in usage) / 1e6 if is_priced else None,
    }


def _usage(row: UsageRow) -> dict[str, Any]:
    facts = {name: getattr(row, name) for name in UsageRow.__dataclass_fields__ if name not in {"run", "latency_ms"}}
    latency = round(row.latency_ms / row.calls / 1000, 3) if row.calls else None
    money = {"cost": row.cost / 1e6, "saved": row.saved / 1e6}
    return {**facts, **money, "cache_hit_rate": _share(row.cached_tokens, row.prompt_tokens), "mean_latency": latency}


def _training(row: sa.Row[Any]) -> dict[str, Any]:
    names = ("round", "window", "state", "reason", "rows", "model", "started_at", "ended_at")
    return {name: getattr(row, name) for name in names}
