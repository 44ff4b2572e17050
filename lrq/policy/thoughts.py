"""What a policy thought and what it answers: the judge sees the answer, training sees all that was written.

Of what was drawn here, control tokens included: the parts must render to the same tokens again, so only marks of chat
templates count, the prompt's own is known, and white space stays. Replies of servers are read by
`lrq.domain.thoughts`, which takes whatever a person would.
"""

import re
from dataclasses import dataclass, replace

# Marks around a thought, as families of models write them.
MARKS = (
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"),
    ("<seed:think>", "</seed:think>"),
    ("[THINK]", "[/THINK]"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("◁think▷", "◁/think▷"),
    ("<|channel>thought", "<channel|>"),
)
_MESSAGE = "<|message|>"  # of models that write several messages in a turn, each under a header of its own
_HEADER = re.compile(r"(?:^|<\|(?:end|call|return|eot)\|>)((?:(?!<\|message\|>).)*?)<\|message\|>", re.DOTALL)
_FINAL = re.compile(r"<\|channel\|>\s*final|to=user")
_RESPONSE = re.compile(r"<\|(?:START|END)_(?:RESPONSE|TEXT)\|>")  # around an answer
_FRAME = re.compile(r"<\|(?:start|end|return|eot)\|>")


@dataclass(frozen=True, kw_only=True)
class Written:
    """A response in its parts."""

    thought: str  # empty where it does not think
    answer: str
    is_closed: bool  # False: it broke off while it thought, and there is no answer


def open_mark(prompt: str) -> str:
    """Return the mark of a thought in which the rendered `prompt` ends, so that a response begins in it; else empty."""
    tail = prompt[-100:]
    ends = [start for start, _ in MARKS if tail.rstrip().endswith(start)]
    return max(ends, key=len) if ends else ""


def split_thought(text: str, *, opened: str = "") -> Written:
    """Part what was written, control tokens included; `opened` is the mark that the prompt ended in."""
    if _MESSAGE in text:
        return _split_messages(text)
    parts = _split_marks(text, opened)
    return replace(parts, answer=_RESPONSE.sub("", parts.answer))


def _split_marks(text: str, opened: str) -> Written:
    start, end = next(
        (
            (start, end)
            for start, end in MARKS
            if (start == opened if opened else text.lstrip().startswith(start) or _closes(text, start, end))
        ),
        ("", ""),
    )
    if not start:
        return Written(thought="", answer=text, is_closed=True)
    before, mark, after = text.rpartition(end)
    thought = (before if mark else text).lstrip().removeprefix(start)
    return Written(thought=thought, answer=after if mark else "", is_closed=bool(mark))


def _closes(text: str, start: str, end: str) -> bool:
    """Tell whether a thought ends that no mark began: models trained behind an opened one may leave it out."""
    return end in text and start not in text.partition(end)[0] and end != "<channel|>"


def _split_messages(text: str) -> Written:
    """Part messages under headers (`<|channel|>analysis<|message|>…<|end|>`): the last to the user is the answer."""
    headers = list(_HEADER.finditer(text))
    thoughts: list[str] = []
    answers: list[str] = []
    for index, header in enumerate(headers):
        stop = headers[index + 1].start() if index + 1 < len(headers) else len(text)
        body = _FRAME.sub("", text[header.end() : stop])
        (answers if _FINAL.search(header.group(1)) else thoughts).append(body)
    return Written(thought="\n".join(thoughts), answer=answers[-1] if answers else "", is_closed=bool(answers))
