"""What a recipe may use of the world: two ports, fulfilled by lrq.judge."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from lrq.domain.records import Item, Passage, Response

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Answer(Generic[T]):
    """A readable reply of the judge."""

    value: T
    text: str
    calls: tuple[str, ...]  # keys of all calls it took, re-asks included


class Ask(Protocol):
    """Asks the judge until its reply can be read."""

    async def __call__(
        self, kind: str, prompt: str, read: Callable[[str], T], *, dimension: str, max_tokens: int, draw: int = 0
    ) -> Answer[T]:
        """Return what `read` makes of the reply; `read` raises Unreadable.

        Raises Unscored with a reason when no reply could be had or read.
        """
        ...


class Nearest(Protocol):
    """Finds passages of the item's context."""

    async def __call__(self, queries: Sequence[str], *, count: int, chunk_tokens: int) -> Sequence[Sequence[Passage]]:
        """For each query its `count` nearest passages of `chunk_tokens` tokens each, in document order."""
        ...


@dataclass(frozen=True, kw_only=True)
class Case:
    """What a step of judging sees: the item, all its responses, and the run's frozen words."""

    item: Item
    responses: tuple[Response, ...]
    prompts: Mapping[str, str]  # template texts by name, "en/helpfulness"
    settings: Mapping[str, Any] = field(default_factory=dict)  # the recipe's own settings
