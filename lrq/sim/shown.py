"""Replies to tasks that the simulator does not know: with a mark that the prompt itself shows."""

import re
from hashlib import blake2b

from lrq.sim.judging import Verdict

_FENCED = re.compile(r"^(~{4,})\n.*?\n\1$", re.DOTALL | re.MULTILINE)
_NUMBER = re.compile(r"\[\[\s*(?:n|x|number|score|rating|分数|数字)\s*\]\]", re.IGNORECASE)
_NAMED = re.compile(r"^\[RESULT\] (\S+): (\d{1,4})-(\d{1,4})$", re.MULTILINE)
_RESULT = re.compile(r"\[RESULT\]")
_CHOICE = re.compile(r"\[\[([^\[\]\n]{1,60})\]\]")


def shown_verdict(text: str, *, is_task: bool) -> Verdict | None:
    """Return a verdict in a form that the prompt shows outside its fences; None where it shows none.

    `is_task`: the prompt names a task, so that any mark counts; else only those that stand for a number.
    """
    instructions = _FENCED.sub("", text)
    draw = int.from_bytes(blake2b(text.encode(), digest_size=4).digest(), "big")
    comment = "I know no such task; this mark is drawn from the prompt's text."
    if _NUMBER.search(instructions):
        return Verdict(text=f"[[{draw % 21 / 2:g}]]", reasoning=comment)
    if shown := _NAMED.findall(instructions):
        scores = (f"[RESULT] {name}: {int(low) + draw % (int(high) - int(low) + 1)}" for name, low, high in shown)
        return Verdict(text="\n".join(scores), reasoning=comment)
    if _RESULT.search(instructions):
        return Verdict(text=f"[RESULT] {1 + draw % 5}", reasoning=comment)
    marks = list(dict.fromkeys(_CHOICE.findall(instructions))) if is_task else []
    return Verdict(text=f"[[{marks[draw % len(marks)]}]]", reasoning=comment) if marks else None
