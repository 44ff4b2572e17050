"""Reading an extraction: a list of points, or the agreed phrase for nothing. Anything else is none."""

import re
from dataclasses import dataclass

from lrq.domain.dress import short, undress, words_of
from lrq.domain.errors import Unreadable
from lrq.domain.phrases import begins_notice, is_notice, says_nothing
from lrq.domain.thoughts import LONGEST_REPLY, split_thoughts

NOTHING_RELEVANT = "No relevant information"

_BULLET = re.compile(
    r"[>\s]{0,20}(?:[-*+](?=\s)|-(?=[^\W\d_])|[•●○◦▪▫■□◆◇‣⁃∙·・►▶➢➤✓✔✅➔→👉①-⑳]\s?|[(\[]?[0-9]{1,3}[.)\]、:](?![0-9])"
    r"|[(]?[a-zA-Z][)]\s|[（(]?[一二三四五六七八九十]{1,3}[、.)）])\s?(?P<text>.*)"
)
_ROW = re.compile(r"\s{0,20}\|(?P<text>.*)")
_RULE = re.compile(r"[\s|:+=-]+")
_FENCE = re.compile(r"\s{0,20}```\w{0,20}\s*")
_ANSWER_TAG = re.compile(
    r"</?(?:answer|output|response|result|final|points|extraction|s)>|<\|[a-z_]{1,20}\|>", re.IGNORECASE
)
_HEADING = re.compile(
    r"\W{0,6}(?:points?|key points|extracted points|answer|result|output|要点|提取要点|结果|答案)\W{0,6}", re.IGNORECASE
)
_SHELLS = {"", "none", "null", "nil", "n a", "na", "nan", "undefined", "empty", "ok", "无", "true", "false", "todo"}


def read_extraction(reply: str) -> str | None:
    """Return the points of `reply`, as they stand; None for the agreed phrase for nothing, in whatever dress.

    A point is an item of a list: bullets, numbers, rows of a table. A refusal, a notice, an error text, an empty
    shell or mere prose is no extraction: raises Unreadable.
    """
    if len(reply) > LONGEST_REPLY:
        raise Unreadable(f"the reply has {len(reply)} characters, more than {LONGEST_REPLY}")
    parted = split_thoughts(reply)
    text = _ANSWER_TAG.sub("", parted.answer).strip()
    if not text:
        problem = "the reply is empty" if parted.closed and not parted.thought else "the reply holds thoughts alone"
        raise Unreadable(problem)
    lines = [line for line in text.splitlines() if not _FENCE.fullmatch(line)]
    if len(text) < 300 and says_nothing(" ".join(lines)):
        return None
    listed = _take_apart([line for line in lines if line.strip()])
    is_refused = (
        is_notice("\n".join(listed.before))
        or any(map(begins_notice, listed.after))
        or all(map(begins_notice, listed.items))
    )
    if listed.items and not listed.says_nothing and not is_refused:
        return "\n".join(lines).strip()
    if listed.says_nothing and not listed.items:
        return None
    raise Unreadable(f"neither a list of points nor the words for none: {short(text)}")


@dataclass(frozen=True, kw_only=True)
class _Listed:
    items: list[str]
    before: list[str]  # lines before the first item
    after: list[str]  # other lines that are no items
    says_nothing: bool


def _take_apart(lines: list[str]) -> _Listed:
    """Part the points from the text around them; says_nothing: a line says that there are none."""
    items: list[str] = []
    before: list[str] = []
    after: list[str] = []
    is_denied = False  # by an item
    rows = 0
    for line in lines:
        rows = rows + 1 if _ROW.match(line) else 0
        item = _item(line, rows)
        if item is None:
            (after if items else before).append(line)
        elif says_nothing(item):
            is_denied = True
        elif words_of(undress(item)) not in _SHELLS:
            items.append(item)
    others = before + after
    is_said = any(map(says_nothing, others))
    if not items:
        is_said = (is_denied and not is_said) or (is_said and _is_nothing_alone(others))
    return _Listed(items=items, before=before, after=after, says_nothing=is_said)


def _item(line: str, rows: int) -> str | None:
    """Return the text of a list item, or of a table's row below its head and rule."""
    if rows:
        return line if rows > 2 and not _RULE.fullmatch(line) else None
    bullet = _BULLET.match(line) or _BULLET.match(undress(line))
    return bullet["text"] if bullet else None


def _is_nothing_alone(lines: list[str]) -> bool:
    """Tell whether the phrase stands first, under its heading at most, and what follows is only a remark on it."""
    stated = [line for line in lines if not _HEADING.fullmatch(line)]
    remarks = [line for line in stated if not says_nothing(line)]
    return bool(stated) and says_nothing(stated[0]) and all(line.strip()[0] in "(（" for line in remarks)
