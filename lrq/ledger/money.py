"""The budget of runs and the sums of their calls: what a transaction reserves, gives back, spends and counts."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import sqlalchemy as sa

from lrq.domain.errors import RunHalted
from lrq.ledger.engine import Ledger
from lrq.ledger.schema import runs, usage


@dataclass(frozen=True, kw_only=True)
class Bound:
    """What a call may cost at most."""

    cost: int = 0  # micro-units of money; 0 where it is unpriced
    tokens: int = 0


@dataclass(frozen=True, kw_only=True)
class Held:
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


def reserve(conn: sa.Connection, run: int, bounds: Sequence[Bound]) -> list[Held | RunHalted | None]:
    """Reserve each bound that the run's budget has room for, in their order; None: it is reserved.

    The run's row is locked, so that what is decided still holds when it is written. Where there is room for none and
    nothing is in flight that may give some back, the run is stopped.
    """
    row = conn.execute(sa.select(runs).where(runs.c.id == run).with_for_update()).one()
    if row.state != "active":
        return [RunHalted(row.reason or f"the run is {row.state}") for _ in bounds]
    cost, tokens = row.reserved_cost, row.reserved_tokens
    fits = []
    for bound in bounds:
        fit = _covers(row.max_cost, row.spent_cost + cost + bound.cost)
        fit = fit and _covers(row.max_tokens, row.spent_tokens + tokens + bound.tokens)
        fits.append(fit)
        if fit:
            cost, tokens = cost + bound.cost, tokens + bound.tokens
    if cost == tokens == 0 and not all(fits):
        reason = "the budget is used up: what is left does not cover the next call; `lrq budget` raises it"
        conn.execute(runs.update().where(runs.c.id == run).values(state="stopped", halt="budget", reason=reason))
        return [RunHalted(reason) for _ in bounds]
    conn.execute(runs.update().where(runs.c.id == run).values(reserved_cost=cost, reserved_tokens=tokens))
    return [None if fit else Held() for fit in fits]


def _covers(most: int | None, amount: int) -> bool:
    return most is None or amount <= most


@dataclass
class Money:
    """What a transaction changes in the sums, written once per run and group."""

    runs: defaultdict[int, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    counts: defaultdict[Group, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))

    def release(self, row: sa.Row[Any]) -> None:
        self.give_back(row.run_id, Bound(cost=row.reserved_cost, tokens=row.reserved_tokens))

    def give_back(self, run: int, bound: Bound) -> None:
        self.runs[run].update({"reserved_cost": -bound.cost, "reserved_tokens": -bound.tokens})

    def spend(self, run: int, cost: int, tokens: int) -> None:
        self.runs[run].update({"spent_cost": cost, "spent_tokens": tokens})

    def drop(self, row: sa.Row[Any], *, unknown: bool) -> None:
        """Release a call's reservation; where its delivery may have been answered it is spent instead."""
        self.release(row)
        if unknown:
            self.spend(row.run_id, row.reserved_cost, row.reserved_tokens)
            self.runs[row.run_id].update({"unknown_cost": row.reserved_cost})
            self.count(row, {"unknown": 1})

    def count(self, row: sa.Row[Any], counted: Mapping[str, int]) -> None:
        self.counts[Group(*(getattr(row, name) for name in Group._fields))].update(counted)

    def write(self, ledger: Ledger, conn: sa.Connection) -> None:
        for run, changed in sorted(self.runs.items()):
            conn.execute(runs.update().where(runs.c.id == run).values({n: runs.c[n] + v for n, v in changed.items()}))
        for group, counted in sorted(self.counts.items()):
            insert = ledger.insert(usage).values(**group._asdict(), **counted)
            more = {name: usage.c[name] + insert.excluded[name] for name in counted}
            conn.execute(insert.on_conflict_do_update(index_elements=Group._fields, set_=more))
