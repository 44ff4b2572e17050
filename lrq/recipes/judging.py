"""A step of judging at work: prompts in the question's language, evidence in one form."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

from lrq.domain.fences import fenced
from lrq.domain.language import Language, language
from lrq.domain.records import Passage
from lrq.recipes.ports import Answer, Ask, Case
from lrq.recipes.templates import fill

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Judging:
    """The case of a step, and the port through which it asks the judge."""

    case: Case
    ask: Ask

    @cached_property
    def language(self) -> Language:
        return language(self.case.item.question)

    @cached_property
    def question(self) -> str:
        """The item's question, fenced."""
        return fenced(self.case.item.question)

    def text(self, name: str, **values: str) -> str:
        """The template of that name, filled; untrusted values come fenced."""
        return fill(self.case.prompts[f"{self.language}/{name}"], values)

    def passages(self, passages: Iterable[Passage]) -> str:
        """The passages as numbered sections."""
        sections = (self.text("passage", number=str(n), text=fenced(p.text)) for n, p in enumerate(passages, 1))
        return "\n\n".join(sections)

    async def answer(
        self, kind: str, read: Callable[[str], T], *, dimension: str, max_tokens: int, **sections: str
    ) -> Answer[T]:
        """Ask the judge with the template of that kind. Raises Unscored."""
        return await self.ask(kind, self.text(kind, **sections), read, dimension=dimension, max_tokens=max_tokens)

    def evidence(self, answer: Answer[Any] | None = None, **more: Any) -> dict[str, Any]:
        """What a score keeps: the language it was asked in, the keys of its own calls, and `more`."""
        return {"language": self.language, "calls": list(answer.calls) if answer else [], **more}


def failures(noun: str, parts: list[dict[str, Any]]) -> str:
    """Say which of the parts have a reason, or nothing: "statement 3 of 7: …, and 1 more"."""
    failed = [(n, part["reason"]) for n, part in enumerate(parts, 1) if "reason" in part]
    if not failed:
        return ""
    number, reason = failed[0]
    others = f", and {len(failed) - 1} more" if len(failed) > 1 else ""
    return f"{noun} {number} of {len(parts)}: {reason}{others}"
