"""What a task works on, in words: Celery knows it by two numbers."""

import ast
import copy
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from lrq.ledger import Ledger
from lrq.ledger.work import find_task_at_work

_MOST = 2_000  # tasks whose work is remembered


@dataclass(frozen=True, kw_only=True)
class Work:
    """The run, item and step of a task."""

    run: str
    item: str  # the user's id; empty: the whole run
    number: int  # the item's number in the ledger
    step: str
    counts: str = ""  # "10 responses"

    def __str__(self) -> str:
        return " · ".join(filter(None, (f"run {self.run}", self.item and f"item {self.item}", self.step, self.counts)))


class Works:
    """Finds the work of tasks: of open ones in the ledger, of ended ones in what their worker returned."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._known: OrderedDict[str, Work] = OrderedDict()

    def find(self, task: Any) -> Work | None:
        """Return the work of one of Flower's tasks; None where nobody knows it any more."""
        work = read_result(task.result) or self._known.get(task.uuid) or self._load(task.uuid)
        if work is not None:
            self._known[task.uuid] = work
            if len(self._known) > _MOST:
                self._known.popitem(last=False)
        return work

    def format_task(self, task: Any) -> Any:
        """Let a task's arguments say what it works on: for Flower's `format_task`."""
        work = self.find(task)
        if work is not None:
            task = copy.copy(task)
            task.args = str(work)
        return task

    def _load(self, uuid: str) -> Work | None:
        number = uuid.partition("-")[0]
        if not number.isdecimal():
            return None
        try:
            with self._ledger.read() as tx:
                task = find_task_at_work(tx, int(number))
        except sa.exc.SQLAlchemyError:
            return None
        if task is None:
            return None
        at_work, answered = task
        counts = f"{answered} responses" if answered else ""
        return Work(run=at_work.run, item=at_work.key, number=at_work.item, step=at_work.step, counts=counts)


def read_result(result: object) -> Work | None:
    """Read the work from what `lrq.workers.tasks.work` returned, as Celery writes it; None where it is none of ours."""
    try:
        value: Any = ast.literal_eval(result) if isinstance(result, str) else None
        names = {"run": str(value["run"]), "item": str(value["item"]), "step": str(value["step"])}
        counts = [f"{value['responses']} responses"] if "responses" in value else []
        counts += [str(value["outcome"])] if "outcome" in value else []
        return Work(**names, number=int(value["number"]), counts=", ".join(counts))
    except (ValueError, SyntaxError, TypeError, KeyError, MemoryError, RecursionError):
        return None
