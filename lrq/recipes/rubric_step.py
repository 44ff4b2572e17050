"""Scoring by rubrics (Multifaceted Bench, arXiv 2405.17977, section 4): each item brings its own, one call for each.

A response's score on the item is the mean of its rubrics.
"""

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

from lrq.domain.errors import Unscored
from lrq.domain.fences import fenced
from lrq.domain.records import Dimension, Response, Score
from lrq.domain.rubrics import BadRubric, Rubric, read_result, read_rubric
from lrq.recipes.fanout import each_text, gather_all
from lrq.recipes.judge import Judge, Kind
from lrq.recipes.ports import Case, Sampling
from lrq.recipes.recipe import Step

DIMENSION = Dimension(name="rubric", low=1, high=5)


def rubrics_of(case: Case) -> Sequence[Any]:
    """Return the rubrics of an item as they are written, or those of the settings where it brings none."""
    return case.item.fields.get("rubrics") or case.settings.get("rubrics") or ()


def check_rubrics(rubrics: Iterable[Any]) -> None:
    """Raise BadRubric for the first of `rubrics`, the settings', that cannot be used, with its number."""
    for number, rubric in enumerate(rubrics, 1):
        try:
            read_rubric(rubric)
        except BadRubric as bad:
            raise BadRubric(f"settings.rubrics, {number}: {bad}") from None


async def score_by_rubrics(judge: Judge) -> Sequence[Score]:
    """Score every response by every rubric of the item, as dimensions `rubric/1`, `rubric/2` and so on."""
    by_rubric = await gather_all(
        each_text(judge.case, partial(_score, judge, number, rubric))
        for number, rubric in enumerate(rubrics_of(judge.case), 1)
    )
    return [score for scores in by_rubric for score in scores]


async def _score(judge: Judge, number: int, value: Any, response: Response) -> Score:
    score = partial(Score, dimension=f"{DIMENSION.name}/{number}", k=response.k, prompt=response.prompt)
    try:
        rubric = read_rubric(value)
    except BadRubric as bad:
        return score(state="unscored", reason=f"rubric {number}: {bad}")
    try:
        read = partial(read_result, low=rubric.low, high=rubric.high)
        sections = _sections(judge, rubric, response)
        answer = await judge.answer("rubric", read, sections, sampling=_sampling(judge.case))
    except Unscored as why:
        return score(state="unscored", reason=str(why), evidence=judge.evidence(criteria=rubric.criteria))
    return score(value=answer.value, evidence=judge.evidence(answer, criteria=rubric.criteria))


def _sampling(case: Case) -> Sampling | None:
    """Return how the judge is sampled; None: as others are, in a run that was frozen without the settings."""
    values = case.settings
    if "judge_temperature" not in values:
        return None
    return {"temperature": values["judge_temperature"], "top_p": values["judge_top_p"]}


def _sections(judge: Judge, rubric: Rubric, response: Response) -> dict[str, str]:
    item = judge.case.item
    is_shown = judge.case.settings.get("show_system", True)
    system = system_of(judge.case, response) if is_shown else ""
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


def system_of(case: Case, response: Response) -> str:
    """Return the system message that `response` was written under.

    Of an item that brings its responses: the k-th for the k-th response where there are several, else the only one.
    """
    if response.prompt < len(case.prompts):
        first = case.prompts[response.prompt].messages[0]
        return str(first["content"]) if first["role"] == "system" else ""
    systems: Sequence[str] = case.item.fields.get("system", ())
    if len(systems) == 1:
        return systems[0]
    return systems[response.k] if response.k < len(systems) else ""


RUBRIC_STEP = Step(
    name="rubric",
    procedure=score_by_rubrics,
    dimensions=(DIMENSION,),
    kinds=(Kind(name="rubric", max_tokens=1024, typical=150),),
)
