"""What a recipe is: one published method, told to the stages as data and functions."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lrq.domain.records import Dimension, Item, Message, NoRow, Pair, Response, Reward, Score
from lrq.recipes.ports import Ask, Case, Nearest
from lrq.recipes.templates import load_prompts

# Judges all responses of an item; one Score per dimension of the step and response.
Procedure = Callable[[Case, Ask, Nearest], Awaitable[Sequence[Score]]]
# What one item yields for training: its rows, or one NoRow that says why there are none.
Rows = Callable[[Sequence[Reward], Sequence[Response], Mapping[str, Any]], Sequence[Pair | NoRow]]


@dataclass(frozen=True, kw_only=True)
class Step:
    """One unit of judging an item: one task on one queue."""

    name: str
    queue: str
    dimensions: tuple[Dimension, ...]
    procedure: Procedure
    shared: frozenset[str] = frozenset()  # kinds of prompt that bring no verdict but what verdicts are made from


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One published method: prompts, steps, rewards, rows, loss. No stage asks which one it serves."""

    name: str
    source: str  # the paper
    needs: tuple[str, ...]  # fields of an item that may not be empty
    settings: Mapping[str, Any]  # the recipe's own settings with their defaults
    texts: Path  # folder of its prompt texts
    policy_prompts: Callable[[Item], Sequence[Sequence[Message]]]  # chat messages of each prompt of an item
    steps: tuple[Step, ...]
    reward: Callable[[Sequence[Score]], Reward]  # of the scores of one response, at least one
    rows: Rows
    described: Mapping[str, str] = field(default_factory=dict)  # what each of its settings does, for the reference
    loss: Mapping[str, Any] = field(default_factory=dict)  # the trainer's settings with this recipe's defaults

    @property
    def dimensions(self) -> tuple[Dimension, ...]:
        """The dimensions of all steps, in order."""
        return tuple(dimension for step in self.steps for dimension in step.dimensions)

    @property
    def queues(self) -> tuple[str, ...]:
        """The queues of its steps, each once."""
        return tuple(dict.fromkeys(step.queue for step in self.steps))

    def step(self, name: str) -> Step:
        """The step of that name; raises KeyError."""
        return {step.name: step for step in self.steps}[name]

    def prompts(self) -> dict[str, str]:
        """The packaged prompt texts by name, to be frozen with a run."""
        return load_prompts(self.texts)

    def policy_messages(self, item: Item, prompt: int = 0) -> list[Message]:
        """The chat messages of one prompt of the item."""
        return list(self.policy_prompts(item)[prompt])
