"""Fences around untrusted text: whatever it contains, it cannot close its own fence."""

import re

_TILDES = re.compile(r"~+")
SHORTEST = 4


def fenced(text: str) -> str:
    """Return `text` between two identical lines of tildes, longer than any run of tildes in it."""
    fence = "~" * SHORTEST
    if fence in text:
        fence = "~" * (1 + max(map(len, _TILDES.findall(text))))
    return f"{fence}\n{text}\n{fence}"
