"""Janus (arXiv 2405.17977): one instruction, several system messages, and each one's own answer preferred.

System messages come with the item, or a teacher writes them from values that are drawn for the item. By default an
answer to one system message is preferred over an answer to another of the same instruction, without a judge; or
answers are paired by the item's rubrics. Lines of the Multifaceted Collection, one for each system message, are joined
into one item whose answers are those of the file.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from lrq.domain.fences import fenced
from lrq.domain.language import language
from lrq.domain.records import CONTEXT, NoRow, Prompt, Response, Reward, Row, Turn
from lrq.recipes.ports import Case
from lrq.recipes.recipe import Recipe, best_against_worst_rows
from lrq.recipes.rubric_step import RUBRIC_STEP, check_rubrics, rubrics_of
from lrq.recipes.templates import fill, load_prompts

SETTINGS: Mapping[str, Any] = {
    "responses": 1,
    "systems": 3,
    "write_systems": True,
    "pair_by": "system",
    "rows": "one",
    "rubrics": [],
    "show_system": True,
    "judge_temperature": 1.0,
    "judge_top_p": 0.9,
    "min_scored": 2,
    "min_margin": 0.0,
}
DESCRIBED: Mapping[str, str] = {
    "responses": "Responses to each system message",
    "systems": "System messages of an instruction, where a teacher writes them",
    "write_systems": "Have a teacher write system messages where an item brings none; else it is asked without one",
    "pair_by": "system: this system message's answer over another's; rubric: best against worst by rubrics; none: "
    "demonstrations of the answers",
    "rows": "Of an instruction, paired by system: one, or each system message in turn",
    "rubrics": "The rubrics, where items bring none: a list of {name, criteria, descriptions}",
    "show_system": "Show the judge the system message; the published evaluation left it out",
    "judge_temperature": "Of the judge by rubrics, as published; other judges are asked at 0.01",
    "judge_top_p": "Of the judge by rubrics, as published",
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
_CARRIED: Mapping[str, tuple[str, ...]] = {"system": ("rejected",), "rubric": ("rejected", "p_w"), "none": ()}
_SAMPLING = {"temperature": 1.0, "top_p": 0.9, "max_new_tokens": 1024}
_FOLDER = Path(__file__).parent


@cache
def values() -> Mapping[str, Mapping[str, Mapping[str, str]]]:
    """Return dimension → subdimension → preference → description."""
    table: Any = yaml.safe_load((_FOLDER / "values.yaml").read_text(encoding="utf-8"))
    return dict(table)


def value_sets(item: str, count: int) -> list[dict[str, str]]:
    """Return `count` sets for `item`, no two alike: of each dimension one preference with its description.

    They depend on the item's id alone.
    """
    generator = random.Random(f"values of {item}")
    sets: list[dict[str, str]] = []
    while len(sets) < count:
        values_ = {}
        for dimension, subdimensions in values().items():
            preferences = subdimensions[generator.choice(sorted(subdimensions))]
            values_[dimension] = preferences[generator.choice(sorted(preferences))]
        if values_ not in sets:
            sets.append(values_)
    return sets


def prompts(case: Case) -> Sequence[Prompt]:
    """Make a prompt for each system message; before that, where the item brings none, those that have them written."""
    if case.named("answer"):
        return ()
    systems = list(case.item.fields.get("system", ()))
    if not systems and not case.settings["write_systems"]:
        systems = [""]
    if not systems:
        if not case.prompts:
            return [_system_prompt(case, values_) for values_ in value_sets(case.item.id, case.settings["systems"])]
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
    return Prompt(name="answer", messages=messages if system else messages[1:], sampling=_SAMPLING)


def rows(case: Case, rewards: Sequence[Reward]) -> Sequence[Row | NoRow]:
    """Pair answers across system messages, pair them by rewards, or take each as a demonstration."""
    answers = answers_by_system(case)
    if case.settings["pair_by"] == "rubric":
        return _rows_by_rubrics(case, rewards, answers)
    if case.settings["pair_by"] == "none":
        shown = [Row(turns=(Turn(prompt=n, chosen=(answer.prompt, answer.k)),)) for n, answer in answers.items()]
        return shown or [NoRow(reason="no system message has an answer")]
    if len(answers) < 2:
        return [NoRow(reason=f"{len(answers)} system messages have an answer, two needed")]
    generator = random.Random(f"rows of {case.item.id}")
    prompts = list(answers) if case.settings["rows"] == "each" else [generator.choice(list(answers))]
    pairs: list[Row | NoRow] = []
    for prompt in prompts:
        chosen = answers[prompt]
        rejected = answers[generator.choice([prompt_ for prompt_ in answers if prompt_ != prompt])]
        if chosen.text == rejected.text:
            pairs.append(NoRow(reason="two system messages have the same answer"))
            continue
        sides = (chosen.prompt, chosen.k), (rejected.prompt, rejected.k)
        pairs.append(Row(turns=(Turn(prompt=prompt, chosen=sides[0], rejected=sides[1]),)))
    return pairs


def _rows_by_rubrics(case: Case, rewards: Sequence[Reward], answers: Mapping[int, Response]) -> Sequence[Row | NoRow]:
    """Pair the best answer with the worst; the prompt is that of the best, where an item brings its answers."""
    if not rubrics_of(case):
        return [NoRow(reason="the item has no rubrics, and settings.rubrics names none")]
    pairs = best_against_worst_rows(case, rewards)
    if case.prompts:
        return pairs
    prompts = {(answer.prompt, answer.k): number for number, answer in answers.items()}
    return [row if isinstance(row, NoRow) else _under_own_system(row, prompts) for row in pairs]


def _under_own_system(row: Row, prompts: Mapping[Any, int]) -> Row:
    (turn,) = row.turns
    return replace(row, turns=(replace(turn, prompt=prompts.get(turn.chosen, turn.prompt)),))


def answers_by_system(case: Case) -> dict[int, Response]:
    """Return the first answer to each system message, by the number of its prompt.

    Of an item that brings one response for each of its system messages, the k-th answers the k-th.
    """
    if case.prompts:
        return {number: answers[0] for number in case.named("answer") if (answers := case.answers(number))}
    systems: Sequence[str] = case.item.fields.get("system", ())
    return {response.k: response for response in case.responses if response.k < len(systems)}


def check(settings: Mapping[str, Any]) -> None:
    """Raise ValueError for a rubric that cannot be used."""
    check_rubrics(settings["rubrics"])


JANUS = Recipe(
    name="janus",
    source="arXiv 2405.17977",
    settings=SETTINGS,
    described=DESCRIBED,
    texts=load_prompts(_FOLDER / "prompts" / "rubric") | load_prompts(_FOLDER / "prompts" / "janus"),
    prompts=prompts,
    choices={"pair_by": ("system", "rubric", "none"), "rows": ("one", "each")},
    steps=(replace(RUBRIC_STEP, when=lambda settings: settings["pair_by"] == "rubric"),),
    rows=rows,
    loss=LOSS,
    carries=lambda settings: _CARRIED[settings["pair_by"]],
    check=check,
    joins_systems=True,
)
