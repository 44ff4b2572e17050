"""Janus (arXiv 2405.17977): one instruction, several system messages, and each one's own answer preferred.

System messages come with the item, or a teacher writes them from values that are drawn for the item. By default an
answer to one system message is preferred over an answer to another of the same instruction, without a judge; or
answers to the same one are paired by the item's rubrics.
"""

import random
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from lrq.domain.fences import fenced
from lrq.domain.language import language
from lrq.domain.records import CONTEXT, NoRow, Prompt, Reward, Row, Score, Turn
from lrq.recipes.judge import Judge
from lrq.recipes.ports import Case
from lrq.recipes.recipe import Recipe, Step, best_against_worst_rows
from lrq.recipes.rubric_step import RUBRIC_STEP, score_by_rubrics
from lrq.recipes.templates import fill, load_prompts

SETTINGS: Mapping[str, Any] = {
    "responses": 1,
    "systems": 3,
    "pair_by": "system",
    "rows": "one",
    "show_system": True,
    "min_scored": 2,
    "min_margin": 0.0,
}
DESCRIBED: Mapping[str, str] = {
    "responses": "Responses to each system message",
    "systems": "System messages of an instruction, where a teacher writes them",
    "pair_by": "system: this system message's answer over another's; rubric: best against worst by the item's rubrics",
    "rows": "Of an instruction, paired by system: one, or each system message in turn",
    "show_system": "Show the judge the system message; the published evaluation left it out",
    "min_scored": "Scored responses that a pair by rubrics needs",
    "min_margin": "Reward of chosen minus reward of rejected that a pair by rubrics needs",
}
LOSS: Mapping[str, Any] = {  # appendix: DPO from the model that was trained on one system message in three
    "loss_type": ["sigmoid"],
    "loss_weights": [1.0],
    "beta": 0.1,
    "learning_rate": 5e-7,
    "epochs": 2,
    "batch_size": 16,
}
_SAMPLING = {"temperature": 1.0, "top_p": 0.9, "max_new_tokens": 1024}
_FOLDER = Path(__file__).parent


@cache
def values() -> Mapping[str, Mapping[str, Mapping[str, str]]]:
    """Return dimension → subdimension → preference → description."""
    table: Any = yaml.safe_load((_FOLDER / "values.yaml").read_text(encoding="utf-8"))
    return dict(table)


def value_sets(item: str, count: int) -> list[dict[str, str]]:
    """Return `count` sets for an item, no two alike: of each dimension one preference with its description."""
    generator = random.Random(f"values of {item}")
    sets: list[dict[str, str]] = []
    while len(sets) < count:
        drawn = {}
        for dimension, subdimensions in values().items():
            preferences = subdimensions[generator.choice(sorted(subdimensions))]
            drawn[dimension] = preferences[generator.choice(sorted(preferences))]
        if drawn not in sets:
            sets.append(drawn)
    return sets


def prompts(case: Case) -> Sequence[Prompt]:
    """Make a prompt for each system message; before that, where the item brings none, those that have them written."""
    if case.named("answer"):
        return ()
    systems = list(case.item.fields.get("system", ()))
    if not systems:
        if not case.prompts:
            return [_system_prompt(case, drawn) for drawn in value_sets(case.item.id, case.settings["systems"])]
        written = [case.answers(number) for number in case.named("system")]
        systems = list(dict.fromkeys(answers[0].text.strip() for answers in written if answers))
    return [_answer_prompt(case, system) for system in systems]


def _system_prompt(case: Case, drawn: Mapping[str, str]) -> Prompt:
    template = case.texts[f"{language(case.item.question)}/system_message"]
    listed = "\n".join(f"- {description}" for description in drawn.values())
    text = fill(template, {"values": listed, "question": fenced(case.item.question.replace(CONTEXT, " "))})
    message = {"role": "user", "content": text}
    return Prompt(name="system", by="teacher", samples=1, messages=(message,), sampling=_SAMPLING)


def _answer_prompt(case: Case, system: str) -> Prompt:
    fence = fenced(case.item.context).partition("\n")[0]
    head = f"{fence}\n{CONTEXT}\n{fence}\n\n" if case.item.context else ""
    plain = {role: text.replace(CONTEXT, " ") for role, text in (("system", system), ("user", case.item.question))}
    messages = {"role": "system", "content": plain["system"]}, {"role": "user", "content": head + plain["user"]}
    return Prompt(name="answer", messages=messages, sampling=_SAMPLING)


async def rubrics(judge: Judge) -> Sequence[Score]:
    """Score answers by the item's rubrics where rows are paired by them, or the item brings what is to be evaluated."""
    is_wanted = judge.case.settings["pair_by"] == "rubric" or not judge.case.prompts
    return await score_by_rubrics(judge) if is_wanted else ()


def rows(case: Case, rewards: Sequence[Reward]) -> Sequence[Row | NoRow]:
    """Pair answers across system messages, or by their rewards, as the settings say."""
    if case.settings["pair_by"] == "rubric":
        return best_against_worst_rows(case, rewards)
    answered = [number for number in case.named("answer") if case.answers(number)]
    if len(answered) < 2:
        return [NoRow(reason=f"{len(answered)} system messages have an answer, two needed")]
    generator = random.Random(f"rows of {case.item.id}")
    chosen = answered if case.settings["rows"] == "each" else [generator.choice(answered)]
    return [_row(case, number, generator.choice([one for one in answered if one != number])) for number in chosen]


def _row(case: Case, prompt: int, other: int) -> Row | NoRow:
    own, foreign = case.answers(prompt)[0], case.answers(other)[0]
    if own.text == foreign.text:
        return NoRow(reason="two system messages have the same answer")
    turn = Turn(prompt=prompt, chosen=(prompt, own.k), rejected=(other, foreign.k))
    return Row(turns=(turn,))


JANUS = Recipe(
    name="janus",
    source="arXiv 2405.17977",
    settings=SETTINGS,
    described=DESCRIBED,
    texts=load_prompts(_FOLDER / "prompts" / "rubric") | load_prompts(_FOLDER / "prompts" / "janus"),
    prompts=prompts,
    steps=(Step(name="rubric", procedure=rubrics, dimensions=RUBRIC_STEP.dimensions, kinds=RUBRIC_STEP.kinds),),
    rows=rows,
    loss=LOSS,
    carries=lambda settings: ("rejected", "p_w") if settings["pair_by"] == "rubric" else ("rejected",),
)
