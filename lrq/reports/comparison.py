"""Two runs on the same items beside each other: how far they agree, and what each took."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import sqlalchemy as sa

from lrq.domain.comparison import Agreement, Response, agreement
from lrq.domain.errors import UsageError
from lrq.judge.estimate import FIELDS, Amount
from lrq.ledger import Ledger, Transaction
from lrq.ledger import items as items_
from lrq.ledger.runs import Run
from lrq.ledger.schema import items
from lrq.reports.usage import bill_of


def compared(ledger: Ledger, run: Run, other: Run) -> dict[str, Any]:
    """Return how far two runs agree on the responses that both have judged, and what each one's scores took.

    Calls are counted as if each run had been alone: a reply that one found in the ledger counts for both. Raises
    UsageError where `run` and `other` have no item with the same responses.
    """
    comparison = _Compared()
    with ledger.read() as tx:
        for ids in _common(tx, run, other):
            comparison.add(tx, *ids)
    if not comparison.items:
        raise UsageError(f"runs {run.name!r} and {other.name!r} have no item with the same responses in common")
    return {"with": other.name, **comparison.facts((run.name, other.name))}


def _common(tx: Transaction, run: Run, other: Run) -> Iterator[tuple[int, int]]:
    """Yield the numbers of the items that stand in both runs under the same id, in the order of the first."""
    after = 0
    others = items.alias("others")
    while True:
        query = sa.select(items.c.id, others.c.id.label("other")).join(others, others.c.key == items.c.key)
        query = query.where(items.c.run_id == run.id, others.c.run_id == other.id, items.c.id > after)
        page = tx.execute(query.order_by(items.c.id).limit(500)).all()
        yield from ((row.id, row.other) for row in page)
        if not page:
            return
        after = page[-1].id


class _Compared:
    """What was found so far."""

    def __init__(self) -> None:
        self.items = self.responses = self.different = 0
        self._values: list[dict[str, dict[Response, float]]] = [{}, {}]
        self._bills: list[dict[str, Amount]] = [{}, {}]
        self._same_rows: list[bool] = []

    def add(self, tx: Transaction, *ids: int) -> None:
        """Add an item, by its numbers in both runs."""
        rounds = [tx.execute(sa.select(items.c.round).where(items.c.id == id_)).scalar_one() for id_ in ids]
        texts = [
            {(response.prompt, response.k): response.text for response in items_.load_responses(tx, id_, round_)}
            for id_, round_ in zip(ids, rounds, strict=True)
        ]
        same = {name for name in texts[0].keys() & texts[1].keys() if texts[0][name] == texts[1][name]}
        self.different += len(texts[0].keys() & texts[1].keys()) - len(same)
        if not same:
            return
        self.items += 1
        self.responses += len(same)
        rows = []
        for index, (id_, round_) in enumerate(zip(ids, rounds, strict=True)):
            self._take(tx, index, ids[0], id_, round_, same)
            rows.append({items_.read_row(row).turns for row in items_.load_rows(tx, id_, round_)})
        if rows[0] and rows[1]:
            self._same_rows.append(rows[0] == rows[1])

    def _take(self, tx: Transaction, place: int, name: int, id_: int, round_: int, same: set[tuple[int, int]]) -> None:
        values = self._values[place]
        for score in items_.load_scores(tx, id_, round_):
            if score.value is not None and (score.prompt, score.k) in same:
                values.setdefault(score.dimension, {})[str(name), score.prompt, score.k] = score.value
        for reward in items_.load_rewards(tx, id_, round_):
            if reward.value is not None and (reward.prompt, reward.k) in same:
                values.setdefault("reward", {})[str(name), reward.prompt, reward.k] = reward.value
        for group, amount in bill_of(tx, [id_]).items():
            dimension = group.dimension or group.step
            self._bills[place][dimension] = self._bills[place].get(dimension, Amount()) + amount

    def facts(self, names: Sequence[str]) -> dict[str, Any]:
        first, second = self._values
        dimensions = {name: asdict(agreement(first.get(name, {}), second.get(name, {}))) for name in first | second}
        reward = dimensions.pop("reward", asdict(Agreement(count=0)))
        return {
            "items": self.items,
            "responses": self.responses,
            "responses_that_differ": self.different,
            "dimensions": dimensions,
            "reward": reward,
            "items_with_pairs": len(self._same_rows),
            "same_pairs": sum(self._same_rows) / len(self._same_rows) if self._same_rows else None,
            "took": {name: _took_by(bill) for name, bill in zip(names, self._bills, strict=True)},
        }


def _took_by(bill: Mapping[str, Amount]) -> dict[str, dict[str, int]]:
    return {name: _took(amount) for name, amount in sorted(bill.items())} | {"all": _took(sum(bill.values(), Amount()))}


def _took(amount: Amount) -> dict[str, int]:
    return {name: round(getattr(amount, name)) for name in FIELDS} | {"tokens": round(amount.tokens)}
