"""LongReward (arXiv 2410.21252): four judged dimensions, their mean as reward, best against worst, DPO."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

from lrq.domain.errors import Unscored
from lrq.domain.fences import fenced
from lrq.domain.marks import NOTHING_RELEVANT, read_extraction
from lrq.domain.records import Chunk, Reward, Score
from lrq.domain.tokens import chunk
from lrq.recipes.faithfulness import KINDS, NO_DOCUMENT, faithfulness
from lrq.recipes.fanout import gather_all
from lrq.recipes.judge import Judge, Kind, failures, not_applicable
from lrq.recipes.ports import Case
from lrq.recipes.recipe import Recipe, Step, simple

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


async def completeness(judge: Judge) -> Sequence[Score]:
    """Score how much of what the context tells on the question each response covers.

    The context is read once for all responses; if a part of it could not be read, none of them is scored. Without a
    context: not applicable.
    """
    case = judge.case
    if not case.item.context:
        return not_applicable(case, "completeness", NO_DOCUMENT)
    parts = chunk(case.item.context, case.settings["extraction_chunk_tokens"])
    read = await gather_all(_extract(judge, part) for part in parts)
    extraction = [evidence for evidence, _ in read]
    failed = failures("part", extraction)
    if failed:
        score = partial(Score, dimension="completeness", state="unscored", reason=f"extraction of {failed}")
        evidence = judge.evidence(extraction=extraction)
        return [score(k=response.k, prompt=response.prompt, evidence=evidence) for response in case.responses]
    points = fenced(_points(judge, parts, [text for _, text in read]))
    return await judge.score_each("completeness", evidence={"extraction": extraction}, points=points)


async def _extract(judge: Judge, part: Chunk) -> tuple[dict[str, Any], str | None]:
    """Return the evidence for a part of the context, and what it says on the question; None for nothing."""
    evidence: dict[str, Any] = {"chunk": [part.start, part.end]}
    try:
        sections = {"part": fenced(judge.case.item.context[part.start : part.end]), "question": judge.question}
        answer = await judge.answer("extraction", read_extraction, sections)
    except Unscored as why:
        return evidence | {"found": False, "reason": str(why), "calls": []}, None
    return evidence | {"found": answer.value is not None, "calls": list(answer.calls)}, answer.value


def _points(judge: Judge, parts: Sequence[Chunk], texts: Sequence[str | None]) -> str:
    """Return the list that responses are judged against: every part under its number and place, no two alike.

    The points of each part have a fence of their own: what a judge wrote cannot pass for another part's heading.
    """
    length = len(judge.case.item.context)
    labelled = (
        judge.text(
            "part",
            number=str(number),
            count=str(len(parts)),
            start=str(100 * part.start // length),
            end=str(100 * part.end // length),
            text=NOTHING_RELEVANT if text is None else fenced(text),
        )
        for number, (part, text) in enumerate(zip(parts, texts, strict=True), 1)
    )
    return "\n".join(labelled)


def rewards(case: Case) -> list[Reward]:
    """Reward each response that has scores."""
    groups = (case.scores_of((response.prompt, response.k)) for response in case.responses)
    return [reward(scores) for scores in groups if scores]


def reward(scores: Sequence[Score]) -> Reward:
    """Return the mean of `scores`, all of one response, 0 to 10; none if any is unscored.

    What is not applicable is left out.
    """
    judged = {score.dimension for score in scores}
    missing = [f"{name}: not judged" for name in NAMES if name not in judged]
    missing += [f"{score.dimension}: {score.reason}" for score in scores if score.state == "unscored"]
    left_out = [f"{score.dimension}: {score.reason}" for score in scores if score.state == "not_applicable"]
    values = [score.value for score in scores if score.value is not None]
    note = f"mean of {len(values)}; not applicable: {'; '.join(left_out)}" if left_out else ""
    return Reward(
        k=scores[0].k,
        prompt=scores[0].prompt,
        value=fmean(values) if values and not missing else None,
        reason="; ".join(missing) or note,
    )


STEPS = (
    simple("helpfulness", typical=110),
    simple("logicality", typical=130),
    Step(name="faithfulness", procedure=faithfulness, kinds=KINDS),
    Step(
        name="completeness",
        procedure=completeness,
        kinds=(
            Kind(name="completeness", typical=130),
            Kind(name="extraction", max_tokens=1024, typical=None, shared=True),
        ),
    ),
)
NAMES = tuple(step.name for step in STEPS)
LONGREWARD = Recipe(
    name="longreward",
    source="arXiv 2410.21252",
    needs=("context", "question"),
    settings=SETTINGS,
    described=DESCRIBED,
    texts=Path(__file__).parent / "prompts" / "longreward",
    steps=STEPS,
    rewards=rewards,
    loss=LOSS,
)
