"""The judge worker: one step of one item. Its calls fan out inside; its scores are written in one transaction."""

import asyncio
import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from lrq.domain.records import Item, Passage, Purpose, Response, Score
from lrq.judge.asking import Asker
from lrq.judge.passages import Embedder
from lrq.ledger import backlog
from lrq.ledger import items as items_
from lrq.ledger.backlog import Task
from lrq.ledger.runs import Run
from lrq.recipes.ports import Case
from lrq.workers import loop
from lrq.workers.engine import Engine
from lrq.workers.frozen import Frozen


def judge(engine: Engine, task: Task, run: Run, frozen: Frozen) -> None:
    """Score all responses of the item in the dimensions of one step."""
    with engine.ledger.reading() as conn:
        row, item = items_.load_item(conn, task.item)
        responses = items_.load_responses(conn, task.item, task.round)
    loop.run(_Step(engine, task, run, frozen, item, responses, row.context_hash).work())


class _Step:
    def __init__(
        self,
        engine: Engine,
        task: Task,
        run: Run,
        frozen: Frozen,
        item: Item,
        responses: Sequence[Response],
        context_hash: str,
    ) -> None:
        self.engine = engine
        self.task = task
        self.run = run
        self.frozen = frozen
        self.item = item
        self.case = Case(
            item=item,
            responses=tuple(responses),
            prompts=frozen.config["prompts"],
            settings=frozen.config["settings"],
        )
        self.context_hash = context_hash
        self.purpose = Purpose(run=run.id, item=task.item, step=task.name)

    async def work(self) -> None:
        votes = range(int(self.frozen.config["judge"]["votes"]))
        ballots = await asyncio.gather(*(self._vote(vote) for vote in votes), return_exceptions=True)
        for ballot in ballots:
            if isinstance(ballot, BaseException):
                raise ballot  # after all have ended: their replies are committed
        found = _mean([ballot for ballot in ballots if not isinstance(ballot, BaseException)])
        task = self.task
        await self.engine.writer.together(lambda conn: backlog.end_step(self.engine.ledger, conn, task, found))

    async def _vote(self, vote: int) -> Sequence[Score]:
        ask = Asker(
            caller=self.engine.caller,
            models=self.frozen.judge_of,
            purpose=self.purpose,
            series=self.run.series,
            vote=vote,
        )
        return await self.frozen.recipe.step(self.task.name).procedure(self.case, ask, self._nearest)

    async def _nearest(self, queries: Sequence[str], *, count: int, chunk_tokens: int) -> Sequence[Sequence[Passage]]:
        embed = self._embedder()
        name = (self.context_hash, chunk_tokens, embed and (embed.endpoint, embed.model))
        passages = await self.engine.passages.get(name, self.item.context, chunk_tokens, embed)
        return await passages(queries, count=count)

    def _embedder(self) -> Embedder | None:
        models = self.frozen.config["embedding"]["models"]
        if not models:
            return None
        purpose = replace(self.purpose, kind="embedding")
        return Embedder(
            caller=self.engine.caller, endpoint=models[0]["endpoint"], model=models[0]["model"], purpose=purpose
        )


def _mean(ballots: Sequence[Sequence[Score]]) -> Sequence[Score]:
    """The mean of several votes for each score, with their spread; what is no value in any vote stays so."""
    if len(ballots) == 1:
        return ballots[0]
    votes: dict[tuple[int, int, str], list[Score]] = defaultdict(list)
    for ballot in ballots:
        for score in ballot:
            votes[score.prompt, score.k, score.dimension].append(score)
    return [_merge(scores) for scores in votes.values()]


def _merge(scores: Sequence[Score]) -> Score:
    without = next((score for score in scores if score.state == "unscored"), None)
    without = without or next((score for score in scores if score.state != "value"), None)
    evidence = {"votes": [{"value": score.value, **score.evidence} for score in scores]}
    if without is not None:
        return replace(without, evidence=evidence)
    values = [score.value for score in scores if score.value is not None]
    spread = statistics.pstdev(values)
    return replace(scores[0], value=statistics.fmean(values), evidence=evidence | {"spread": spread})
