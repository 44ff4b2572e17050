"""Scoring by rubrics (Multifaceted Bench, arXiv 2405.17977, section 4): each item brings its own, one call for each.

A response's score on the item is the mean of its rubrics.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

from lrq.domain.errors import Unscored
from lrq.domain.fences import fenced
from lrq.domain.records import Dimension, Response, Score
from lrq.domain.rubrics import Rubric, read_result, read_rubric
from lrq.recipes.fanout import each_text, gather_all
from lrq.recipes.judge import Judge, Kind
from lrq.recipes.recipe import Step

DIMENSION = Dimension(name="rubric", low=1, high=5)


async def score_by_rubrics(judge: Judge) -> Sequence[Score]:
    """Score every response by every rubric of the item, as dimensions `rubric/1`, `rubric/2` and so on."""
    rubrics = [read_rubric(value) for value in judge.case.item.fields.get("rubrics", ())]
    by_rubric = await gather_all(
        each_text(judge.case, partial(_score, judge, number, rubric)) for number, rubric in enumerate(rubrics, 1)
    )
    return [score for scores in by_rubric for score in scores]


async def _score(judge: Judge, number: int, rubric: Rubric, response: Response) -> Score:
    score = partial(Score, dimension=f"{DIMENSION.name}/{number}", k=response.k, prompt=response.prompt)
    try:
        read = partial(read_result, low=rubric.low, high=rubric.high)
        answer = await judge.answer("rubric", read, _sections(judge, rubric, response))
    except Unscored as why:
        return score(state="unscored", reason=str(why), evidence=judge.evidence(criteria=rubric.criteria))
    return score(value=answer.value, evidence=judge.evidence(answer, criteria=rubric.criteria))


def _sections(judge: Judge, rubric: Rubric, response: Response) -> dict[str, str]:
    item = judge.case.item
    shown = judge.case.settings.get("show_system", True)
    system = system_of(judge, response) if shown else ""
    return {
        "rubric": fenced(rubric.text()),
        "low": str(rubric.low),
        "high": str(rubric.high),
        "question": judge.question,
        "answer": fenced(response.text),
        "system": _section(judge, "system", system),
        "reference": _section(judge, "reference", item.answer or ""),
    }


def _section(judge: Judge, name: str, text: str) -> str:
    return judge.text(name, text=fenced(text)) + "\n\n" if text else ""


def system_of(judge: Judge, response: Response) -> str:
    """Return the system message that a response was written under; the item's first where it brought its responses."""
    prompts: Sequence[Any] = judge.case.prompts
    if response.prompt < len(prompts):
        first = prompts[response.prompt].messages[0]
        return str(first["content"]) if first["role"] == "system" else ""
    return next(iter(judge.case.item.fields.get("system", ())), "")


RUBRIC_STEP = Step(
    name="rubric",
    procedure=score_by_rubrics,
    dimensions=(DIMENSION,),
    kinds=(Kind(name="rubric", max_tokens=1024, typical=150),),
)
