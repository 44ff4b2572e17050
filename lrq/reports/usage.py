"""What was paid for items: the calls that their scores rest on, whoever bought them first."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import sqlalchemy as sa

from lrq.judge.estimate import ENOUGH, Amount, Group, Known
from lrq.ledger import Ledger, Transaction
from lrq.ledger import items as items_
from lrq.ledger import runs as runs_
from lrq.ledger.schema import calls, items

_AT_ONCE = 500  # keys in one question to the database


def call_keys(evidence: Any) -> Iterator[str]:
    """Yield the keys of all calls that `evidence`, a score's, names, however deep."""
    if isinstance(evidence, Mapping):
        for name, value in evidence.items():
            yield from value if name == "calls" else call_keys(value)
    elif isinstance(evidence, list):
        for value in evidence:
            yield from call_keys(value)


def bill_of(tx: Transaction, item_ids: Iterable[int]) -> dict[Group, Amount]:
    """Return what the scores of `item_ids` took, each call of an item once, and paid calls that sampled or embedded."""
    bill: dict[Group, Amount] = {}
    for id_ in item_ids:
        for row in _calls(tx, id_):
            group = Group(row.role, row.endpoint, row.model, row.step, row.dimension, row.kind)
            bill[group] = bill.get(group, Amount()) + Amount(
                calls=1,
                prompt_tokens=row.prompt_tokens,
                cached_tokens=row.cached_tokens,
                completion_tokens=row.completion_tokens,
            )
    return bill


def _calls(tx: Transaction, id_: int) -> Iterator[sa.Row[Any]]:
    round_ = tx.execute(sa.select(items.c.round).where(items.c.id == id_)).scalar_one()
    scores = items_.load_scores(tx, id_, round_)
    keys = iter(dict.fromkeys(key for score in scores for key in call_keys(score.evidence)))
    columns = [calls.c[name] for name in (*Group._fields, "prompt_tokens", "cached_tokens", "completion_tokens")]
    while batch := list(islice(keys, _AT_ONCE)):
        yield from tx.execute(sa.select(*columns).where(calls.c.key.in_(batch), calls.c.state == "done"))
    others = calls.c.item_id == id_, calls.c.role != "judge", calls.c.state == "done"
    yield from tx.execute(sa.select(*columns).where(*others))


def known_usage(ledger: Ledger) -> dict[tuple[str, str, str, str], Known]:
    """Return what endpoints have counted for each kind of prompt, over all runs, where it is enough to believe."""
    with ledger.read() as tx:
        rows = runs_.usage_of(tx)
    groups: dict[tuple[str, str, str, str], list[runs_.UsageRow]] = {}
    for row in rows:
        groups.setdefault((row.role, row.endpoint, row.model, row.kind), []).append(row)
    usage = {}
    for name, rows_ in groups.items():
        count = _sum(rows_, "calls")
        if count >= ENOUGH:
            usage[name] = Known(
                completion_tokens=_sum(rows_, "completion_tokens") / count,
                cached_share=_sum(rows_, "cached_tokens") / max(1, _sum(rows_, "prompt_tokens")),
                seconds=_sum(rows_, "latency_ms") / count / 1000,
            )
    return usage


def _sum(rows: Sequence[runs_.UsageRow], name: str) -> int:
    return sum(getattr(row, name) for row in rows)
