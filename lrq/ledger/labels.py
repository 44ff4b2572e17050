"""Labels: which of two responses to a prompt a person prefers."""

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from lrq.domain.errors import UsageError
from lrq.ledger.schema import items, labels, responses
from lrq.ledger.transaction import Transaction

CHOICES = ("left", "right", "tie")


@dataclass(frozen=True, kw_only=True)
class Label:
    """One person's choice between two responses of a prompt, as they were shown."""

    item: int  # the item's number in the ledger
    round: int
    prompt: int
    left: int  # k
    right: int  # k
    choice: str
    who: str


def add_label(tx: Transaction, run: int, label: Label) -> None:
    """Keep a label; an earlier one of the same person on the same two responses is replaced.

    Raises UsageError where the choice is none, or the item has no such responses.
    """
    if label.choice not in CHOICES:
        raise UsageError(f"a choice is {', '.join(CHOICES)}, not {label.choice!r}")
    _check_responses(tx, run, label)
    remove_label(tx, run, label)
    tx.execute(
        labels.insert().values(
            run_id=run,
            item_id=label.item,
            round=label.round,
            prompt=label.prompt,
            left=label.left,
            right=label.right,
            choice=label.choice,
            who=label.who,
            at=tx.now(),
        )
    )


def _check_responses(tx: Transaction, run: int, label: Label) -> None:
    of_item = items.c.id == label.item, items.c.run_id == run, responses.c.round == label.round
    shown = responses.c.prompt == label.prompt, responses.c.k.in_((label.left, label.right))
    query = sa.select(sa.func.count()).select_from(responses).join(items, items.c.id == responses.c.item_id)
    if label.left == label.right or tx.execute(query.where(*of_item, *shown)).scalar_one() != 2:
        raise UsageError(f"item {label.item} of this run has no two responses {label.left} and {label.right}")


def remove_label(tx: Transaction, run: int, label: Label) -> bool:
    """Take a person's label on these two responses back, whichever stood left; tell whether there was one."""
    of_prompt = labels.c.item_id == label.item, labels.c.round == label.round, labels.c.prompt == label.prompt
    either = sa.or_(
        sa.and_(labels.c.left == label.left, labels.c.right == label.right),
        sa.and_(labels.c.left == label.right, labels.c.right == label.left),
    )
    identity = labels.c.run_id == run, labels.c.who == label.who
    return tx.execute(labels.delete().where(*identity, *of_prompt, either)).rowcount > 0


def labels_of(tx: Transaction, run: int, *, who: str | None = None) -> list[sa.Row[Any]]:
    """Load a run's labels in the order they were given, each with its item's `key`."""
    query = sa.select(labels, items.c.key).join(items, items.c.id == labels.c.item_id).where(labels.c.run_id == run)
    if who is not None:
        query = query.where(labels.c.who == who)
    return list(tx.execute(query.order_by(labels.c.id)))
