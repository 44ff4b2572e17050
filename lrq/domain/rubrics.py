"""Rubrics: a criterion with what each score stands for, read from the shapes in which they are published."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lrq.domain.errors import Unreadable

_RESULT = re.compile(r"\[\s*RESULT\s*\]", re.IGNORECASE)
_WORD = r"\[?\(?\b(?:score|result)\b\]?(?:\s+of\b)?"
_DRESS = r"[\s:*_(`\[]*"
_OF = r"(?:\s*/\s*(?P<high>[0-9]{1,4})|\s+out\s+of\s+(?P<out_of>[0-9]{1,4}))?"
_NUMBER = re.compile(
    rf"{_DRESS}(?:{_WORD}{_DRESS})?(?P<score>[0-9]{{1,4}}(?:\.[0-9]+)?){_OF}(?![0-9.]*[0-9])", re.IGNORECASE
)
# Where a judge forgets the mark: "Score: 4", "(Score 4)" or "[SCORE] 4" as the reply's last words.
_LAST_WORDS = re.compile(rf"{_WORD}{_DRESS}(?P<score>[0-9]{{1,4}}){_OF}[\s\])*_.`]*\Z", re.IGNORECASE)
_TAIL = 60  # characters at a reply's end in which its last words stand
_FLAT = re.compile(r"(?:orig_)?score_?([0-9]+)_description")


class BadRubric(ValueError):
    """A rubric that cannot be used; its text is the reason."""


@dataclass(frozen=True, kw_only=True)
class Rubric:
    """One criterion on a scale of whole numbers."""

    criteria: str
    descriptions: Mapping[int, str] = field(default_factory=dict)  # score → what a response of that score is like
    low: int = 1
    high: int = 5
    name: str = ""  # a short one, where it has one: "GV"

    def text(self) -> str:
        """Return the rubric as lines of text: the criterion, then each score with its description, from the lowest."""
        lines = [f"{score}: {self.descriptions[score]}" for score in sorted(self.descriptions)]
        return "\n".join((self.criteria, *lines))


def read_rubric(value: Any) -> Rubric:
    """Return the rubric of a published record. Raises BadRubric with what is missing.

    Known are a text; `criteria` (or `criterion`) with `score_descriptions` {"1": …} (Multifaceted Bench) or a list of
    descriptions from the lowest; and `orig_criteria` with `orig_score1_description` … (Feedback Collection). `low`,
    `high` and `name` may stand beside them.
    """
    if isinstance(value, str) and value.strip():
        return Rubric(criteria=value.strip())
    if not isinstance(value, Mapping):
        raise BadRubric("a rubric is a text, or an object with `criteria`")
    names = ("criteria", "criterion", "orig_criteria")
    criteria = next((value[name] for name in names if isinstance(value.get(name), str) and value[name].strip()), None)
    if criteria is None:
        raise BadRubric("a rubric has no `criteria`")
    descriptions = _descriptions(value)
    low = _bound(value.get("low"), min(descriptions, default=1))
    high = _bound(value.get("high"), max(descriptions, default=low + 4))
    if low >= high:
        raise BadRubric(f"a rubric's scale goes from {low} to {high}")
    return Rubric(
        criteria=criteria.strip(), descriptions=descriptions, low=low, high=high, name=str(value.get("name") or "")
    )


def _descriptions(value: Mapping[str, Any]) -> dict[int, str]:
    descriptions = value.get("score_descriptions") or value.get("descriptions") or {}
    if isinstance(descriptions, Sequence) and not isinstance(descriptions, str):
        low = _bound(value.get("low"), 1)
        return {low + index: str(text) for index, text in enumerate(descriptions)}
    if isinstance(descriptions, Mapping) and descriptions:
        try:
            return {int(score): str(text) for score, text in descriptions.items()}
        except (TypeError, ValueError):
            raise BadRubric("a rubric's descriptions stand under whole numbers") from None
    flat = {_FLAT.fullmatch(name): text for name, text in value.items()}
    return {int(match[1]): str(text) for match, text in flat.items() if match}


def _bound(value: Any, default: int) -> int:
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int):
        raise BadRubric("`low` and `high` of a rubric are whole numbers")
    return value


def read_result(reply: str, low: int = 1, high: int = 5) -> float:
    """Return the whole number from `low` to `high` after the last `[RESULT]`. Raises Unreadable.

    `[RESULT] 4`, `[RESULT]: **4**`, `[RESULT] (4)` and `[RESULT] 4/5` are read; fractions and what lies outside are
    not. Without the mark, a reply that ends in "Score: 4" is read as well.
    """
    marks = list(_RESULT.finditer(reply))
    number = _NUMBER.match(reply, marks[-1].end()) if marks else _LAST_WORDS.search(reply, max(0, len(reply) - _TAIL))
    if number is None:
        raise Unreadable("no number follows the last [RESULT]" if marks else "the reply holds no [RESULT]")
    of = number["high"] or number["out_of"]
    if "." in number["score"] or (of and int(of) != high):
        raise Unreadable(f"{number[0].strip()} is no whole number from {low} to {high}")
    score = int(number["score"])
    if not low <= score <= high:
        raise Unreadable(f"the score {score} is outside {low} to {high}")
    return float(score)
