"""LongReward (arXiv 2410.21252): four judged dimensions, their mean as reward, best against worst, DPO."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

from lrq.domain.errors import Unscored
from lrq.domain.fences import fenced
from lrq.domain.marks import NOTHING_RELEVANT, read_extraction, read_score
from lrq.domain.pairing import best_against_worst
from lrq.domain.records import Chunk, Dimension, Item, Message, NoRow, Pair, Response, Reward, Score
from lrq.domain.tokens import chunk
from lrq.recipes.faithfulness import faithfulness
from lrq.recipes.fanout import each_text, settled
from lrq.recipes.judging import Judging, failures
from lrq.recipes.ports import Ask, Case, Nearest
from lrq.recipes.recipe import Procedure, Recipe, Step

SETTINGS: Mapping[str, Any] = {
    "responses": 10,
    "min_scored": 5,
    "min_margin": 0.0,
    "statement_chunk_tokens": 128,
    "passages": 5,
    "extraction_chunk_tokens": 4096,
    "batch_statements": False,
}
DESCRIBED: Mapping[str, str] = {
    "responses": "Responses sampled to each question",
    "min_scored": "Scored responses that a pair needs",
    "min_margin": "Reward of chosen minus reward of rejected that a pair needs, on the scale 0 to 10",
    "statement_chunk_tokens": "Length in tokens of the passages that statements are checked against",
    "passages": "Nearest passages that a statement is checked against",
    "extraction_chunk_tokens": "Length in tokens of the parts of a context from which points are extracted",
    "batch_statements": "Check a response's statements together: fewer calls, but not the paper's way",
}
LOSS: Mapping[str, Any] = {  # DPO + 0.1 cross-entropy on the chosen response
    "loss_type": ["sigmoid", "sft"],
    "loss_weights": [1.0, 0.1],
    "beta": 0.15,
    "learning_rate": 1e-6,
    "batch_size": 16,
}
SCORE_TOKENS = 512  # of reply
EXTRACTION_TOKENS = 1024


async def helpfulness(case: Case, ask: Ask, nearest: Nearest) -> Sequence[Score]:
    """Score how well each response serves its question, without the context."""
    return await each_text(case, partial(_score, Judging(case=case, ask=ask), "helpfulness"))


async def logicality(case: Case, ask: Ask, nearest: Nearest) -> Sequence[Score]:
    """Score whether each response is sound in itself, without the context."""
    return await each_text(case, partial(_score, Judging(case=case, ask=ask), "logicality"))


async def completeness(case: Case, ask: Ask, nearest: Nearest) -> Sequence[Score]:
    """Score how much of what the context tells on the question each response covers.

    The context is read once for all responses; if a part of it could not be read, none of them is scored.
    """
    judging = Judging(case=case, ask=ask)
    parts = chunk(case.item.context, case.settings["extraction_chunk_tokens"])
    read = await settled(_extract(judging, part) for part in parts)
    extraction = [evidence for evidence, _ in read]
    failed = failures("part", extraction)
    if failed:
        score = partial(Score, dimension="completeness", state="unscored", reason=f"extraction of {failed}")
        evidence = judging.evidence(extraction=extraction)
        return [score(k=response.k, prompt=response.prompt, evidence=evidence) for response in case.responses]
    points = fenced(_points(judging, parts, [text for _, text in read]))
    return await each_text(
        case, partial(_score, judging, "completeness", evidence={"extraction": extraction}, points=points)
    )


async def _score(
    judging: Judging, kind: str, response: Response, *, evidence: Mapping[str, Any] | None = None, **sections: str
) -> Score:
    more = evidence or {}
    try:
        answer = await judging.answer(
            kind,
            read_score,
            dimension=kind,
            max_tokens=SCORE_TOKENS,
            question=judging.question,
            answer=fenced(response.text),
            **sections,
        )
    except Unscored as why:
        found = judging.evidence(**more)
        return Score(dimension=kind, k=response.k, state="unscored", reason=str(why), evidence=found)
    return Score(dimension=kind, k=response.k, value=answer.value, evidence=judging.evidence(answer, **more))


async def _extract(judging: Judging, part: Chunk) -> tuple[dict[str, Any], str | None]:
    """The evidence for a part of the context, and what it holds on the question; None for nothing."""
    evidence: dict[str, Any] = {"chunk": [part.start, part.end]}
    try:
        answer = await judging.answer(
            "extraction",
            read_extraction,
            dimension="completeness",
            max_tokens=EXTRACTION_TOKENS,
            part=fenced(judging.case.item.context[part.start : part.end]),
            question=judging.question,
        )
    except Unscored as why:
        return evidence | {"found": False, "reason": str(why), "calls": []}, None
    return evidence | {"found": answer.value is not None, "calls": list(answer.calls)}, answer.value


def _points(judging: Judging, parts: Sequence[Chunk], texts: Sequence[str | None]) -> str:
    """The list that responses are judged against: every part under its number and place, no two alike."""
    length = len(judging.case.item.context)
    labelled = (
        judging.text(
            "part",
            number=str(number),
            count=str(len(parts)),
            start=str(100 * part.start // length),
            end=str(100 * part.end // length),
            text=NOTHING_RELEVANT if text is None else text,
        )
        for number, (part, text) in enumerate(zip(parts, texts, strict=True), 1)
    )
    return "\n".join(labelled)


def reward(scores: Sequence[Score]) -> Reward:
    """The mean of one response's dimensions, 0 to 10; none if any is unscored. What is not applicable is left out."""
    known = {score.dimension: score for score in scores}
    missing = [f"{name}: not judged" for name in NAMES if name not in known]
    missing += [f"{score.dimension}: {score.reason}" for score in scores if score.state == "unscored"]
    left_out = [f"{score.dimension}: {score.reason}" for score in scores if score.state == "not_applicable"]
    values = [score.value for score in scores if score.value is not None]
    return Reward(
        k=scores[0].k,
        prompt=scores[0].prompt,
        value=fmean(values) if values and not missing else None,
        reason="; ".join(missing) or _left_out(left_out, len(values)),
    )


def _left_out(reasons: Sequence[str], counted: int) -> str:
    return f"mean of {counted}; not applicable: {'; '.join(reasons)}" if reasons else ""


def rows(
    rewards: Sequence[Reward], responses: Sequence[Response], settings: Mapping[str, Any]
) -> Sequence[Pair | NoRow]:
    """The best response against the worst, or why there is no such pair."""
    texts = {response.k: response.text for response in responses}
    pair = best_against_worst(rewards, texts, min_scored=settings["min_scored"], min_margin=settings["min_margin"])
    return [pair]


def policy_prompts(item: Item) -> Sequence[Sequence[Message]]:
    """One prompt: the context, fenced, followed by the question."""
    return [[{"role": "user", "content": f"{fenced(item.context)}\n\n{item.question}"}]]


def _step(name: str, procedure: Procedure, *shared: str) -> Step:
    queue, dimensions = f"judge.{name}", (Dimension(name=name),)
    return Step(name=name, queue=queue, dimensions=dimensions, procedure=procedure, shared=frozenset(shared))


STEPS = (
    _step("helpfulness", helpfulness),
    _step("logicality", logicality),
    _step("faithfulness", faithfulness, "statements"),
    _step("completeness", completeness, "extraction"),
)
NAMES = tuple(step.name for step in STEPS)
LONGREWARD = Recipe(
    name="longreward",
    source="arXiv 2410.21252",
    needs=("context", "question"),
    settings=SETTINGS,
    described=DESCRIBED,
    texts=Path(__file__).parent / "prompts" / "longreward",
    policy_prompts=policy_prompts,
    steps=STEPS,
    reward=reward,
    rows=rows,
    loss=LOSS,
)
