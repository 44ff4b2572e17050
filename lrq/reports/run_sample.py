"""The responses of a sample of a run's items: values, rewards and lengths of the current round."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import sqlalchemy as sa

from lrq.ledger import Transaction
from lrq.ledger.runs import Run
from lrq.ledger.schema import items, responses, rewards, scores

SAMPLE = 2_000  # items, spread evenly over the run: what is read of a run does not grow with it
_AT_ONCE = 500  # items in one question to the database

Place = tuple[int, int, int]  # (item, prompt, k): a response


def sample_items(tx: Transaction, run: Run, most: int = SAMPLE) -> tuple[list[int], int]:
    """Return the numbers of at most `most` items, spread evenly over the run, and how many it has."""
    ids = list(tx.execute(sa.select(items.c.id).where(items.c.run_id == run.id).order_by(items.c.id)).scalars())
    if len(ids) <= most:
        return ids, len(ids)
    return [ids[n * len(ids) // most] for n in range(most)], len(ids)


def pages(ids: Sequence[int]) -> Iterator[Sequence[int]]:
    return (ids[start : start + _AT_ONCE] for start in range(0, len(ids), _AT_ONCE))


def load_values(tx: Transaction, ids: Sequence[int]) -> dict[str, dict[Place, float]]:
    """Return the values of the items `ids` by dimension and response."""
    values: dict[str, dict[Place, float]] = defaultdict(dict)
    columns = (scores.c[name] for name in ("item_id", "prompt", "k", "dimension", "value"))
    query = of_current_round(sa.select(*columns), scores).where(scores.c.state == "value").order_by(scores.c.dimension)
    for page in pages(ids):
        for row in tx.execute(query.where(scores.c.item_id.in_(page))):
            values[row.dimension][row.item_id, row.prompt, row.k] = row.value
    return dict(sorted(values.items()))


def load_rewards(tx: Transaction, ids: Sequence[int]) -> dict[Place, float]:
    query = of_current_round(sa.select(rewards), rewards).where(rewards.c.value.is_not(None))
    stored = (row for page in pages(ids) for row in tx.execute(query.where(rewards.c.item_id.in_(page))))
    return {(row.item_id, row.prompt, row.k): row.value for row in stored}


def load_lengths(tx: Transaction, ids: Sequence[int]) -> dict[Place, float]:
    """Return the characters of each response to the items `ids` that has a text."""
    length = sa.func.length(responses.c.text).label("chars")
    query = of_current_round(sa.select(responses.c.item_id, responses.c.prompt, responses.c.k, length), responses)
    query = query.where(responses.c.text.is_not(None))
    stored = (row for page in pages(ids) for row in tx.execute(query.where(responses.c.item_id.in_(page))))
    return {(row.item_id, row.prompt, row.k): row.chars for row in stored}


def of_current_round(query: sa.Select[Any], table: sa.Table) -> sa.Select[Any]:
    """Keep of `query` on `table` what belongs to the item's current round."""
    return query.join(items, items.c.id == table.c.item_id).where(table.c.round == items.c.round)
