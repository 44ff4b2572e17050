"""Calls in a row that brought nothing, counted over all processes; enough of them pause the run."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import orjson
import sqlalchemy as sa

from lrq.domain.errors import RunHalted
from lrq.ledger import runs as runs_
from lrq.ledger.schema import breakers, items, runs
from lrq.ledger.transaction import Transaction

LIMIT = 20  # failures in a row
_SEVERAL = 4  # items that they are of, where the same question went well before: one bad item is not the endpoint


@dataclass(frozen=True, kw_only=True)
class Question:
    """What is counted together: one kind of question to one model."""

    run: int
    role: str
    endpoint: str
    model: str
    kind: str  # which prompt of the recipe; "" in the ledger: all of the endpoint


@dataclass(frozen=True, kw_only=True)
class NoteFailure:
    """Count a call that brought nothing. The result is a RunHalted where it has paused the run."""

    question: Question
    item: int | None
    reason: str  # what was wrong, and what to set

    @classmethod
    def apply(cls, tx: Transaction, writes: "Sequence[NoteFailure]") -> Sequence[RunHalted | None]:
        return [_fail(tx, write) for write in writes]


@dataclass(frozen=True, kw_only=True)
class NoteSuccess:
    """Begin the count anew."""

    question: Question

    @classmethod
    def apply(cls, tx: Transaction, writes: "Sequence[NoteSuccess]") -> Sequence[None]:
        for question in dict.fromkeys(each for write in writes for each in _both(write.question)):
            _keep(tx, question, failures=0, items="[]", has_succeeded=1)
        return [None] * len(writes)


def _both(question: Question) -> tuple[Question, Question]:
    """Return the question and its endpoint as a whole."""
    return question, replace(question, kind="")


def _fail(tx: Transaction, write: NoteFailure) -> RunHalted | None:
    run = tx.execute(sa.select(runs.c.name, runs.c.open_items).where(runs.c.id == write.question.run)).one()
    needed = min(_SEVERAL, max(2, run.open_items))
    for question in dict.fromkeys(_both(write.question)):
        stored = tx.execute(sa.select(breakers).where(*_is(question))).one_or_none()
        failures = 1 + (stored.failures if stored else 0)
        failed: list[int | None] = orjson.loads(stored.items) if stored else []
        if write.item not in failed and len(failed) < _SEVERAL:
            failed.append(write.item)
        _keep(tx, question, failures=failures, items=orjson.dumps(failed).decode())
        went_well = bool(stored and stored.has_succeeded)
        if failures >= LIMIT and (not went_well or len(failed) >= needed):
            reason = _reason(tx, write, question, failures, failed, run.name)
            runs_.halt(tx, question.run, state="paused", by="account", reason=reason)
            return RunHalted(reason)
    return None


def _reason(
    tx: Transaction, write: NoteFailure, question: Question, failures: int, failed: Sequence[int | None], run: str
) -> str:
    what = f"the {question.kind} calls" if question.kind else f"the {question.role}'s calls"
    item_keys = tx.execute(sa.select(items.c.key).where(items.c.id.in_([id_ for id_ in failed if id_])))
    keys = sorted(item_keys.scalars())[:3]
    those = f" (items {', '.join(keys)})" if keys else ""
    return (
        f"{what} to {question.model} have only failed, {failures} in a row{those}: {write.reason}; "
        f"then `lrq resume {run}`"
    )


def _keep(tx: Transaction, question: Question, **values: Any) -> None:
    insert = tx.insert(breakers).values(**_named(question), **values)
    key = [column.name for column in breakers.primary_key]
    tx.execute(insert.on_conflict_do_update(index_elements=key, set_=values))


def _named(question: Question) -> dict[str, Any]:
    return {
        "run_id": question.run,
        "role": question.role,
        "endpoint": question.endpoint[:64],
        "model": question.model[:200],
        "kind": question.kind[:64],
    }


def _is(question: Question) -> list[sa.ColumnElement[bool]]:
    return [breakers.c[name] == value for name, value in _named(question).items()]
