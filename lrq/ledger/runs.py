"""Runs: one dataset under one recipe and one frozen configuration, with its budget."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import orjson
import sqlalchemy as sa

from lrq.domain.errors import LrqError, UsageError
from lrq.ledger.schema import (
    breakers,
    items,
    metrics,
    responses,
    rewards,
    rows,
    runs,
    scores,
    set_aside,
    tasks,
    trainings,
    usage,
)
from lrq.ledger.transaction import Transaction


@dataclass(frozen=True, kw_only=True)
class Run:
    id: int
    name: str
    recipe: str
    config: Mapping[str, Any]  # frozen
    state: str  # active, paused, stopped, done
    halt: str  # who halted it: user, account, budget; empty while it is not halted
    reason: str
    round: int
    series: int
    open_items: int
    max_cost: int | None  # micro-units
    max_tokens: int | None
    spent_cost: int
    spent_tokens: int
    reserved_cost: int
    reserved_tokens: int
    unknown_cost: int
    created_at: float


@dataclass(frozen=True, kw_only=True)
class UsageRow:
    """Sums of the calls of one run for one endpoint, step, dimension and kind of prompt."""

    run: str
    role: str
    endpoint: str
    model: str
    step: str
    dimension: str
    kind: str
    calls: int
    reused: int
    failed: int
    unknown: int
    unpriced: int
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    cost: int
    latency_ms: int
    saved: int = 0  # micro-units, by prompt caches
    reasoning_tokens: int = 0  # of the completion's


def create_run(
    tx: Transaction,
    name: str,
    config: Mapping[str, Any],
    *,
    max_cost: int | None = None,
    max_tokens: int | None = None,
) -> Run:
    """Find the run of that name, or create it; limits that are given hold from now on.

    Raises UsageError where its frozen settings differ.
    """
    values = {"name": name, "recipe": config["recipe"], "config": orjson.dumps(config).decode()}
    values |= {"max_cost": max_cost, "max_tokens": max_tokens, "created_at": tx.now()}
    is_new = tx.add_new(runs, values)
    run = get_run(tx, name)
    if is_new:
        return run
    tx.execute(sa.select(runs.c.id).where(runs.c.id == run.id).with_for_update(key_share=True))
    run = get_run(tx, name)
    requested = orjson.loads(orjson.dumps(config))
    for role in {"judge", "policy", "embedding"} & run.config.keys() & requested.keys():
        requested[role]["models"] = like(run.config[role].get("models", ()), requested[role].get("models", ()))
    _same(name, complete(tx, run, requested), requested)
    if max_cost is not None or max_tokens is not None:
        set_budget(tx, run.id, max_cost=max_cost, max_tokens=max_tokens)
    return get_run(tx, name)


def complete(tx: Transaction, run: Run, told: Mapping[str, Any]) -> Mapping[str, Any]:
    """Give the run today's prices, and the judge or policy that it did not name: without one nothing was done yet.

    Returns its configuration as it stands then.
    """
    frozen = run.config
    more_: Mapping[str, Any] = orjson.loads(orjson.dumps(told))
    completed = {**frozen, "prices": {**frozen.get("prices", {}), **more_.get("prices", {})}}
    for role in {"judge", "policy"} & frozen.keys() & more_.keys():
        who = {name: more_[role][name] for name in ("path", "models") if name in more_[role]}
        if not any(frozen[role].get(name) for name in who):
            completed[role] = {**frozen[role], **who}
    if completed != frozen:
        tx.execute(runs.update().where(runs.c.id == run.id).values(config=orjson.dumps(completed).decode()))
    return completed


def like(held: Sequence[Mapping[str, Any]], models: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the models without the identity that those of the same endpoint lack, frozen by an earlier release."""
    old = {model["endpoint"] for model in held if "identity" not in model}
    return [{n: v for n, v in model.items() if n != "identity" or model["endpoint"] not in old} for model in models]


def _moved(frozen: Mapping[str, Any], asked: Mapping[str, Any]) -> str:
    """Name the first endpoint that is another server than the run's; empty where more than that differs."""
    for role in sorted({"judge", "policy", "embedding"} & frozen.keys() & asked.keys()):
        before, now = (part[role].get("models", ()) for part in (frozen, asked))
        pairs = [(old, new) for old, new in zip(before, now, strict=False) if old != new]
        if pairs and all({**old, "identity": ""} == {**new, "identity": ""} for old, new in pairs):
            old, new = pairs[0][0]["identity"], pairs[0][1]["identity"]
            return f"its {role} was {old}, and is now {new}: set {role}.identity={old} if that is the same server"
    return ""


_OF_FORKS = {"revisions", "prices", "steps", "forked_from"}  # no settings' business


def _same(name: str, frozen: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    ignored = _OF_FORKS if ":" in frozen["recipe"] and "code" in frozen else _OF_FORKS | {"code"}
    first, now = ({k: v for k, v in config.items() if k not in ignored} for config in (frozen, asked))
    differ = sorted(differences(first, now))
    if differ and all(path.endswith(".models") for path in differ) and (moved := _moved(first, now)):
        raise UsageError(f"run {name!r} is frozen: {moved}, or --name for a new run")
    if differ:
        others = f" and {len(differ) - 6} more" if len(differ) > 6 else ""
        raise UsageError(
            f"run {name!r} is frozen with other settings: {', '.join(differ[:6])}{others}; "
            "use its settings, or --name for a new run"
        )


def differences(one: Any, other: Any, path: str = "") -> set[str]:
    """Return the paths, with dots, at which two configurations differ."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        names = set(one) | set(other)
        return set().union(*(differences(one.get(n), other.get(n), f"{path}.{n}".lstrip(".")) for n in names))
    return set() if one == other else {path}


def find_run(tx: Transaction, name: str) -> Run | None:
    row = tx.execute(sa.select(runs).where(runs.c.name == name)).one_or_none()
    return None if row is None else _run(row)


def get_run(tx: Transaction, name: str) -> Run:
    run = find_run(tx, name)
    if run is None:
        names = tx.execute(sa.select(runs.c.name).order_by(runs.c.id.desc()).limit(5)).scalars().all()
        raise UsageError(
            f"no run named {name!r}; there is {', '.join(names) or 'none yet, `lrq enqueue FILE` makes one'}"
        )
    return run


_BY_ID = sa.select(runs).where(runs.c.id == sa.bindparam("id"))  # built once: every task reads its run


def run_by_id(tx: Transaction, id_: int) -> Run:
    return _run(tx.execute(_BY_ID, {"id": id_}).one())


def all_runs(tx: Transaction) -> list[Run]:
    return [_run(row) for row in tx.execute(sa.select(runs).order_by(runs.c.id))]


def _run(row: sa.Row[Any]) -> Run:
    values = {name: getattr(row, name) for name in Run.__dataclass_fields__ if name != "config"}
    return Run(config=_config(row.config), **values)


@lru_cache(maxsize=16)
def _config(text: str) -> Mapping[str, Any]:
    """It holds the prompts' texts, is read for every task, and hardly ever changes."""
    config: Mapping[str, Any] = orjson.loads(text)
    return config


def set_ingesting(tx: Transaction, run: int, ingesting: int) -> None:
    """Set whether more lines may come, one of lrq.ledger.intakes: while they may, a run is never at its end."""
    tx.execute(runs.update().where(runs.c.id == run).values(ingesting=ingesting))


def halt(tx: Transaction, run: int, *, state: str, by: str, reason: str) -> bool:
    """Stop giving out work of an active run; False if it is halted already."""
    update = runs.update().where(runs.c.id == run, runs.c.state == "active")
    return tx.execute(update.values(state=state, halt=by, reason=reason)).rowcount == 1


def halt_capped(tx: Transaction, run: int, *, reason: str) -> bool:
    """Pause an active run that has a budget, and for its sake; False for others."""
    capped = sa.or_(runs.c.max_cost.is_not(None), runs.c.max_tokens.is_not(None))
    update = runs.update().where(runs.c.id == run, runs.c.state == "active", capped)
    return tx.execute(update.values(state="paused", halt="budget", reason=reason)).rowcount == 1


def activate(tx: Transaction, run: int) -> None:
    """Go on with a run; what has failed in a row is counted anew."""
    tx.execute(breakers.delete().where(breakers.c.run_id == run))
    tx.execute(runs.update().where(runs.c.id == run).values(state="active", halt="", reason=""))


def set_budget(tx: Transaction, run: int, *, max_cost: int | None, max_tokens: int | None) -> None:
    """Change the limits that are given; a run that its budget stopped goes on."""
    limits = {name: value for name, value in (("max_cost", max_cost), ("max_tokens", max_tokens)) if value is not None}
    if not limits:
        raise LrqError("name the new limit: --max-cost or --max-tokens")
    row = tx.execute(sa.select(runs.c.spent_cost, runs.c.spent_tokens).where(runs.c.id == run)).one()
    if max_cost is not None and max_cost <= row.spent_cost:
        raise LrqError(f"the run has spent {row.spent_cost / 1e6:.4f} already: a limit has to be above it")
    if max_tokens is not None and max_tokens <= row.spent_tokens:
        raise LrqError(f"the run has spent {row.spent_tokens:,} tokens already: a limit has to be above them")
    tx.execute(runs.update().where(runs.c.id == run).values(**limits))
    stopped = runs.c.id == run, runs.c.halt == "budget"
    tx.execute(runs.update().where(*stopped).values(state="active", halt="", reason=""))


def usage_of(tx: Transaction, run: int | None = None) -> list[UsageRow]:
    query = sa.select(usage, runs.c.name.label("run")).join(runs, runs.c.id == usage.c.run_id)
    query = query.order_by(usage.c.run_id, usage.c.role, usage.c.endpoint, usage.c.step, usage.c.kind)
    if run is not None:
        query = query.where(usage.c.run_id == run)
    names = UsageRow.__dataclass_fields__
    return [UsageRow(**{name: getattr(row, name) for name in names}) for row in tx.execute(query)]


def item_states(tx: Transaction, run: int) -> dict[str, int]:
    query = (
        sa.select(items.c.state, sa.func.count().label("number")).where(items.c.run_id == run).group_by(items.c.state)
    )
    return {row.state: row.number for row in tx.execute(query)}


def item_reasons(tx: Transaction, run: int, state: str) -> dict[str, int]:
    ended = items.c.run_id == run, items.c.state == state
    query = sa.select(items.c.reason, sa.func.count().label("number")).where(*ended).group_by(items.c.reason)
    return {row.reason: row.number for row in tx.execute(query.order_by(sa.desc("number")).limit(50))}


def of_current_round(tx: Transaction, run: int, query: sa.Select[Any], table: sa.Table) -> sa.Select[Any]:
    """Keep of a table what belongs to the run's items in their current rounds.

    Where no item has left round 0, and no other run's lie between the run's, a range of numbers says the same as a
    join with the items, at half the price.
    """
    span = sa.select(sa.func.min(items.c.id), sa.func.max(items.c.id), sa.func.count()).where(items.c.run_id == run)
    low, high, number = tx.execute(span).one()
    is_first = tx.execute(sa.select(runs.c.round).where(runs.c.id == run)).scalar() == 0
    if is_first and low is not None and high - low + 1 == number:
        return query.where(table.c.item_id.between(low, high), table.c.round == 0)
    joined = query.join(items, items.c.id == table.c.item_id)
    return joined.where(items.c.run_id == run, table.c.round == items.c.round)


def score_states(tx: Transaction, run: int) -> list[sa.Row[Any]]:
    """Count scores by dimension and state, with the mean of their values and of the values' squares."""
    value = scores.c.value
    means = sa.func.avg(value).label("mean"), sa.func.avg(value * value).label("square")
    query = sa.select(scores.c.dimension, scores.c.state, sa.func.count().label("number"), *means)
    query = of_current_round(tx, run, query, scores).group_by(scores.c.dimension, scores.c.state)
    return list(tx.execute(query.order_by(scores.c.dimension)))


def task_states(tx: Transaction, run: int) -> list[sa.Row[Any]]:
    query = sa.select(tasks.c.queue, tasks.c.state, sa.func.count().label("number")).where(tasks.c.run_id == run)
    return list(tx.execute(query.group_by(tasks.c.queue, tasks.c.state).order_by(tasks.c.queue)))


def lines_set_aside(tx: Transaction, run: int) -> list[sa.Row[Any]]:
    return list(
        tx.execute(sa.select(set_aside).where(set_aside.c.run_id == run).order_by(set_aside.c.source, set_aside.c.line))
    )


def count_rejected(tx: Transaction, run: int) -> int:
    """Count the lines of the run's files that could not be used."""
    return int(tx.execute(sa.select(sa.func.count()).where(set_aside.c.run_id == run)).scalar_one())


def reject_reasons(tx: Transaction, run: int, most: int = 20) -> dict[str, int]:
    """Return the commonest reasons of rejected lines → how many lines they cost."""
    query = sa.select(set_aside.c.reason, sa.func.count().label("number")).where(set_aside.c.run_id == run)
    ordered = query.group_by(set_aside.c.reason).order_by(sa.desc("number"), set_aside.c.reason)
    return {row.reason: row.number for row in tx.execute(ordered.limit(most))}


def unscored_reasons(tx: Transaction, run: int, most: int = 20) -> dict[str, int]:
    """Return the commonest reasons of unscored responses → how many scores they cost."""
    query = sa.select(scores.c.reason, sa.func.count().label("number")).where(scores.c.state == "unscored")
    query = of_current_round(tx, run, query, scores)
    ordered = query.group_by(scores.c.reason).order_by(sa.desc("number"), scores.c.reason)
    return {row.reason: row.number for row in tx.execute(ordered.limit(most))}


def delete_empty(tx: Transaction, run: int) -> bool:
    """Delete a run that has no item; tell whether it had none."""
    if tx.execute(sa.select(items.c.id).where(items.c.run_id == run).limit(1)).first() is not None:
        return False
    tx.execute(set_aside.delete().where(set_aside.c.run_id == run))
    tx.execute(runs.delete().where(runs.c.id == run))
    return True


def trainings_of(tx: Transaction, run: int) -> list[sa.Row[Any]]:
    query = sa.select(trainings).where(trainings.c.run_id == run)
    return list(tx.execute(query.order_by(trainings.c.round, trainings.c.window)))


def model_before(tx: Transaction, run: int, round_: int, window: int = 0) -> str:
    """Return the folder of the last model that was made before a training; empty: there was none."""
    earlier = sa.or_(trainings.c.round < round_, sa.and_(trainings.c.round == round_, trainings.c.window < window))
    query = sa.select(trainings.c.model).where(trainings.c.run_id == run, trainings.c.model != "", earlier)
    ordered = query.order_by(trainings.c.round.desc(), trainings.c.window.desc())
    return tx.execute(ordered.limit(1)).scalar() or ""


def round_facts(tx: Transaction, run: int) -> list[dict[str, Any]]:
    """Return what each round brought so far: rewarded responses and their mean, rows and their margin, its model.

    `untrained` are rows that a repair made after the trainings of their round.
    """
    rewarded = sa.select(rewards.c.round, sa.func.count(rewards.c.value).label("rewards"))
    rewarded = rewarded.add_columns(sa.func.avg(rewards.c.value).label("mean"))
    rewarded = rewarded.join(items, items.c.id == rewards.c.item_id).where(items.c.run_id == run)
    of_rewards = {row.round: row for row in tx.execute(rewarded.group_by(rewards.c.round))}
    pairs = sa.select(rows.c.round, sa.func.count().label("number"), sa.func.avg(rows.c.margin).label("margin"))
    pairs = pairs.add_columns((sa.func.count() - sa.func.count(rows.c.window)).label("untrained"))
    of_rows = {row.round: row for row in tx.execute(pairs.where(rows.c.run_id == run).group_by(rows.c.round))}
    models = {row.round: row.model for row in trainings_of(tx, run) if row.model}
    last = tx.execute(sa.select(runs.c.round).where(runs.c.id == run)).scalar_one()
    return [
        {
            "round": round_,
            "rewards": of_rewards[round_].rewards if round_ in of_rewards else 0,
            "reward": of_rewards[round_].mean if round_ in of_rewards else None,
            "pairs": of_rows[round_].number if round_ in of_rows else 0,
            "margin": of_rows[round_].margin if round_ in of_rows else None,
            "untrained": of_rows[round_].untrained if round_ in of_rows and round_ < last else 0,
            "model": models.get(round_, ""),
        }
        for round_ in range(last + 1)
    ]


def failures(tx: Transaction, run: Run) -> list[dict[str, str]]:
    """List every line rejected, item or training failed, response without text, score unscored, with its reason."""
    listed = [{"what": f"{row.source}, line {row.line}", "reason": row.reason} for row in lines_set_aside(tx, run.id)]
    failed = sa.select(items.c.key, items.c.reason).where(items.c.run_id == run.id, items.c.state == "failed")
    listed += [{"what": f"item {row.key}", "reason": row.reason} for row in tx.execute(failed.order_by(items.c.id))]
    empty = sa.select(items.c.key, responses.c.round, responses.c.k, responses.c.reason).join(
        items, items.c.id == responses.c.item_id
    )
    empty = empty.where(items.c.run_id == run.id, responses.c.text.is_(None)).order_by(responses.c.id)
    listed += [{"what": _response(row), "reason": row.reason} for row in tx.execute(empty)]
    missing = sa.select(items.c.key, scores.c.round, scores.c.k, scores.c.dimension, scores.c.reason)
    missing = missing.join(items, items.c.id == scores.c.item_id).where(items.c.run_id == run.id)
    missing = missing.where(scores.c.state == "unscored").order_by(scores.c.id)
    for row in tx.execute(missing):
        listed.append({"what": f"{_response(row)}, {row.dimension}", "reason": row.reason})
    trained = [row for row in trainings_of(tx, run.id) if row.state == "failed"]
    listed += [{"what": f"training of {row.rows} rows", "reason": row.reason} for row in trained]
    return [{"run": run.name, **failure} for failure in listed]


def _response(row: Any) -> str:
    """Name a response of an item, with its round where it is not the first."""
    return f"item {row.key}, " + (f"round {row.round}, " if row.round else "") + f"response {row.k}"


def last_metric(tx: Transaction, run: int) -> dict[str, Any] | None:
    """Return the latest step of the latest training."""
    query = sa.select(metrics.c.body).where(metrics.c.run_id == run)
    ordered = query.order_by(metrics.c.round.desc(), metrics.c.window.desc(), metrics.c.step.desc())
    body = tx.execute(ordered.limit(1)).scalar()
    return None if body is None else dict(orjson.loads(body))


def add_metrics(tx: Transaction, values: Sequence[Mapping[str, Any]]) -> None:
    """Keep steps of a training: run, round, window, step and body; those that are known stay as they are."""
    tx.execute(tx.insert(metrics).on_conflict_do_nothing(), values)


def halted_runs(tx: Transaction, ids: Collection[int]) -> set[int]:
    """Return those of the runs that are worked on no more."""
    return set(tx.execute(sa.select(runs.c.id).where(runs.c.id.in_(ids), runs.c.state != "active")).scalars())
