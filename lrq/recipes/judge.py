"""A step of judging at work: prompts in the question's language, replies read, evidence in one form."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any, TypeVar

from lrq.domain.errors import Unscored
from lrq.domain.fences import fenced
from lrq.domain.language import Language, language
from lrq.domain.marks import read_score
from lrq.domain.records import Passage, Response, Score
from lrq.recipes.fanout import each_text
from lrq.recipes.ports import Answer, Ask, Case, Nearest, Prefer, Sampling
from lrq.recipes.templates import fill, placeholders

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One kind of judge prompt: its text's name, and what is known of its replies."""

    name: str
    max_tokens: int = 512  # of reply
    typical: float | None = 100.0  # tokens of a reply, for estimates; None: as many as the simulator's
    times: float = 1.0  # of the simulator's tokens, where typical is None
    shared: bool = False  # material that verdicts are made from: asked once for all votes


@dataclass(frozen=True, kw_only=True)
class Judge:
    """What a step's procedure works with: its case, and the ports."""

    case: Case
    ask: Ask
    nearest: Nearest
    dimension: str  # the step's first: the one that its calls are counted under
    prefer: Prefer | None = None  # where the judge is a preference model, which cannot be asked
    kinds: Mapping[str, Kind] = field(default_factory=dict)

    @cached_property
    def language(self) -> Language:
        """Return the question's language: that of all prompts of the step."""
        return language(self.case.item.question or self.case.item.context[:2000])

    @cached_property
    def question(self) -> str:
        """Return the item's question, fenced."""
        return fenced(self.case.item.question)

    def template(self, name: str) -> str:
        """Return the prompt text `name`: in the item's language, else in English, else in none. Raises KeyError."""
        texts = self.case.texts
        names = (f"{self.language}/{name}", f"en/{name}", name)
        chosen = next((candidate for candidate in names if candidate in texts), None)
        if chosen is None:
            raise KeyError(f"the recipe has no prompt text {names[0]!r}")
        return texts[chosen]

    def text(self, name: str, **values: str) -> str:
        """Return the template `name`, filled; untrusted values come fenced."""
        return fill(self.template(name), values)

    def passages(self, passages: Iterable[Passage]) -> str:
        """Return the passages as numbered sections."""
        sections = (self.text("passage", number=str(n), text=fenced(p.text)) for n, p in enumerate(passages, 1))
        return "\n\n".join(sections)

    async def answer(
        self,
        kind: str,
        read: Callable[[str], T],
        sections: Mapping[str, str],
        *,
        max_tokens: int | None = None,
        sampling: Sampling | None = None,
    ) -> Answer[T]:
        """Ask the judge with the template `kind`, filled with `sections`, and return what `read` makes of its reply.

        `max_tokens` overrides the kind's; `sampling` is for methods whose paper says how. Raises Unscored.
        """
        limit = max_tokens or self.kinds.get(kind, Kind(name=kind)).max_tokens
        ask = partial(self.ask, sampling=sampling) if sampling else self.ask
        return await ask(kind, self.text(kind, **sections), read, dimension=self.dimension, max_tokens=limit)

    async def score_each(
        self,
        kind: str,
        read: Callable[[str], float] = read_score,
        *,
        evidence: Mapping[str, Any] | None = None,
        **sections: str,
    ) -> Sequence[Score]:
        """Score every response by one question of that kind; equal texts are asked about once.

        The template may use {{question}}, {{answer}}, {{context}} and {{reference}}, each put in fenced, and the
        sections given. `evidence` is kept with every score besides its own.
        """
        return await each_text(self.case, partial(self._score, kind, read, evidence or {}, sections))

    async def _score(
        self,
        kind: str,
        read: Callable[[str], float],
        evidence: Mapping[str, Any],
        sections: Mapping[str, str],
        response: Response,
    ) -> Score:
        score = partial(Score, dimension=self.dimension, k=response.k)
        values = {**self._sections(self.template(kind), response), **sections}
        try:
            answer = await self.answer(kind, read, values)
        except Unscored as why:
            return score(state="unscored", reason=str(why), evidence=self.evidence(**evidence))
        return score(value=answer.value, evidence=self.evidence(answer, **evidence))

    def _sections(self, template: str, response: Response) -> dict[str, str]:
        item, used = self.case.item, placeholders(template)
        sections: dict[str, Callable[[], str]] = {
            "question": lambda: item.question,
            "answer": lambda: response.text,
            "context": lambda: item.context,
            "reference": lambda: item.answer or "",
        }
        return {name: fenced(text()) for name, text in sections.items() if name in used}

    def evidence(self, answer: Answer[Any] | None = None, **more: Any) -> dict[str, Any]:
        """Return what a score keeps: the language it was asked in, the keys of its own calls, and `more`."""
        return {"language": self.language, "calls": list(answer.calls) if answer else [], **more}


def not_applicable(case: Case, dimension: str, reason: str) -> Sequence[Score]:
    """Return a score for each response of `case` that says the dimension does not apply, and for what `reason`."""
    return [
        Score(dimension=dimension, k=response.k, prompt=response.prompt, state="not_applicable", reason=reason)
        for response in case.responses
    ]


def failures(noun: str, parts: Sequence[Mapping[str, Any]]) -> str:
    """Return which of `parts` have a "reason", or nothing: for the `noun` "statement", "statement 3 of 7: …"."""
    failed = [(n, part["reason"]) for n, part in enumerate(parts, 1) if part.get("reason")]
    if not failed:
        return ""
    number, reason = failed[0]
    others = f", and {len(failed) - 1} more" if len(failed) > 1 else ""
    return f"{noun} {number} of {len(parts)}: {reason}{others}"
