"""Scoring of conversations by rubrics, several criteria in one call (EvalYaks, arXiv 2408.12226).

The judge is asked once for each conversation; a step reads its scores. Reference scores, where the items bring them,
make demonstrations, and `lrq agreement` compares. The presets `evalyaks-1` to `evalyaks-4` have the criteria of the
paper's four parts of an exam.
"""

import ast
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import yaml

from lrq.domain.errors import Unreadable
from lrq.domain.fences import fenced
from lrq.domain.language import language
from lrq.domain.records import CONTEXT, Item, NoRow, Prompt, Response, Reward, Row, Score, Turn
from lrq.domain.rubrics import BadRubric, Rubric, read_result, read_rubric
from lrq.recipes.judge import Judge
from lrq.recipes.ports import Case
from lrq.recipes.recipe import Recipe, Step
from lrq.recipes.rubric_step import DIMENSION, check_rubrics, rubrics_of
from lrq.recipes.templates import fill

SETTINGS: Mapping[str, Any] = {
    "responses": 1,
    "rubrics": [],
    "show_descriptions": True,
    "speaker": "",
    "scored_by": "judge",
}
DESCRIBED: Mapping[str, str] = {
    "responses": "Replies of the judge to each conversation",
    "rubrics": "The criteria, where the items bring none: a list of {name, criteria, descriptions}",
    "show_descriptions": "Show the judge what each score stands for; the paper has both",
    "speaker": "Who is scored; empty: everyone",
    "scored_by": "judge: the endpoint of that role; policy: the model that is trained, or was",
}
LOSS: Mapping[str, Any] = {  # section 3.3 and the released adapters
    "loss_type": ["sft"],
    "loss_weights": [1.0],
    "learning_rate": 2e-4,
    "weight_decay": 0.001,
    "epochs": 5,
    "batch_size": 16,
    "adapter": {"r": 256, "alpha": 128, "dropout": 0.1},
}
_FOLDER = Path(__file__).parent
_MOST_ASKED = 5  # times that a conversation is asked about until a reply has all scores
_SAMPLING = {"temperature": 0.01, "max_new_tokens": 1024}
_SAMPLING_AGAIN = {**_SAMPLING, "temperature": 0.95}
_SCORERS: tuple[Literal["judge", "policy"], ...] = ("judge", "policy")
_OBJECT = re.compile(r"\{[^{}]*\}")


def criteria(case: Case) -> dict[str, Rubric]:
    """Return the rubrics of an item, or of the settings, by their names; those without one are called C1, C2 …

    Raises BadRubric.
    """
    rubrics = [read_rubric(value) for value in rubrics_of(case)]
    if not case.settings["show_descriptions"]:
        rubrics = [replace(rubric, descriptions={}) for rubric in rubrics]
    return {rubric.name or f"C{number}": rubric for number, rubric in enumerate(rubrics, 1)}


def conversation(item: Item) -> str:
    """Return an item's turns, or its chat, as lines, each with its speaker; its context where it has neither."""
    turns = item.fields.get("turns") or item.fields.get("messages") or ()
    return "\n".join(map(_line, turns)) or item.context


def _line(turn: Any) -> str:
    """Return one turn as text: of {"speaker": …, "text": …}, a chat message, a call of tools, or {"Candidate": "…"}."""
    if not isinstance(turn, Mapping):
        return str(turn)
    speaker = next((turn[name] for name in ("speaker", "role", "from", "name") if turn.get(name)), None)
    text = next((turn[name] for name in ("text", "content", "value") if turn.get(name)), None)
    if text is None and speaker is None:
        return "\n".join(f"{name}: {words}" for name, words in turn.items())
    if turn.get("tool_calls"):
        calls = json.dumps(turn["tool_calls"], ensure_ascii=False)
        text = f"{text}\n{calls}" if text else calls
    if text is not None and not isinstance(text, str):
        text = json.dumps(text, ensure_ascii=False)
    return f"{speaker}: {text}" if speaker else str(text or "")


def prompts(case: Case) -> Sequence[Prompt]:
    """Make the prompt to the judge, and the same again while no reply to the last one has all scores."""
    try:
        rubrics = criteria(case)
    except BadRubric:
        return ()  # `rows` says why
    if not rubrics:
        return ()
    if not case.prompts:
        return [_prompt(case, rubrics)]
    replies = case.answers(len(case.prompts) - 1)
    if not replies or len(case.prompts) >= _MOST_ASKED:
        return ()
    if any(not any(isinstance(score, str) for score in read_scores(reply.text, rubrics).values()) for reply in replies):
        return ()
    return [replace(case.prompts[0], sampling=_SAMPLING_AGAIN)]


def _prompt(case: Case, rubrics: Mapping[str, Rubric]) -> Prompt:
    words = conversation(case.item)
    texts = {
        name.partition("/")[2]: text for name, text in case.texts.items() if name.startswith(f"{language(words)}/")
    }
    speaker = case.settings["speaker"]
    material = case.item.context if case.item.context != words else ""
    listed = (
        fill(texts["criterion"], {"name": name, "text": fenced(criterion.text())})
        for name, criterion in rubrics.items()
    )
    closing = (f"[RESULT] {name}: {rubric.low}-{rubric.high}" for name, rubric in rubrics.items())
    values = {
        "speaker": fill(texts["speaker"], {"name": speaker}) if speaker else "",
        "criteria": "\n\n".join(listed),
        "closing": "\n".join(closing),
        "count": str(len(rubrics)),
        "material": fill(texts["material"], {"text": fenced(material)}) + "\n\n" if material else "",
        "conversation": fenced(words),
    }
    text = fill(texts["transcript"], {name: value.replace(CONTEXT, " ") for name, value in values.items()})
    message = {"role": "user", "content": text}
    by = next(scorer for scorer in _SCORERS if scorer == case.settings["scored_by"])
    return Prompt(name="transcript", by=by, messages=(message,), sampling=_SAMPLING)


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
    """Read what the judge has answered, to the last of several equal prompts; no call is made."""
    case = judge.case
    rubrics = criteria(case)
    last = max((response.prompt for response in case.responses), default=0)
    return [
        _score(response, name, value)
        for response in case.answers(last)
        for name, value in read_scores(response.text, rubrics).items()
    ]


def _score(response: Response, name: str, value: float | str) -> Score:
    score = partial(Score, dimension=f"{DIMENSION.name}/{name}", k=response.k, prompt=response.prompt)
    return score(state="unscored", reason=value) if isinstance(value, str) else score(value=value)


def reference_scores(case: Case) -> dict[str, int]:
    """Return the item's own scores by dimension, from its `answer`: a JSON object or a Python dict.

    Raises Unreadable where a criterion has none, BadRubric where the criteria cannot be read.
    """
    by_criterion = _last_object(case.item.answer or "")
    scores = {}
    for name, rubric in criteria(case).items():
        if name not in by_criterion:
            raise Unreadable(f"its answer has no score for {name}")
        score = _read("", name, rubric, by_criterion)
        if isinstance(score, str):
            raise Unreadable(score)
        scores[f"{DIMENSION.name}/{name}"] = int(score)
    return scores


def rows(case: Case, rewards: Sequence[Reward]) -> Sequence[Row | NoRow]:
    """Make a demonstration of the reference scores."""
    try:
        scores = reference_scores(case)
    except (Unreadable, BadRubric) as why:
        return [NoRow(reason=f"no reference scores: {why}")]
    if not scores:
        return [NoRow(reason="no criteria: neither the item nor settings.rubrics has any")]
    text = "\n".join(f"[RESULT] {name.partition('/')[2]}: {score}" for name, score in scores.items())
    return [Row(turns=(Turn(prompt=0, chosen=text),))]


def check(settings: Mapping[str, Any]) -> None:
    """Raise ValueError for a `scored_by` that there is not, and for a rubric that cannot be used."""
    if settings["scored_by"] not in _SCORERS:
        raise ValueError(f"settings.scored_by is {' or '.join(_SCORERS)}, not {settings['scored_by']!r}")
    check_rubrics(settings["rubrics"])


RUBRIC = Recipe(
    name="rubric",
    source="arXiv 2408.12226",
    needs=(),
    settings=SETTINGS,
    described=DESCRIBED,
    texts=_FOLDER / "prompts" / "transcript",
    prompts=prompts,
    steps=(Step(name="rubric", procedure=read_replies, dimensions=(DIMENSION,), kinds=()),),
    asks_judge=lambda settings: settings["scored_by"] == "judge",
    rows=rows,
    references=reference_scores,
    loss=LOSS,
    carries=lambda _: (),  # demonstrations
    check=check,
)


def _presets() -> dict[str, Recipe]:
    table: Any = yaml.safe_load((_FOLDER / "evalyaks.yaml").read_text(encoding="utf-8"))
    criteria = {name: {"name": name, **criterion} for name, criterion in table["criteria"].items()}
    parts = {f"evalyaks-{part}": [criteria[name] for name in names] for part, names in table["parts"].items()}
    settings_of = {name: {**SETTINGS, "rubrics": rubrics, "speaker": "Candidate"} for name, rubrics in parts.items()}
    return {name: replace(RUBRIC, name=name, settings=settings) for name, settings in settings_of.items()}


EVALYAKS: Mapping[str, Recipe] = _presets()
