"""How large a run's items are, without reading their texts."""

import random

import sqlalchemy as sa

from lrq.judge.estimate import Size
from lrq.ledger import Ledger, Transaction
from lrq.ledger.runs import Run
from lrq.ledger.schema import contexts, items


def last_item(ledger: Ledger) -> int:
    """Return the number of the newest item of all; 0 where there is none."""
    with ledger.read() as tx:
        return int(tx.execute(sa.select(sa.func.max(items.c.id))).scalar() or 0)


def total_size(tx: Transaction, run: Run, after: int) -> Size:
    """Return the size of the run's items newer than `after`; one without responses has as many as are sampled."""
    sampled = int(run.config["sample"]["responses"])
    responses = sa.case((items.c.given > 0, items.c.given), else_=sampled)
    chars = sa.func.coalesce(contexts.c.chars, 0)
    sums = [sa.func.sum(column) for column in (responses, chars, responses * chars)]
    query = sa.select(sa.func.count(), *sums).select_from(items)
    query = query.outerjoin(contexts, contexts.c.hash == items.c.context_hash)
    count, *totals = tx.execute(query.where(items.c.run_id == run.id, items.c.id > after)).one()
    fields = ("responses", "context_chars", "read_chars")
    return Size(items=count, **dict(zip(fields, map(float, totals), strict=True)))


def sample_items(tx: Transaction, run: Run, after: int, count: int) -> list[int]:
    """Draw at most `count` of the run's items newer than `after`, the same ones each time; return their numbers."""
    query = sa.select(items.c.id).where(items.c.run_id == run.id, items.c.id > after).order_by(items.c.id)
    ids = list(tx.execute(query).scalars())
    return random.Random(0).sample(ids, min(count, len(ids)))
