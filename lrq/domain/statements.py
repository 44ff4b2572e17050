"""Reading the list of a response's statements."""

import html
import re
from itertools import pairwise

from lrq.domain.dress import undress, words_of
from lrq.domain.errors import Unreadable
from lrq.domain.thoughts import LONGEST_REPLY, split_thoughts

NO_STATEMENTS = "No statements"

_TAG = re.compile(
    r"\\?[<＜]\s?\\?(?P<close>/?)\s?(?:statement|陈述|陳述)[\s_-]?[0-9]{0,4}(?:\s[^<>\n]{0,100})?\s?\\?[>＞]",
    re.IGNORECASE,
)
_MARK = re.compile(r"\[\[([^\[\]]{0,100})\]\]")
_NONE = {
    "no statements", "no statement", "no factual statements", "no factual statement", "none", "n a", "no facts",
    "无陈述", "没有陈述", "没有事实陈述", "无事实陈述", "無陳述", "没有事实性陈述", "无事实性陈述",
}  # fmt: skip
_NONE_SAID = re.compile(
    r"(?:there are|the answer (?:contains|holds|has|makes)|it (?:contains|holds|has|makes)|i found)?\s?"
    r"no (?:factual )?statements?(?: (?:found|present|at all))?(?: (?:in|of) (?:this|the) (?:answer|response))?"
    r"|(?:该|此|这个|本)?(?:回答|答案)?(?:中)?(?:没有|无|不含|不包含|未包含)(?:任何)?(?:事实性?)?陈述"
)
_JOINING = {"", "and", "und", "et", "or", "和", "与", "及", "到"}  # between two tags that are spoken of, not used


def read_statements(reply: str) -> tuple[str, ...]:
    """Return the texts of `<statement>…</statement>`, in order and with repeats; empty for `[[No statements]]`.

    Raises Unreadable where neither is there, or both are, or tags do not close.
    """
    if len(reply) > LONGEST_REPLY:
        raise Unreadable(f"the reply has {len(reply)} characters, more than {LONGEST_REPLY}")
    parted = split_thoughts(reply)
    if not parted.closed and not parted.answer.strip():
        raise Unreadable("the reply ends within its thoughts")
    answer = parted.answer
    tags = _tags(answer)
    if not tags and "&lt;" in answer:
        answer = html.unescape(answer)
        tags = _tags(answer)
    texts = [" ".join(html.unescape(text).split()) for text in _between(answer, tags)]
    statements = tuple(text for text in texts if words_of(text) not in _JOINING and not _is_none(text))
    remainder = undress(answer[tags[-1].end() if tags else 0 :])
    if statements and _says_none(remainder):
        raise Unreadable("statements and [[No statements]] in one reply")
    if not statements and not (any(map(_is_none, texts)) or _says_none(remainder) or _ends_with_none(remainder)):
        raise Unreadable("no statement is marked")
    return statements


def _tags(text: str) -> list[re.Match[str]]:
    """Return the tags that are used; one in backticks of its own is spoken of."""
    return [
        tag
        for tag in _TAG.finditer(text)
        if text[tag.start() - 1 : tag.start()] + text[tag.end() : tag.end() + 1] != "``"
    ]


def _between(text: str, tags: list[re.Match[str]]) -> list[str]:
    """Return the texts between opening and closing tags, which must alternate.

    Where no tag closes, each line may hold one text between two opening tags.
    """
    closes = [bool(tag["close"]) for tag in tags]
    pairs = list(zip(tags[::2], tags[1::2], strict=False))
    alternate = not len(tags) % 2 and closes == [False, True] * len(pairs)
    texts = [text[start.end() : end.start()] for start, end in pairs]
    if not alternate:
        gaps = [text[end.end() : start.start()] for (_, end), (start, _) in pairwise(pairs)]
        is_slip = not any(closes) and not len(tags) % 2 and not any("\n" in inside.strip() for inside in texts)
        if not is_slip or not all("\n" in gap and not gap.strip() for gap in gaps):
            raise Unreadable("a <statement> is not closed, or not opened")
    return texts


def _is_none(text: str) -> bool:
    text = undress(text)
    marks = _MARK.findall(text)
    inside = marks[0] if len(marks) == 1 and words_of(text) == words_of(marks[0]) else text
    return words_of(inside) in _NONE


def _says_none(rest: str) -> bool:
    """Tell whether a line after the list, or of all there is, says that there are no statements and nothing else."""
    lines = [line.strip() for line in rest.splitlines() if line.strip()]
    alone = any(_MARK.search(line) and _is_none(line) for line in lines)
    return alone or bool(lines and _NONE_SAID.fullmatch(words_of(lines[-1])))


def _ends_with_none(rest: str) -> bool:
    """Tell whether the mark for none ends the last sentence; where statements are listed it is only spoken of there."""
    mark = _MARK.match(rest, max(rest.rfind("[["), 0))
    return mark is not None and _is_none(mark[0]) and not words_of(rest[mark.end() :])
