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
    """Parse the prompt of a judge; None if the first line of `text` names no task.

    A section that returns replaces the earlier one, since examples come before the case itself; numbered
    ones are gathered from number 1 on.
    """
    head, _, remainder = text.partition("\n")
    task = _KIND.match(head)
    if not task:
        return None
    sections: dict[str, list[str]] = {}
    for heading, body in _fenced(remainder.splitlines()):
        name, number = _name(heading)
        texts = sections.setdefault(name, [])
        if not number or number == 1:
            texts.clear()
        texts.append(body)
    return Prompt(kind=task[2], chinese=task[1][0] == "任", sections=sections)


def _name(heading: str) -> tuple[str, int]:
    word = heading.rstrip("0123456789 ").strip()
    digits = heading[len(word) :].strip()
    return _NAMES.get(word, word.lower()), int(digits or 0)


def _fenced(lines: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield each heading whose next line opens a fence, with the text up to the identical closing line."""
    position = 0
    while position < len(lines) - 1:
        heading, fence = _HEADING.match(lines[position]), _FENCE.match(lines[position + 1])
        position += 1
        if heading and fence:
            end = next((i for i in range(position + 1, len(lines)) if lines[i].rstrip() == fence[1]), len(lines))
            yield heading[1].strip(), "\n".join(lines[position + 1 : end])
            position = end + 1
