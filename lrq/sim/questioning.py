"""The simulated author of questions: on what a text's sentences say, in numbered lines."""

import re
from itertools import islice

from lrq.sim.answering import take_apart
from lrq.sim.text import CJK, sentences, value_of

_ASKS = re.compile(r'[“"]1[:：]\s*…+[”"].{1,4}[“"]([0-9]{1,2})[:：]')  # how a prompt shows the lines that it wants
_CHINESE = re.compile(f"[{CJK}]")
_COPULA = re.compile(r"\s*(?:is|are|was|were|是)\s*$")
SPOKEN_OF = 2  # sentences that a question is on


def asks_for_questions(text: str) -> int:
    """Return how many numbered questions the prompt `text` asks for; 0: it asks for something else."""
    match = _ASKS.search(text)
    return int(match[1]) if match else 0


def write_questions(text: str, count: int) -> str:
    """Write questions on the text that a prompt shows: `count` numbered lines, or as many as its sentences allow."""
    document = take_apart([{"role": "user", "content": text}]).document
    subjects = list(dict.fromkeys(filter(None, map(_subject, sentences(document)))))
    chinese = _CHINESE.search("".join(subjects)) is not None
    step = max(1, len(subjects) // (count * SPOKEN_OF))
    chosen = iter(subjects[::step])
    lines: list[str] = []
    while len(lines) < count and (group := list(islice(chosen, SPOKEN_OF))):
        parts = ("和" if chinese else " and ").join(group)
        question = f"{parts}分别是什么？" if chinese else f"What is {parts}?"
        lines.append(f"{len(lines) + 1}: {question}")
    return "\n".join(lines)


def _subject(sentence: str) -> str:
    """Return what a sentence tells the value of: 'the colour' in 'the colour is red'; empty where there is none."""
    value = value_of(sentence)
    subject = _COPULA.sub("", sentence[: len(sentence) - len(value)]).strip() if value else ""
    return f"the{subject[3:]}" if subject.startswith("The ") else subject


def write_system_message(text: str) -> str:
    """Return a system message from the values that a prompt lists; empty where it asks for none."""
    heading, _, remainder = text.partition("\n")
    if "system message" not in heading and "系统消息" not in heading:
        return ""
    values = [line.removeprefix("- ") for line in remainder.partition("~~~~")[0].splitlines() if line.startswith("- ")]
    return f"You write for a reader with these wishes. {' '.join(values)}" if values else ""
