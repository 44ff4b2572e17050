"""Which of several marks counts: the last one, unless the words around them say otherwise."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from lrq.domain.errors import Unreadable

T = TypeVar("T")

_FINAL = re.compile(
    r"\b(?:final(?:ly)?|overall|total|conclusion|definitive|ultimately|altogether)\b|最终|最后|总分|总体|综合|总评|总的",
    re.IGNORECASE,
)
_LABEL = re.compile(
    r"\b(?:scores?|ratings?|grade|mark|points|verdict|result|judge?ment|conclusion)\b"
    r"|评分|得分|打分|分数|分數|評分|結論|结论|判定|점수|結果",
    re.IGNORECASE,
)
_CORRECTED = re.compile(
    r"\b(?:wait|actually|correct(?:ed|ing|ion)?|revis\w*|chang\w*|adjust\w*|lower\w*|rais\w*|reconsider\w*"
    r"|on (?:second thought|reflection)|updat\w*|reduc\w*)\b|更正|修正|改为|调整|重新",
    re.IGNORECASE,
)
_CONCLUDED = re.compile(r"\b(?:therefore|so|thus|hence|then)\b|因此|所以|故", re.IGNORECASE)
# What speaks of a mark without giving it: an earlier thought, a possibility, a comparison, a quotation.
_ASIDE = re.compile(
    r"\b(?:first|initially|originally|earlier|previous(?:ly)?|before|thought|considered|tempted|would|could|might|may"
    r"|maybe|perhaps|possibly|if|instead|rather|than|from|perfect|max(?:imum)?|minimum|example|e\.g|such as|between"
    r"|claims?|claimed|says?|said|asks?|demands?|wants?|quotes?|quoted|writes?|wrote|instructs?|unlike|almost|nearly"
    r"|not|isn['’]t|neither|nor|or)\b"
    r"|最初|一开始|起初|本来|原本|原来|如果|若|曾|满分|可能|也许|例如|比如|不是|而非",
    re.IGNORECASE,
)
_SENTENCE_END = re.compile(r"[.!?。！？;；\n](?=\s|$)|[。！？；\n]")
_CITED = re.compile(
    r"(?:(?:\b|(?<=[^a-z]))(?:passages?|paragraphs?|sections?|parts?|pages?|lines?|chapters?|figures?|tables?|notes?"
    r"|footnotes?|statements?|sentences?|steps?|criteri(?:on|a)|see|items?|文段|段落|部分|陈述|第|参见|见)"
    r"|\b(?:sources?|refs?|references?):?)"
    r"[ (#]{0,2}(?:\[\[[0-9]{1,3}\]\][,;\s&]{0,3}(?:and )?){0,20}$",
    re.IGNORECASE,
)  # on the same line, with no sign between: "see passages [[2]], [[3]]"
_RANGE = re.compile(r"\W*(?:-|~|to|or|and|bis|至|到|或|和)?\W*", re.IGNORECASE)
_NAME = re.compile(r"\W*(?:[^\W\d_]+[ -]?){1,2}\W*", re.UNICODE)
_NEAR = 300  # characters around a mark that are looked at
_LOOKED_AT = 50  # marks, at the end of a reply


@dataclass(frozen=True, kw_only=True)
class Mark(Generic[T]):
    """A mark in a reply: its place, its text, and what it says; None for one that cannot be read."""

    start: int
    end: int
    text: str
    value: T | None


def is_citation(reply: str, start: int) -> bool:
    """Tell whether the mark that begins at `start` is only the number of a passage, a section or the like."""
    return _CITED.search(reply[max(0, start - 120) : start]) is not None


def last_of(reply: str, marks: Sequence[Mark[T]]) -> T:
    """Return what the last of `marks`, in their order in `reply`, says.

    Raises Unreadable where it says nothing, or where the words around the marks speak against it.
    """
    marks = marks[-_LOOKED_AT:]
    last = marks[-1]
    if last.value is None:
        raise Unreadable(f"the mark [[{last.text}]] cannot be read")
    differing = [
        _lead(reply, mark, before)
        for before, mark in zip((None, *marks), marks, strict=False)
        if mark.value not in (None, last.value)
    ]
    if not differing:
        return last.value
    lead = _lead(reply, last, marks[-2])
    is_own = bool(_FINAL.search(lead) or (_LABEL.search(lead) and not _ASIDE.search(lead)))
    trail = _SENTENCE_END.split(reply[last.end : last.end + _NEAR], maxsplit=1)[0]
    between = reply[marks[-2].end : last.start][-_NEAR:]
    problem = ""
    if marks[-2].value != last.value and between.strip() and _RANGE.fullmatch(between) and "\n" not in between:
        problem = "ends a range"
    elif _ASIDE.search(lead) or _ASIDE.search(trail):
        problem = "is spoken of, not given"
    elif any(map(_FINAL.search, differing)) and not _FINAL.search(lead) and not _CORRECTED.search(between):
        problem = "comes after one that is called final"
    elif not is_own and _is_name(lead) and any(_is_name(words) or _LABEL.search(words) for words in differing):
        problem = "is one of several that have different names"
    if problem:
        raise Unreadable(f"marks disagree, and the last one, [[{last.text}]], {problem}")
    return last.value


def _lead(reply: str, mark: Mark[T], before: Mark[T] | None) -> str:
    """Return the words that lead to a mark: of its sentence, or the heading above it; at most from the mark before."""
    text = reply[max(before.end if before else 0, mark.start - _NEAR) : mark.start]
    pieces = _SENTENCE_END.split(text)
    if pieces[-1].strip(" \t*#>|-\"'([{"):
        return pieces[-1]
    heading = next((piece.strip() for piece in reversed(pieces[:-1]) if piece.strip()), "")
    return heading if heading.startswith("#") or heading.endswith((":", "：")) else ""


def _is_name(lead: str) -> bool:
    is_name = _NAME.fullmatch(lead) is not None
    return is_name and not _CORRECTED.search(lead) and not _CONCLUDED.search(lead)
