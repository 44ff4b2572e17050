"""What a recipe is: one published method, told to the stages as data and functions. The defaults are a whole method.

>>> WIT = Recipe(name="wit", steps=(simple("wit"),), texts={"en/wit": "How witty is it? {{answer}} Close with [[n]]."})
"""

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from lrq.domain.fences import fenced
from lrq.domain.pairing import best_against_worst
from lrq.domain.records import CONTEXT, Dimension, NoRow, Prompt, Response, Reward, Row, Score
from lrq.recipes.judge import Judge, Kind
from lrq.recipes.ports import Ask, Case, Nearest, Prefer
from lrq.recipes.templates import load_prompts

# Judges all responses of an item; one Score per dimension of the step and response.
Procedure = Callable[[Judge], Awaitable[Sequence[Score]]]

DEFAULT_SETTINGS: Mapping[str, Any] = {
    "responses": 4,  # sampled per prompt
    "min_scored": 2,  # scored responses that a pair needs
    "min_margin": 0.0,  # reward of chosen minus reward of rejected
}


@dataclass(frozen=True, kw_only=True)
class Step:
    """One unit of judging an item: one task.

    By default it scores one dimension of its own name, on the scale 0 to 10; kinds of prompt that it does not name
    have the defaults of Kind.
    """

    name: str
    procedure: Procedure
    dimensions: tuple[Dimension, ...] = ()
    kinds: tuple[Kind, ...] = ()
    compares: bool = False  # works with a preference model too, which writes no text
    # Whether items are judged in this step under the recipe's settings; None: always.
    when: Callable[[Mapping[str, Any]], bool] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "dimensions", self.dimensions or (Dimension(name=self.name),))

    @property
    def shared(self) -> frozenset[str]:
        """Name the kinds of prompt that bring no verdict but what verdicts are made from."""
        return frozenset(kind.name for kind in self.kinds if kind.shared)

    def judge(self, case: Case, ask: Ask, nearest: Nearest, prefer: Prefer | None = None) -> Judge:
        """Return what the procedure works with: `case` and ports; `prefer` where the judge is a preference model."""
        return Judge(
            case=case,
            ask=ask,
            nearest=nearest,
            dimension=self.dimensions[0].name,
            prefer=prefer,
            kinds={kind.name: kind for kind in self.kinds},
        )


def simple(name: str, **kind: Any) -> Step:
    """Return a step that scores each response by the one prompt text `name`; `kind` has fields of Kind."""

    async def procedure(judge: Judge) -> Sequence[Score]:
        return await judge.score_each(name)

    return Step(name=name, procedure=procedure, kinds=(Kind(name=name, **kind),))


def question_after_context(case: Case) -> Sequence[Prompt]:
    """Make one prompt: the context, fenced, where there is one, followed by the question."""
    if case.prompts:
        return ()
    fence = fenced(case.item.context).partition("\n")[0]  # as long as the context needs
    head = f"{fence}\n{CONTEXT}\n{fence}\n\n" if case.item.context else ""
    question = case.item.question.replace(CONTEXT, " ")
    return (Prompt(messages=({"role": "user", "content": head + question},)),)


def mean_rewards(case: Case) -> list[Reward]:
    """Reward each response that has scores with their mean; with none where any is unscored."""
    groups = ((response, case.scores_of((response.prompt, response.k))) for response in case.responses)
    return [_mean(response, scores) for response, scores in groups if scores]


def _mean(response: Response, scores: Sequence[Score]) -> Reward:
    missing = [f"{score.dimension}: {score.reason}" for score in scores if score.state == "unscored"]
    values = [score.value for score in scores if score.value is not None]
    value = fmean(values) if values and not missing else None
    return Reward(k=response.k, prompt=response.prompt, value=value, reason="; ".join(missing))


def best_against_worst_rows(case: Case, rewards: Sequence[Reward]) -> list[Row | NoRow]:
    """Pair the best response to each prompt with the worst by `rewards`, or say why there is no such pair."""
    prompts = sorted({reward.prompt for reward in rewards})
    return [_best_against_worst(case, rewards, prompt) for prompt in prompts] or [NoRow(reason="no reward")]


def _best_against_worst(case: Case, rewards: Sequence[Reward], prompt: int) -> Row | NoRow:
    answers = case.answers(prompt)
    return best_against_worst(
        [reward for reward in rewards if reward.prompt == prompt],
        {response.k: response.text for response in answers},
        min_scored=case.settings["min_scored"],
        min_margin=case.settings["min_margin"],
        unfit={response.k for response in answers if response.is_cut},
    )


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One published method: prompts, steps, rewards, rows, loss. No stage asks which one it serves."""

    name: str
    source: str = ""  # the paper
    needs: tuple[str, ...] = ("question",)  # fields of an item that may not be empty
    settings: Mapping[str, Any] = field(default_factory=lambda: DEFAULT_SETTINGS)  # the recipe's own, with defaults
    texts: Mapping[str, str] | Path = field(default_factory=dict)  # prompt texts by name, or the folder they lie in
    # Pure; asked again once its prompts are answered, until it has no more.
    prompts: Callable[[Case], Sequence[Prompt]] = question_after_context
    steps: tuple[Step, ...] = ()
    rewards: Callable[[Case], Sequence[Reward]] = mean_rewards
    # What one item yields for training: its rows, or NoRow that says why there are none.
    rows: Callable[[Case, Sequence[Reward]], Sequence[Row | NoRow]] = best_against_worst_rows
    # The scores that an item brings itself, by dimension, where it brings any; raises Unreadable.
    references: Callable[[Case], Mapping[str, int]] | None = None
    row_settings: Collection[str] = ("min_scored", "min_margin")  # that `rows` alone reads: another value costs no call
    described: Mapping[str, str] = field(default_factory=dict)  # what each of its settings does, for the reference
    loss: Mapping[str, Any] = field(default_factory=dict)  # the train section with this recipe's defaults
    # The values that a setting may have, where these are words of the recipe's.
    choices: Mapping[str, Collection[str]] = field(default_factory=dict)
    # Whether a judge is asked anything under these settings; None: where there are steps.
    asks_judge: Callable[[Mapping[str, Any]], bool] | None = None
    # Refuses settings that it cannot work with: raises ValueError with the reason, before anything is begun.
    check: Callable[[Mapping[str, Any]], None] = lambda _: None
    # Whether lines without an id that ask the same under different system messages are one item, each with its answer.
    joins_systems: bool = False
    # What its rows carry beside the chosen response, under these settings: "rejected", and "p_w" where they have win
    # rates or the responses to a prompt have rewards. None: pairs, of responses with rewards where there are steps.
    carries: Callable[[Mapping[str, Any]], Collection[str]] | None = None

    def carried(self, settings: Mapping[str, Any]) -> Collection[str]:
        """Return what the rows carry under these settings: of "rejected" and "p_w"."""
        if self.carries is not None:
            return self.carries(settings)
        return ("rejected", "p_w") if self.steps else ("rejected",)

    def steps_for(self, settings: Mapping[str, Any]) -> tuple[Step, ...]:
        """Return the steps that judge items under `settings`, the recipe's."""
        return tuple(step for step in self.steps if step.when is None or step.when(settings))

    def needs_judge(self, settings: Mapping[str, Any]) -> bool:
        """Tell whether a judge is asked anything under `settings`, the recipe's."""
        return bool(self.steps_for(settings)) if self.asks_judge is None else self.asks_judge(settings)

    @property
    def dimensions(self) -> tuple[Dimension, ...]:
        """Return the dimensions of all steps, in order."""
        return tuple(dimension for step in self.steps for dimension in step.dimensions)

    @property
    def kinds(self) -> dict[str, Kind]:
        """Return the kinds of judge prompt of all steps, by name."""
        return {kind.name: kind for step in self.steps for kind in step.kinds}

    def step(self, name: str) -> Step:
        """Return the step called `name`; raises KeyError."""
        return {step.name: step for step in self.steps}[name]

    def prompt_texts(self) -> dict[str, str]:
        """Return the prompt texts by name, to be frozen with a run."""
        return load_prompts(self.texts) if isinstance(self.texts, Path) else dict(self.texts)
