"""The aggregator worker: when an item's last step is in, its rewards and rows, by the recipe's pure functions."""

from collections.abc import Collection, Sequence
from dataclasses import replace

from lrq.domain.records import NoRow, Ref, Reward, Row
from lrq.ledger import backlog
from lrq.ledger.backlog import Task
from lrq.ledger.runs import Run
from lrq.recipes import Case
from lrq.run_config import RunConfig
from lrq.workers.cases import load_case
from lrq.workers.context import WorkerContext


def aggregate(worker: WorkerContext, task: Task, run: Run, frozen: RunConfig) -> None:
    """Write the item's rewards and rows, and open the trainings that are due."""
    with worker.ledger.write() as tx:
        _, case = load_case(tx, frozen, task.item, task.round, with_scores=True)
        rewards = frozen.recipe.rewards(case)
        if backlog.end_aggregate(tx, task, rewards, rows_of(frozen, case, rewards)):
            backlog.advance_run(tx, run.id, frozen.schedule)


def rows_of(frozen: RunConfig, case: Case, rewards: Sequence[Reward]) -> Sequence[Row | NoRow]:
    """Return the item's rows by its recipe."""
    if not case.responses:
        return [NoRow(reason="no response has a text")]
    if frozen.config["sample"].get("choose_cut"):
        case = replace(case, responses=tuple(replace(response, is_cut=False) for response in case.responses))
    cut = {(response.prompt, response.k) for response in case.responses if response.is_cut}
    return [_unless_cut(row, cut) for row in frozen.recipe.rows(case, rewards)]


def _unless_cut(row: Row | NoRow, cut: Collection[Ref]) -> Row | NoRow:
    """Take back a row with a chosen response that has no end, whatever recipe made it."""
    if isinstance(row, NoRow) or not any(turn.chosen in cut for turn in row.turns):
        return row
    return NoRow(reason="the chosen response was cut by max_new_tokens; sample.choose_cut allows it")
