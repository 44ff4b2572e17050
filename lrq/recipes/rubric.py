"""Scoring of conversations by rubrics, several criteria in one call (EvalYaks, arXiv 2408.12226).

The judge is asked once for each conversation; a step reads its scores. Reference scores, where the items bring them,
make demonstrations, and `lrq agreement` compares.
"""

import ast
import json
import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from lrq.domain.errors import Unreadable
from lrq.domain.fences import fenced
from lrq.domain.language import language
from lrq.domain.records import CONTEXT, Item, NoRow, Prompt, Response, Reward, Row, Score, Turn
from lrq.domain.rubrics import Rubric, read_result, read_rubric
from lrq.recipes.judge import Judge
from lrq.recipes.ports import Case
from lrq.recipes.recipe import Recipe, Step
from lrq.recipes.rubric_step import DIMENSION
from lrq.recipes.templates import fill

SETTINGS: Mapping[str, Any] = {
    "responses": 1,
    "rubrics": [],
    "speaker": "",
}
DESCRIBED: Mapping[str, str] = {
    "responses": "Replies of the judge to each conversation",
    "rubrics": "The criteria, where the items bring none: a list of {name, criteria, descriptions}",
    "speaker": "Who is scored; empty: everyone",
}
LOSS: Mapping[str, Any] = {
    "loss_type": ["sft"],
    "loss_weights": [1.0],
    "learning_rate": 2e-4,
    "epochs": 5,
    "batch_size": 16,
}
_SAMPLING = {"temperature": 0.01, "max_new_tokens": 1024}
_OBJECT = re.compile(r"\{[^{}]*\}")


def criteria(case: Case) -> dict[str, Rubric]:
    """Return the rubrics of an item, or of the settings, by their names; those without one are called C1, C2 …"""
    given = case.item.fields.get("rubrics") or case.settings["rubrics"]
    rubrics = [read_rubric(value) for value in given]
    return {rubric.name or f"C{number}": rubric for number, rubric in enumerate(rubrics, 1)}


def conversation(item: Item) -> str:
    """Return an item's turns as lines, each with its speaker; its context where it has no turns."""
    return "\n".join(map(_line, item.fields.get("turns", ()))) or item.context


def _line(turn: Any) -> str:
    """One turn: a text, {"speaker": …, "text": …}, a chat message, or {"Candidate": "…"}."""
    if not isinstance(turn, Mapping):
        return str(turn)
    speaker = next((turn[name] for name in ("speaker", "role", "name") if turn.get(name)), None)
    text = next((turn[name] for name in ("text", "content", "value") if turn.get(name)), None)
    if text is None and speaker is None and len(turn) == 1:
        speaker, text = next(iter(turn.items()))
    return f"{speaker}: {text}" if speaker else str(text or "")


def prompts(case: Case) -> Sequence[Prompt]:
    """Make the one prompt to the judge."""
    if case.prompts:
        return ()
    rubrics, words = criteria(case), conversation(case.item)
    texts = {
        name.partition("/")[2]: text for name, text in case.texts.items() if name.startswith(f"{language(words)}/")
    }
    speaker = case.settings["speaker"]
    listed = (fill(texts["criterion"], {"name": name, "text": fenced(one.text())}) for name, one in rubrics.items())
    closing = (f"[RESULT] {name}: {rubric.low}-{rubric.high}" for name, rubric in rubrics.items())
    values = {
        "speaker": fill(texts["speaker"], {"name": speaker}) if speaker else "",
        "criteria": "\n\n".join(listed),
        "closing": "\n".join(closing),
        "count": str(len(rubrics)),
        "conversation": fenced(words.replace(CONTEXT, " ")),
    }
    message = {"role": "user", "content": fill(texts["transcript"], values)}
    return [Prompt(name="transcript", by="judge", messages=(message,), sampling=_SAMPLING)]


def read_scores(reply: str, rubrics: Mapping[str, Rubric]) -> dict[str, float | str]:
    """Return each criterion's score, or why it cannot be read.

    The last `[RESULT] NAME: n` of a criterion counts; else its value in the last JSON object or Python dict.
    """
    last = _last_object(reply)
    return {name: _read(reply, name, rubric, last) for name, rubric in rubrics.items()}


def _read(reply: str, name: str, rubric: Rubric, last: Mapping[str, Any]) -> float | str:
    lines = re.findall(rf"\[RESULT\]\W*{re.escape(name)}\W*([^\n]*)", reply, re.IGNORECASE)
    value = lines[-1] if lines else str(last.get(name, ""))
    if not value:
        return f"the reply has no score for {name}"
    try:
        return read_result(f"[RESULT] {value}", rubric.low, rubric.high)
    except Unreadable as why:
        return f"{name}: {why}"


def _last_object(reply: str) -> Mapping[str, Any]:
    for text in reversed(_OBJECT.findall(reply)):
        for read in (json.loads, ast.literal_eval):
            try:
                value = read(text)
            except (ValueError, SyntaxError):
                continue
            if isinstance(value, Mapping):
                return value
    return {}


async def read_replies(judge: Judge) -> Sequence[Score]:
    """Read what the judge has answered; no call is made."""
    rubrics = criteria(judge.case)
    return [score for response in judge.case.responses for score in _scores(response, rubrics)]


def _scores(response: Response, rubrics: Mapping[str, Rubric]) -> list[Score]:
    return [_score(response, name, value) for name, value in read_scores(response.text, rubrics).items()]


def _score(response: Response, name: str, value: float | str) -> Score:
    score = partial(Score, dimension=f"{DIMENSION.name}/{name}", k=response.k, prompt=response.prompt)
    return score(state="unscored", reason=value) if isinstance(value, str) else score(value=value)


def reference_scores(case: Case) -> dict[str, int]:
    """Return the item's own scores by dimension, from its answer: a JSON object or a Python dict. Raises Unreadable."""
    known = _last_object(case.item.answer or "")
    found = {}
    for name, rubric in criteria(case).items():
        score = _read("", name, rubric, known)
        if isinstance(score, str):
            raise Unreadable(score)
        found[f"{DIMENSION.name}/{name}"] = int(score)
    return found


def rows(case: Case, rewards: Sequence[Reward]) -> Sequence[Row | NoRow]:
    """Make a demonstration of the reference scores."""
    try:
        scores = reference_scores(case)
    except Unreadable as why:
        return [NoRow(reason=f"no reference scores: {why}")]
    text = "\n".join(f"[RESULT] {name.partition('/')[2]}: {score}" for name, score in scores.items())
    return [Row(turns=(Turn(prompt=0, chosen=text),))]


RUBRIC = Recipe(
    name="rubric",
    source="arXiv 2408.12226",
    needs=(),
    settings=SETTINGS,
    described=DESCRIBED,
    texts=Path(__file__).parent / "prompts" / "transcript",
    prompts=prompts,
    steps=(Step(name="rubric", procedure=read_replies, dimensions=(DIMENSION,), kinds=()),),
    rows=rows,
    references=reference_scores,
    loss=LOSS,
    carries=lambda _: (),  # demonstrations
)
