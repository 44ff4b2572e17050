"""Reading a judge prompt: its kind, its language, its fenced sections; nothing inside a fence is looked at."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

_KIND = re.compile(r"(Task:|任务：|任务:)\s*(\w+)\s*$")
_HEADING = re.compile(r"[\[【]([^\[\]【】\n]{1,40})[\]】]\s*$")
_FENCE = re.compile(r"(~{4,})\s*$")
_NAMES = {
    "问题": "question",
    "回答": "answer",
    "回答A": "answer a",
    "回答B": "answer b",
    "陈述": "statement",
    "文段": "passage",
    "文档部分": "document part",
    "提取要点": "extracted points",
}


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """A judge prompt as the simulator understands it."""

    kind: str
    chinese: bool
    sections: Mapping[str, Sequence[str]]  # English name without its number, in lower case → texts in order

    def first(self, name: str) -> str:
        return next(iter(self.sections.get(name, ())), "")


def read_prompt(text: str) -> Prompt | None:
    """The prompt of a judge, or None if the first line names no task.

    A section that returns replaces the earlier one, since examples come before the case itself; numbered
    ones are gathered from number 1 on.
    """
    head, _, rest = text.partition("\n")
    named = _KIND.match(head)
    if not named:
        return None
    sections: dict[str, list[str]] = {}
    for heading, body in _fenced(rest.splitlines()):
        name, number = _name(heading)
        known = sections.setdefault(name, [])
        if not number or number == 1:
            known.clear()
        known.append(body)
    return Prompt(kind=named[2], chinese=named[1][0] == "任", sections=sections)


def _name(heading: str) -> tuple[str, int]:
    word = heading.rstrip("0123456789 ").strip()
    digits = heading[len(word) :].strip()
    return _NAMES.get(word, word.lower()), int(digits or 0)


def _fenced(lines: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Each heading whose next line opens a fence, with the text up to the identical closing line."""
    at = 0
    while at < len(lines) - 1:
        heading, fence = _HEADING.match(lines[at]), _FENCE.match(lines[at + 1])
        at += 1
        if heading and fence:
            end = next((i for i in range(at + 1, len(lines)) if lines[i].rstrip() == fence[1]), len(lines))
            yield heading[1].strip(), "\n".join(lines[at + 1 : end])
            at = end + 1
