"""What a recipe sees of an item, and what it may use of the world: three ports, fulfilled by lrq.judge."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypedDict, TypeVar

from lrq.domain.records import Item, Passage, Prompt, Ref, Response, Score

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Answer(Generic[T]):
    """A readable reply of the judge."""

    value: T
    text: str
    calls: tuple[str, ...]  # keys of all calls it took, re-asks included


class Sampling(TypedDict):
    """How a reply of the judge is drawn, where a paper says it."""

    temperature: float
    top_p: float


class Ask(Protocol):
    """Asks the judge until its reply can be read."""

    async def __call__(
        self,
        kind: str,
        prompt: str,
        read: Callable[[str], T],
        *,
        dimension: str,
        max_tokens: int,
        draw: int = 0,
        sampling: Sampling | None = None,
    ) -> Answer[T]:
        """Return what `read` makes of the reply; `read` raises Unreadable.

        `sampling`: of all attempts; None: all but certain at first, and warmer where the reply cannot be read.

        Raises Unscored with a reason when no reply could be had or read.
        """
        ...


class Prefer(Protocol):
    """Compares responses by a preference or reward model, which writes no text."""

    async def __call__(self, prompt: str, responses: Sequence[str], *, dimension: str) -> Answer[list[list[float]]]:
        """Return for each of the K responses its reward, [K, 1], or its logits of beating each of them, [K, K].

        In [i][j], i was shown first. The answer's text is empty. Raises Unscored with a reason.
        """
        ...


class Nearest(Protocol):
    """Finds passages of the item's context."""

    async def __call__(self, queries: Sequence[str], *, count: int, chunk_tokens: int) -> Sequence[Sequence[Passage]]:
        """Return for each query its `count` nearest passages of `chunk_tokens` tokens each, in document order."""
        ...


@dataclass(frozen=True, kw_only=True)
class Case:
    """All that is known of an item in a round: the one argument of every function of a recipe."""

    item: Item
    texts: Mapping[str, str] = field(default_factory=dict)  # the run's prompt texts by name, "en/helpfulness"
    settings: Mapping[str, Any] = field(default_factory=dict)  # the recipe's own
    prompts: tuple[Prompt, ...] = ()
    responses: tuple[Response, ...] = ()  # those that have a text, by prompt and k
    scores: tuple[Score, ...] = ()

    def named(self, name: str) -> list[int]:
        """Return the numbers of the prompts called `name`."""
        return [number for number, prompt in enumerate(self.prompts) if prompt.name == name]

    def answers(self, prompt: int) -> list[Response]:
        """Return the responses to the prompt number `prompt`, by k."""
        return [response for response in self.responses if response.prompt == prompt]

    def scores_of(self, ref: Ref) -> list[Score]:
        """Return the scores of the response `ref`, (prompt, k)."""
        return [score for score in self.scores if (score.prompt, score.k) == ref]
