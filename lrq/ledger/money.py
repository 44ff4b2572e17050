"""The budget of runs and the sums of their calls: what a transaction reserves, gives back, spends and counts."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from operator import attrgetter
from typing import Any, NamedTuple

import sqlalchemy as sa

from lrq.domain.errors import RunHalted
from lrq.domain.records import Usage
from lrq.ledger.batches import packed, table
from lrq.ledger.schema import runs, usage
from lrq.ledger.transaction import SETTLING, Transaction, insert_into


@dataclass(frozen=True, kw_only=True)
class Bound:
    """What a call may cost at most."""

    cost: int = 0  # micro-units of money; 0 where it is unpriced
    tokens: int = 0
    is_known: bool = True  # False: the endpoint's price is unknown


@dataclass(frozen=True, kw_only=True)
class Charge:
    """What a delivery is charged with that was answered, and brought no reply."""

    cost: int  # micro-units
    usage: Usage


@dataclass(frozen=True, kw_only=True)
class InFlightElsewhere:
    """Another living process has it, or the budget waits for calls in flight: ask again soon."""


class Group(NamedTuple):
    """The calls that are summed in one row of `usage`."""

    run_id: int
    role: str
    endpoint: str
    model: str
    step: str
    dimension: str
    kind: str


_group_of = attrgetter(*Group._fields)
_COUNTED = tuple(column.name for column in usage.c if column.name not in Group._fields)
_SUMS = ("reserved_cost", "reserved_tokens", "spent_cost", "spent_tokens", "unknown_cost")


def _after(what: str) -> sa.ColumnElement[int]:
    """Return what would be spent and reserved."""
    return runs.c[f"spent_{what}"] + runs.c[f"reserved_{what}"] + sa.bindparam(what)


# Built once: every transaction of calls runs them, and building one costs several times its execution.
_BUDGET = (
    sa.select(runs.c.state, runs.c.reason, runs.c.max_cost, runs.c.max_tokens, *(runs.c[name] for name in _SUMS))
    .where(runs.c.id == sa.bindparam("run"))
    .with_for_update(key_share=True)
)
_RESERVE_ALL = (  # where all of it fits, which is nearly always: one step instead of two
    runs.update()
    .where(runs.c.id == sa.bindparam("run"), runs.c.state == "active")
    .where(sa.or_(runs.c.max_cost.is_(None), _after("cost") <= runs.c.max_cost))
    .where(sa.or_(runs.c.max_tokens.is_(None), _after("tokens") <= runs.c.max_tokens))
    .where(sa.or_(runs.c.max_cost.is_(None), sa.bindparam("is_known", type_=sa.Boolean)))
    .values(
        reserved_cost=runs.c.reserved_cost + sa.bindparam("cost"),
        reserved_tokens=runs.c.reserved_tokens + sa.bindparam("tokens"),
    )
)
_RESERVE = (
    runs.update()
    .where(runs.c.id == sa.bindparam("run"))
    .values(reserved_cost=sa.bindparam("cost"), reserved_tokens=sa.bindparam("tokens"))
)
_ADD = (
    runs.update()
    .where(runs.c.id == sa.bindparam("run"))
    .values({name: runs.c[name] + sa.bindparam(f"more_{name}") for name in _SUMS})
)


@cache
def _count(is_sqlite: bool) -> Any:
    columns = {name: usage.c[name].type for name in (*Group._fields, *_COUNTED)}
    new = table("counted", columns, is_sqlite=is_sqlite)
    query = sa.select(*new.c).where(sa.true())  # SQLite takes ON for a join's without it
    insert = insert_into(usage, is_sqlite).from_select([*columns], query)
    sums = {name: usage.c[name] + insert.excluded[name] for name in _COUNTED}
    return insert.on_conflict_do_update(index_elements=Group._fields, set_=sums)


def reserve(tx: Transaction, run: int, bounds: Sequence[Bound]) -> list[InFlightElsewhere | RunHalted | None]:
    """Reserve each bound that the run's budget has room for, in their order; None: it is reserved.

    The run's row is locked, so that what is decided still holds when it is written. Where there is room for none and
    nothing is in flight that may give some back, the run is stopped.
    """
    cost, tokens = sum(bound.cost for bound in bounds), sum(bound.tokens for bound in bounds)
    parameters = {"run": run, "cost": cost, "tokens": tokens, "is_known": all(bound.is_known for bound in bounds)}
    if tx.execute(_RESERVE_ALL, parameters).rowcount == 1:
        return [None] * len(bounds)
    row = tx.execute(_BUDGET, {"run": run}).one()
    if row.state != "active":
        return [RunHalted(row.reason or f"the run is {row.state}") for _ in bounds]
    if row.max_cost is not None and not all(bound.is_known for bound in bounds):
        reason = (
            "its money is capped, and the price of an endpoint is unknown: set it (judge.price, embedding.price, "
            "policy.price; 0 for a server of your own) or enqueue again with --price; then `lrq resume`"
        )
        return _halt(tx, run, bounds, reason, state="paused", halt="account")
    cost, tokens = row.reserved_cost, row.reserved_tokens
    fits = []
    for bound in bounds:
        fit = _covers(row.max_cost, row.spent_cost + cost + bound.cost)
        fit = fit and _covers(row.max_tokens, row.spent_tokens + tokens + bound.tokens)
        fits.append(fit)
        if fit:
            cost, tokens = cost + bound.cost, tokens + bound.tokens
    if cost == tokens == 0 and not all(fits):
        reason = f"the budget is used up: what is left of {_short(row, bounds)} does not cover the next call; "
        reason += "`lrq budget` raises it"
        return _halt(tx, run, bounds, reason, state="stopped", halt="budget")
    tx.execute(_RESERVE, {"run": run, "cost": cost, "tokens": tokens})
    return [None if fit else InFlightElsewhere() for fit in fits]


def _halt(
    tx: Transaction, run: int, bounds: Sequence[Bound], reason: str, **how: str
) -> list[InFlightElsewhere | RunHalted | None]:
    tx.execute(runs.update().where(runs.c.id == run).values(reason=reason, **how))
    return [RunHalted(reason) for _ in bounds]


def _short(row: sa.Row[Any], bounds: Sequence[Bound]) -> str:
    """Name the limits that a call does not fit under when nothing else is reserved."""
    costs, tokens = (max(getattr(bound, name) for bound in bounds) for name in ("cost", "tokens"))
    short = [] if _covers(row.max_cost, row.spent_cost + costs) else ["its money"]
    short += [] if _covers(row.max_tokens, row.spent_tokens + tokens) else ["its tokens"]
    return " and ".join(short)


def _covers(most: int | None, amount: int) -> bool:
    return most is None or amount <= most


@dataclass
class Money:
    """What a transaction changes in the sums, written once per run and group."""

    runs: defaultdict[int, dict[str, int]] = field(default_factory=lambda: defaultdict(lambda: dict.fromkeys(_SUMS, 0)))
    counts: defaultdict[Group, dict[str, int]] = field(
        default_factory=lambda: defaultdict(lambda: dict.fromkeys(_COUNTED, 0))
    )

    def release(self, row: sa.Row[Any]) -> None:
        self.give_back(row.run_id, Bound(cost=row.reserved_cost, tokens=row.reserved_tokens))

    def give_back(self, run: int, bound: Bound) -> None:
        sums = self.runs[run]
        sums["reserved_cost"] -= bound.cost
        sums["reserved_tokens"] -= bound.tokens

    def spend(self, run: int, cost: int, tokens: int) -> None:
        sums = self.runs[run]
        sums["spent_cost"] += cost
        sums["spent_tokens"] += tokens

    def drop(self, row: sa.Row[Any], *, unknown: bool, charge: Charge | None = None) -> None:
        """Release a call's reservation; where its delivery may have been answered it is spent instead."""
        self.release(row)
        if charge is not None:
            tokens = charge.usage.prompt_tokens, charge.usage.completion_tokens
            self.spend(row.run_id, charge.cost, sum(tokens))
            self.count(row, {"cost": charge.cost, "prompt_tokens": tokens[0], "completion_tokens": tokens[1]})
        if unknown:
            self.spend(row.run_id, row.reserved_cost, row.reserved_tokens)
            self.runs[row.run_id]["unknown_cost"] += row.reserved_cost
            self.count(row, {"unknown": 1})

    def count(self, of: Any, counted: Mapping[str, int]) -> None:
        """Add to the sums of a call's row, or of a Group."""
        sums = self.counts[Group(*_group_of(of))]
        for name, amount in counted.items():
            sums[name] += amount

    def write(self, tx: Transaction) -> None:
        if self.runs or self.counts:
            tx.alone(SETTLING)  # transactions meet at these rows anyway, but not in one order
        if self.runs:
            added = [{"run": run, **{f"more_{name}": sums[name] for name in _SUMS}} for run, sums in self.runs.items()]
            tx.execute(_ADD, sorted(added, key=lambda one: one["run"]))
        if self.counts:
            rows = [(*group, *self.counts[group].values()) for group in sorted(self.counts)]
            tx.execute(_count(tx.is_sqlite), {"counted": packed(rows)})
