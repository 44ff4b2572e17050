"""Reading the marks of a judge's reply. The last mark alone counts; what cannot be read raises Unreadable."""

import re
from dataclasses import dataclass

from lrq.domain.errors import Unreadable

NO_STATEMENTS = "No statements"
NOTHING_RELEVANT = "No relevant information"
SUPPORT_VALUES = {"Fully supported": 1.0, "Partially supported": 0.5, "No support": 0.0}

_MARK = re.compile(r"\[\[([^\[\]]*)\]\]")
_NUMBER = re.compile(r"([0-9]+(?:\.[0-9]+)?)(?:\s*/\s*([0-9]+(?:\.[0-9]+)?))?")
_STATEMENT = re.compile(r"<statement>(.*?)</statement>", re.DOTALL | re.IGNORECASE)
_STATEMENT_TAG = re.compile(r"</?statement>", re.IGNORECASE)
_NUMBERED = re.compile(r"\[\[\s*([0-9]{1,4})\s*[:：]([^\[\]]*)\]\]")
_NOT_A_WORD = re.compile(r"[\W_]+")
# What a server or a judge says instead of extracting; our extraction prompts ask for list items, which begin otherwise.
_NOTICE = re.compile(
    r"(?:i(?:['’]m| am) (?:very |so )?sorry|sorry,|i apologi[sz]e|i can(?:['’]t|not) (?:assist|help|process|provide)"
    r"|as an ai (?:language )?(?:model|assistant)|error(?: code)?\s*[:0-9]|\{\s*\"?error\b"
    r"|the (?:response|content|request|prompt) (?:was|is|has been) (?:filtered|blocked|flagged)"
    r"|(?:非常|很)?抱歉|对不起|作为(?:一个|一名)?(?:AI|人工智能)(?:语言)?(?:模型|助手)|系统检测到"
    r"|(?:该|此)?内容(?:可能)?(?:包含|涉及).{0,6}(?:敏感|不安全|违规))",
    re.IGNORECASE,
)


@dataclass(frozen=True, kw_only=True)
class Support:
    """How far passages bear a statement out."""

    mark: str  # one of SUPPORT_VALUES
    value: float  # 1, 0.5 or 0


def read_score(reply: str, low: float = 0.0, high: float = 10.0) -> float:
    """Return the number in the last mark: `[[7]]`, `[[7.5]]`, `[[7/10]]`, on the scale from `low` to `high`."""
    mark = _last_mark(reply)
    number = _NUMBER.fullmatch(mark)
    if number is None or (number[2] and float(number[2]) != high):
        raise Unreadable(f"the mark [[{_short(mark)}]] is no score")
    if not low <= float(number[1]) <= high:
        raise Unreadable(f"the score {_short(number[1])} is outside {low:g} to {high:g}")
    return float(number[1])


def read_statements(reply: str) -> tuple[str, ...]:
    """Return the texts of `<statement>…</statement>`, in order and with repeats; empty for `[[No statements]]`."""
    found = list(_STATEMENT.finditer(reply))
    if len(_STATEMENT_TAG.findall(reply)) != 2 * len(found):
        raise Unreadable("a <statement> is not closed, or not opened")
    rest = reply[found[-1].end() :] if found else reply
    none = any(_words(mark) == NO_STATEMENTS.casefold() for mark in _MARK.findall(rest))
    statements = tuple(filter(None, (" ".join(match[1].split()) for match in found)))
    if none == bool(statements):  # both, or neither
        raise Unreadable("statements and [[No statements]] in one reply" if none else "no statement is marked")
    return statements


def read_support(reply: str) -> Support:
    """Return what the last mark says: one of the three, case, spaces and a full stop aside."""
    return _support(_last_mark(reply))


def read_supports(reply: str, count: int) -> tuple[Support | None, ...]:
    """Return the verdicts `[[1: Fully supported]]` … of `count` statements; None where one is missing or unreadable."""
    marks = {int(number): mark for number, mark in _NUMBERED.findall(reply)}
    verdicts = tuple(_readable(marks.get(number, "")) for number in range(1, count + 1))
    if not any(verdicts):
        raise Unreadable("no statement has a verdict")
    return verdicts


def read_extraction(reply: str) -> str | None:
    """Return the points that were found; None if the whole reply is "No relevant information".

    A refusal, a filter's notice or an error text is no extraction.
    """
    text = reply.strip()
    if not text:
        raise Unreadable("the reply is empty")
    if _words(text) == NOTHING_RELEVANT.casefold():
        return None
    if _NOTICE.match(text):
        raise Unreadable(f"a notice, not an extraction: {_short(text)}")
    return text


def _last_mark(reply: str) -> str:
    mark = _MARK.match(reply, max(reply.rfind("[["), 0))
    if mark is None:
        raise Unreadable("the reply holds no mark, or its last one is not closed")
    return mark[1].strip()


def _support(mark: str) -> Support:
    words = " ".join(mark.split()).rstrip(".。 ").casefold()
    for known, value in SUPPORT_VALUES.items():
        if words == known.casefold():
            return Support(mark=known, value=value)
    raise Unreadable(f"the mark [[{_short(mark)}]] is none of the three")


def _readable(mark: str) -> Support | None:
    try:
        return _support(mark)
    except Unreadable:
        return None


def _words(text: str) -> str:
    return _NOT_A_WORD.sub(" ", text).strip().casefold()


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 60 else f"{line[:59]}…"
