"""A capped budget goes into depth: an item is begun while what is left covers it beside those that are begun already.

What an item takes is learned from the run's own items that ended, by the length of their documents; before the first
has ended, few are begun. Money and tokens are looked at alike.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import StatisticsError, fmean, linear_regression, pstdev
from typing import Any

import sqlalchemy as sa

from lrq.ledger.schema import calls, contexts, items, runs, tasks
from lrq.ledger.transaction import Transaction

_FIRST = 4  # items begun while it is unknown what one takes
_SAMPLE = 50  # latest ended items that tell it
_FEWEST = 4  # of them, to tell long documents from short ones
_LEAST = 0.1  # of what an item takes: still to come of one that has taken more
_ENOUGH = 0.9  # of what an item takes: with so much left, one is tried where no other is at work
_AT_WORK = ("sampling", "judging")
_WAITING = ("unsampled", "unjudged")


@dataclass(frozen=True, kw_only=True)
class Sized:
    """An item: the length of its document, and what it has taken so far, in money or in tokens."""

    chars: int
    taken: float = 0.0


class Expectation:
    """What items take by the length of their documents: a straight line through those that ended, at least one."""

    def __init__(self, ended: Sequence[Sized]) -> None:
        lengths, amounts = [each.chars for each in ended], [each.taken for each in ended]
        self._mean = fmean(amounts)
        self._slope, self._base = 0.0, self._mean
        try:
            line = linear_regression(lengths, amounts)
        except StatisticsError:  # all of one length
            line = None
        if line is not None and line.slope > 0 and len(ended) >= _FEWEST:
            self._slope, self._base = line
        self.deviation = pstdev(each.taken - self.of(each) for each in ended)

    def of(self, item: Sized) -> float:
        """Return what the whole of an item is expected to take."""
        return max(self._base + self._slope * item.chars, _LEAST * self._mean)

    def still(self, item: Sized) -> float:
        """Return what is to come of an item, which may be at work or have been."""
        return max(self.of(item) - item.taken, _LEAST * self.of(item))


def count_covered(left: float, begun: Sequence[Sized], ended: Sequence[Sized], waiting: Sequence[Sized]) -> int:
    """Count those that wait, from the first, that are covered by what is left of a limit.

    While others are at work these may take as much more than expected as items differ; the next look knows better.
    """
    if not ended:
        return min(len(waiting), max(0, _FIRST - len(begun)))
    expected = Expectation(ended)
    needed = sum(expected.still(item) for item in begun)
    count = 0
    for item in waiting:
        needed += expected.still(item)  # in a later round it has taken the earlier ones
        doubt = expected.deviation * sqrt(len(begun) + count + 1) if begun or count else 0.0
        if needed + doubt > left:
            break
        count += 1
    return count


def covered(tx: Transaction, run: int, waiting: Sequence[int]) -> Sequence[int]:
    """Return those of the waiting items that may be begun, in their order; costs the same for any size of run.

    Where nothing is at work and the next is too large, that is the smallest that waits at all, if what is left may do.
    """
    row = tx.execute(sa.select(runs).where(runs.c.id == run)).one()
    limits = {name: getattr(row, f"max_{name}") for name in ("cost", "tokens")}
    left = {name: limit - getattr(row, f"spent_{name}") for name, limit in limits.items() if limit is not None}
    if not left or not waiting:
        return waiting
    of_run = sa.select(items.c.id).where(items.c.run_id == run)
    begun = _sized(tx, of_run.where(items.c.state.in_(_AT_WORK)))
    ended = _sized(tx, of_run.where(items.c.state == "done").order_by(items.c.id.desc()).limit(_SAMPLE))
    sizes = {item.id: item for item in _sized(tx, of_run.where(items.c.id.in_(waiting)))}
    queue = [sizes[id_] for id_ in waiting]
    count = min(count_covered(left[name], *(_of(name, each) for each in (begun, ended, queue))) for name in left)
    if count or begun or not ended:
        return waiting[:count]
    smallest = _sized(tx, of_run.where(items.c.id == _smallest(tx, run)))
    may_do = (
        _ENOUGH * Expectation(_of(name, ended)).still(_of(name, smallest)[0]) <= amount for name, amount in left.items()
    )
    return [smallest[0].id] if all(may_do) else []


def _of(what: str, rows: Sequence[sa.Row[Any]]) -> list[Sized]:
    return [Sized(chars=row.chars, taken=float(getattr(row, what))) for row in rows]


def _sized(tx: Transaction, which: sa.Select[Any]) -> list[sa.Row[Any]]:
    """Return for each of these items its document's length, and what its calls have taken."""
    some = which.subquery()
    of_item = calls.c.item_id == items.c.id, calls.c.state == "done"
    sums = {"cost": calls.c.cost, "tokens": calls.c.prompt_tokens + calls.c.completion_tokens}
    amounts = [
        sa.select(sa.func.coalesce(sa.func.sum(amount), 0)).where(*of_item).scalar_subquery().label(name)
        for name, amount in sums.items()
    ]
    chars = sa.func.coalesce(contexts.c.chars, 0).label("chars")
    joined = some.join(items, items.c.id == some.c.id).outerjoin(contexts, contexts.c.hash == items.c.context_hash)
    return list(tx.execute(sa.select(items.c.id, chars, *amounts).select_from(joined)))


def _smallest(tx: Transaction, run: int) -> int:
    """Return the item that waits with the shortest document: looked for once, near the end of a budget."""
    chars = sa.func.coalesce(contexts.c.chars, 0).label("chars")
    query = sa.select(items.c.id).outerjoin(contexts, contexts.c.hash == items.c.context_hash)
    query = query.where(items.c.run_id == run, items.c.state.in_(_WAITING))
    return int(tx.execute(query.order_by(chars, items.c.id).limit(1)).scalar_one())


def stop_short(tx: Transaction, run: int) -> None:
    """Stop a run in which nothing is at work any more, where its budget has begun no further item."""
    row = tx.execute(sa.select(runs).where(runs.c.id == run).with_for_update(key_share=True)).one()
    at_work = sa.select(tasks.c.id).where(tasks.c.run_id == run, tasks.c.item_id > 0)
    is_idle = not (row.reserved_cost or row.reserved_tokens) and tx.execute(at_work.limit(1)).first() is None
    if row.state == "active" and is_idle:
        reason = "the budget is used up: what is left does not cover another item; `lrq budget` raises it"
        tx.execute(runs.update().where(runs.c.id == run).values(state="stopped", halt="budget", reason=reason))
