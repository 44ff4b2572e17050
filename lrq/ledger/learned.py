"""What endpoints were learned to want of requests, for all processes and runs."""

from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from lrq.ledger.schema import learned
from lrq.ledger.transaction import Transaction


@dataclass(frozen=True, kw_only=True)
class Fact:
    """One thing that is known of a server and model; `topic` and `name` are the words of lrq.calls.learned."""

    server: str  # host, port and path
    model: str
    topic: str
    name: str
    value: float = 1.0
    reason: str = ""  # the server's words, where it was they


@dataclass(frozen=True, kw_only=True)
class Keep:
    """Write a fact; the larger value stands, of a ceiling the smaller, of a context the newest."""

    fact: Fact

    @classmethod
    def apply(cls, tx: Transaction, writes: "Sequence[Keep]") -> Sequence[None]:
        for write in writes:
            keep(tx, write.fact)
        return [None] * len(writes)


def keep(tx: Transaction, fact: Fact) -> None:
    values = {**vars(fact), "server": fact.server[:200], "model": fact.model[:200], "name": fact.name[:64]}
    insert = tx.insert(learned).values(**values, at=tx.now())
    stored, new = learned.c.value, insert.excluded.value
    better = {"most": new < stored, "context": new != stored}.get(fact.topic, new > stored)
    update = {name: insert.excluded[name] for name in ("value", "reason", "at")}
    key = [column.name for column in learned.primary_key]
    tx.execute(insert.on_conflict_do_update(index_elements=key, set_=update, where=better))


def all_facts(tx: Transaction) -> list[Fact]:
    names = Fact.__dataclass_fields__
    ordered = sa.select(learned).order_by(learned.c.server, learned.c.model, learned.c.topic, learned.c.name)
    return [Fact(**{name: getattr(row, name) for name in names}) for row in tx.execute(ordered)]


def forget(tx: Transaction, server: str, model: str) -> None:
    """Let the server be learned anew."""
    tx.execute(learned.delete().where(learned.c.server == server[:200], learned.c.model == model[:200]))
