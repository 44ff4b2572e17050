"""Reading the marks of a judge's reply, as a person would. The last mark counts; what cannot be read is Unreadable.

Every parser first parts the thoughts and undoes the dress, then reads by a strict grammar. All take time in
proportion to the reply, whose length has a bound.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from lrq.domain.dress import short, undress, words_of
from lrq.domain.errors import Unreadable
from lrq.domain.numbers import read_number
from lrq.domain.points import NOTHING_RELEVANT, read_extraction
from lrq.domain.statements import NO_STATEMENTS, read_statements
from lrq.domain.thoughts import LONGEST_REPLY, split_thoughts
from lrq.domain.verdicts import Mark, is_citation, last_of

__all__ = [
    "LONGEST_REPLY",
    "NOTHING_RELEVANT",
    "NO_STATEMENTS",
    "SUPPORT_VALUES",
    "Support",
    "read_extraction",
    "read_score",
    "read_statements",
    "read_support",
    "read_supports",
]

T = TypeVar("T")

SUPPORT_VALUES = {"Fully supported": 1.0, "Partially supported": 0.5, "No support": 0.0}
_SUPPORT_WORDS = {
    **dict.fromkeys(["fully supported", "full support", "fully support", "完全支持", "完全證實", "完全证实"], 1.0),
    **dict.fromkeys(["partially supported", "partial support", "partially support", "partly supported"], 0.5),
    **dict.fromkeys(["部分支持", "部分證實", "部分证实"], 0.5),
    **dict.fromkeys(["no support", "not supported", "unsupported", "no supported", "not supported at all"], 0.0),
    **dict.fromkeys(["没有支持", "沒有支持", "不支持", "无支持", "無支持", "未支持", "未证实", "未證實"], 0.0),
}
_NAMES = {value: mark for mark, value in SUPPORT_VALUES.items()}

# One bracket may be missing on either side: a slip that is read where it stands alone.
_MARK = re.compile(r"\[\[([^\[\]]{0,200})\](\](?![0-9])|(?![0-9]))|(?<!\[)\[([^\[\]]{0,200})\]\]")
# Most replies: plain words, and at their end the only mark. What follows says the same of it, in five times the time.
_USUAL = re.compile(r"[^\[\](){}<>*_`$&\\\x7f-\U0010ffff]*\[\[([0-9A-Za-z ]{1,40})\]\]\s*")
_TORN = re.compile(r"\[\[[^\[\]]{0,60}$")
_DOUBT = re.compile(
    r"^\W*(?:n/?a|na|x|n|y|tbd|none|null|nan|score|number)?\W*$"
    r"|\b(?:can ?not|can['’]t|unable|unsure|uncertain|unclear|unknown|undecided|unscored|invalid|error"
    r"|not?|insufficient)\b"
    r"|无法|不能|不确定|未知|没有",
    re.IGNORECASE,
)
_NUMBERED_WORD = re.compile(
    r"[0-9一二三四五六七八九十]|\b(?:zero|one|two|three|four|five|six|seven|eight|nine|ten)\b", re.IGNORECASE
)
_SUPPORT_WORD = re.compile(r"support|contradict|refut|partial|\bfull|mostly|支持|证实|證實|矛盾", re.IGNORECASE)
_BY_PASSAGES = re.compile(r"\s?\(?\b(?:by|in|from|see)?\s?(?:the )?passages?\b[\d\s,&and]{0,40}\)?$", re.IGNORECASE)
_TAG = re.compile(r"<(/?)(score|rating|grade|verdict|mark|result|answer|output|response|final)>", re.IGNORECASE)
_LABELLED = re.compile(
    r"\W{0,12}(?:(?:the|my|final|overall|total) ){0,3}"
    r"(?:(?:final|overall|total|helpfulness|logicality|faithfulness|completeness)(?: score| rating)?"
    r"|(?:final|overall) (?:answer|grade|mark|verdict|result)|score|rating|grade|mark|verdict|result"
    r"|(?:最终|综合|总)?(?:评分|得分|打分|分数)|总分|分數|評分|结论|結論|판정|점수|bewertung)"
    r"\W{0,3}(?:[:=]| is\b|为|是|$)(?P<rest>.{0,300})",
    re.IGNORECASE,
)
_AFTERWARDS = re.compile(r"[.;,](?= [^\d]*$)| ?[(](?=[^\d]*$)| - (?=[^\d]*$)| (?=(?:because|since|as)\b[^\d]*$)")
_OF_SCALE = re.compile(r"\]\]\s?(?:/|of|out of)\s?\[\[")  # both numbers marked
_AFTER_MARK = re.compile(r"\s?(?:/\s?(?P<scale>[0-9]{1,6}(?:\.[0-9]{1,3})?)|%)")
_KEY = re.compile(r"[,{]\s?(?=\"\w{1,30}\"\s?:)")  # of JSON
_LOOKED_AT = 200  # marks, at the end of a reply
_BRACKETS = " \t[](){}<>\"'#|"
_NUMBER_FIRST = re.compile(
    r"\W{0,6}(?:statement|claim|陈述|陳述|第)?\s?#?\s?(?P<number>[0-9]{1,4})(?:\s?[条條])?(?![0-9])\s?[-:.,、)=]?\s?(?P<rest>.*)",
    re.IGNORECASE | re.DOTALL,
)


@dataclass(frozen=True, kw_only=True)
class Support:
    """How far passages bear a statement out."""

    mark: str  # one of SUPPORT_VALUES
    value: float  # 1, 0.5 or 0


def read_score(reply: str, low: float = 0.0, high: float = 10.0) -> float:
    """Return the number in the last mark: `[[7]]`, `[[7.5]]`, `[[7/10]]`, on the scale from `low` to `high`.

    Without any mark, what is labelled as the score, or is all there is, counts: `Score: 8/10`. Raises Unreadable, also
    for a number outside the scale.
    """

    def is_meant(mark: str) -> bool:
        return bool(_DOUBT.search(mark) or _NUMBERED_WORD.search(mark))

    score = _read(reply, lambda mark: read_number(mark, high), is_meant)
    if not low <= score <= high:
        raise Unreadable(f"the score {score:g} is outside {low:g} to {high:g}")
    return score


def read_support(reply: str) -> Support:
    """Return what the last mark says: one of the three verdicts, `[[Fully supported]]`. Raises Unreadable."""
    value = _read(reply, _verdict, lambda mark: bool(_DOUBT.search(mark) or _SUPPORT_WORD.search(mark)))
    return Support(mark=_NAMES[value], value=value)


def read_supports(reply: str, count: int) -> tuple[Support | None, ...]:
    """Return the verdicts `[[1: Fully supported]]` … of `count` statements; None where one is missing or unreadable.

    The number may stand in the mark or at the head of its line; the last verdict of a number counts. Raises Unreadable
    where not one statement has a verdict.
    """
    verdicts: dict[int, float | None] = {}
    for line in undress(_answer(reply)).splitlines():
        verdicts.update(_numbered(line))
    values = [verdicts.get(number) for number in range(1, count + 1)]
    if all(value is None for value in values):
        raise Unreadable("no statement has a verdict")
    return tuple(None if value is None else Support(mark=_NAMES[value], value=value) for value in values)


def _numbered(line: str) -> Iterator[tuple[int, float | None]]:
    head = _NUMBER_FIRST.match(line)
    if "[[" not in line:
        value = _verdict(head["rest"].strip(_BRACKETS)) if head else None
        if head and value is not None:
            yield int(head["number"]), value
        return
    for mark in _MARK.finditer(line):
        if not mark[2]:  # a bracket is missing: whose verdict it is cannot be said
            continue
        inside = _NUMBER_FIRST.match(mark[1])
        if inside:
            yield int(inside["number"]), _verdict(inside["rest"])
        elif head and _SUPPORT_WORD.search(mark[1]):
            yield int(head["number"]), _verdict(mark[1])


def _answer(reply: str) -> str:
    """Return the reply without its thoughts; closed thoughts themselves where there is nothing else."""
    if len(reply) > LONGEST_REPLY:
        raise Unreadable(f"the reply has {len(reply)} characters, more than {LONGEST_REPLY}")
    parted = split_thoughts(reply)
    if parted.answer.strip():
        return parted.answer
    if not parted.closed:
        raise Unreadable("the reply ends within its thoughts")
    if not parted.thought:
        raise Unreadable("the reply is empty")
    return parted.thought


def _read(reply: str, read: Callable[[str], T | None], is_meant: Callable[[str], bool]) -> T:
    """Return what the last mark says that is meant as one; else what is labelled, or stands alone."""
    text = _answer(reply)
    usual = _USUAL.fullmatch(text)
    if usual and not is_citation(text, usual.start(1) - 2) and (value := read(usual[1])) is not None:
        return value
    text = _KEY.sub("\n", _OF_SCALE.sub(" / ", undress(text)))
    text = _TAG.sub(lambda tag: "\n" if tag[1] else f"\n{tag[2]}: ", text)
    marks, torn = _marks(text, read, is_meant)
    if torn or _TORN.search(text[-80:]):
        raise Unreadable("the last mark is not closed, or brackets are missing")
    labelled = list(_labelled(text, read))
    if not marks:
        marks = labelled or _alone(text, read)
    elif labelled and labelled[-1].start > marks[-1].end and labelled[-1].value != marks[-1].value:
        raise Unreadable("the last mark and what follows it disagree")
    if not marks:
        citation = _MARK.search(text)
        raise Unreadable(f"the mark {short(citation[0])} cannot be read" if citation else "the reply holds no mark")
    return last_of(text, marks)


def _marks(text: str, read: Callable[[str], T | None], is_meant: Callable[[str], bool]) -> tuple[list[Mark[T]], bool]:
    """Return the marks that are meant, and whether brackets are missing where it matters which mark counts."""
    marks: list[Mark[T]] = []
    torn = False
    for hit in list(_MARK.finditer(text))[-_LOOKED_AT:]:
        words = hit[1] if hit[1] is not None else hit[3]
        value = read(words)
        if value is None and not is_meant(words):
            continue  # a link, a heading, a word in brackets
        if isinstance(value, float) and is_citation(text, hit.start()):
            continue
        after = _AFTER_MARK.match(text, hit.end())
        if after and read(f"{words}{after[0]}") is None:
            value = None  # [[8]]/100, [[8]]%
        torn = torn or not hit[2]
        marks.append(Mark(start=hit.start(), end=hit.end(), text=short(words), value=value))
    return marks, torn and len({mark.value for mark in marks}) > 1


def _labelled(text: str, read: Callable[[str], T | None]) -> Iterator[Mark[T]]:
    """Values without double brackets on lines that are headed "Score", "Verdict" or the like."""
    offset, label = 0, -1
    for line in text.splitlines(keepends=True):
        start, offset = offset, offset + len(line)
        if not line.strip():
            continue
        words, match = line.strip(), _LABELLED.match(line.strip())
        if match:
            words = match["rest"].strip()
            label = start if not words.strip(_BRACKETS + "*") else -1
        elif label < 0:
            continue
        else:
            label = -1
        value = None if "[[" in words else _plain(words, read)
        if value is not None:
            yield Mark(start=start + line.rindex(words), end=offset, text=short(words), value=value)


def _plain(words: str, read: Callable[[str], T | None]) -> T | None:
    value = read(words.strip(_BRACKETS))
    cut = None if value is not None else _AFTERWARDS.search(words)
    return read(words[: cut.start()].strip(_BRACKETS)) if cut else value


def _alone(text: str, read: Callable[[str], T | None]) -> list[Mark[T]]:
    """Return a value that is all of the reply, or all of its last line with brackets, a scale or a verdict's words."""
    stripped = text.strip()
    last = stripped.rpartition("\n")[2].strip()
    for words in (stripped[:200], last[:200]):
        is_bare = words.strip(_BRACKETS + "*.").isdigit() and words == words.strip(_BRACKETS)
        if words != stripped and is_bare:
            continue  # a number that ends a text may be anything
        value = read(words.strip(_BRACKETS))
        if value is not None and "[[" not in words:
            return [Mark(start=len(text), end=len(text), text=short(words), value=value)]
    return []


def _verdict(words: str) -> float | None:
    """Return the value of a verdict in its usual forms; where it is given twice, in two languages, both must agree."""
    words = _BY_PASSAGES.sub("", re.sub(r"^\W*(?:[0-9]{1,4}|[A-Za-z]{1,12})\s?[:.]\s?", "", words[:200].strip()))
    parts = {_SUPPORT_WORDS.get(words_of(part)) for part in re.split(r"[/|();,]", words) if words_of(part)}
    return parts.pop() if len(parts) == 1 else None
