"""The aggregator worker: when an item's last step is in, its rewards and rows, by the recipe's pure functions."""

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import replace

from lrq.domain.records import NoRow, Pair, Response, Reward, Score
from lrq.ledger import backlog
from lrq.ledger import items as items_
from lrq.ledger.backlog import Task
from lrq.ledger.runs import Run
from lrq.workers.engine import Engine
from lrq.workers.frozen import Frozen


def aggregate(engine: Engine, task: Task, run: Run, frozen: Frozen) -> None:
    with engine.ledger.writing() as conn:
        scores = items_.load_scores(conn, task.item, task.round)
        responses = items_.load_responses(conn, task.item, task.round)
        found = rewards_of(frozen, responses, scores)
        made = rows_of(frozen, found, responses)
        if backlog.end_aggregate(engine.ledger, conn, task, found, made):
            backlog.settle_run(engine.ledger, conn, run.id, frozen.train_every)


def rewards_of(frozen: Frozen, responses: Sequence[Response], scores: Sequence[Score]) -> list[Reward]:
    """One reward for each response that has scores."""
    by_response: dict[tuple[int, int], list[Score]] = defaultdict(list)
    for score in scores:
        by_response[score.prompt, score.k].append(score)
    asked = [(response.prompt, response.k) for response in responses]
    return [frozen.recipe.reward(by_response[name]) for name in asked if by_response[name]]


def rows_of(frozen: Frozen, rewards: Sequence[Reward], responses: Sequence[Response]) -> Sequence[Pair | NoRow]:
    if not responses:
        return [NoRow(reason="no response has a text")]
    if frozen.config["sample"].get("choose_cut"):
        responses = [replace(response, is_cut=False) for response in responses]
    made = frozen.recipe.rows(rewards, responses, frozen.config["settings"])
    return [_unless_cut(row, {(one.prompt, one.k) for one in responses if one.is_cut}) for row in made]


def _unless_cut(row: Pair | NoRow, cut: Collection[tuple[int, int]]) -> Pair | NoRow:
    """Take back a pair whose chosen response has no end, whatever recipe made it."""
    if isinstance(row, NoRow) or (row.prompt, row.chosen) not in cut:
        return row
    return NoRow(reason="the chosen response was cut by max_new_tokens; sample.choose_cut allows it")
