"""The judge worker: one step of one item. Its calls fan out inside; its scores are written in one transaction."""

import sys
from collections.abc import Sequence
from dataclasses import replace

from lrq.domain.records import Passage, Purpose, Score
from lrq.judge.asking import Asker
from lrq.judge.passages import Embedder, Passages
from lrq.judge.preferences import Preferences
from lrq.judge.votes import cast
from lrq.ledger.backlog import Task
from lrq.ledger.runs import Run
from lrq.ledger.steps import EndStep
from lrq.recipes import Case
from lrq.run_config import RunConfig
from lrq.workers import loop
from lrq.workers.cases import load_case
from lrq.workers.context import WorkerContext


def judge(worker: WorkerContext, task: Task, run: Run, frozen: RunConfig) -> int:
    """Score all responses of the item in the dimensions of one step; return how many responses it has."""
    with worker.ledger.read() as tx:
        row, case = load_case(tx, frozen, task.item, task.round, step=task.name, documents=worker.documents)
    with worker.room.take(sys.getsizeof(case.item.context)):
        loop.run(_Step(worker, task, run, frozen, case, row.context_hash).work())
    return len(case.responses)


class _Step:
    def __init__(
        self,
        worker: WorkerContext,
        task: Task,
        run: Run,
        frozen: RunConfig,
        case: Case,
        context_hash: str,
    ) -> None:
        self.worker = worker
        self.task = task
        self.run = run
        self.frozen = frozen
        self.case = case
        self.context_hash = context_hash
        self.purpose = Purpose(run=run.id, item=task.item, step=task.name)
        self.left_out: list[list[int]] = []  # passages, as [start, end], that the embedding endpoint cannot take
        self.passages: dict[int, Passages] = {}  # by the size of their chunks: the cache may be too small for all steps

    async def work(self) -> None:
        scores = await cast(self.frozen.votes(self.task.name), self._vote)
        await self.worker.writer.write_until_committed(EndStep(task=self.task, found=scores))

    async def _vote(self, vote: int) -> Sequence[Score]:
        step = self.frozen.recipe.step(self.task.name)
        ask = Asker(
            caller=self.worker.caller,
            models=self.frozen.judge_of,
            purpose=self.purpose,
            series=self.run.series,
            vote=vote,
            shared=step.shared,
            report=self.worker.caller.breaker.read,
        )
        prefer = None
        if self.frozen.is_compared(step.name):
            prefer = Preferences(
                caller=self.worker.caller, models=self.frozen.judge_of, purpose=self.purpose, series=self.run.series
            )
        scores = await step.procedure(step.judge(self.case, ask, self._nearest, prefer))
        if not self.left_out:
            return scores
        return [replace(score, evidence={**score.evidence, "passages_left_out": self.left_out}) for score in scores]

    async def _nearest(self, queries: Sequence[str], *, count: int, chunk_tokens: int) -> Sequence[Sequence[Passage]]:
        passages = self.passages.get(chunk_tokens)
        if passages is None:
            embed = self._embedder()
            name = (self.context_hash, chunk_tokens, embed and (embed.endpoint, embed.model, embed.identity))
            passages = await self.worker.passages.get(name, self.case.item.context, chunk_tokens, embed)
            self.passages[chunk_tokens] = passages
        self.left_out = [list(passages.passages[index]) for index in passages.left_out]
        return await passages(queries, count=count)

    def _embedder(self) -> Embedder | None:
        models = self.frozen.of(self.task.name)["embedding"]["models"]
        if not models:
            return None
        purpose = replace(self.purpose, kind="embedding")
        return Embedder(
            caller=self.worker.caller,
            endpoint=models[0]["endpoint"],
            model=models[0]["model"],
            identity=models[0].get("identity", ""),
            purpose=purpose,
            series=self.run.series,
        )
