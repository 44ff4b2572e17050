"""Seeded faults: which request goes wrong, and how, follows from the seed and the request alone."""

from collections.abc import Mapping
from hashlib import blake2b

FAULTS = ("500", "reset", "hang", "empty", "unreadable")

# What filters and failing servers say under status 200: no reply to any kind of prompt.
NOTICES = (
    "I'm sorry, but I can't assist with that request.",
    "The response was filtered due to the prompt triggering the content management policy.",
    "Error: upstream model is overloaded.",
    "抱歉，该内容可能包含敏感信息，无法处理。",
)
# Replies that look like judgements and hold no mark that can be read.
FALSE_MARKS = ("[[I cannot tell]]", "[[85]]", "[[Not fully supported]]", "The score is [[", "<statement>", "[[-1]]")


def draw(*keys: object) -> float:
    """Return a number in [0, 1) that depends on `keys` alone."""
    digest = blake2b(repr(keys).encode(), digest_size=7).digest()
    return int.from_bytes(digest) / 2**56


def fault(rates: Mapping[str, float], seed: int, body: bytes, seen: int) -> str | None:
    """Return the fault of a body's `seen`-th delivery, so that another try may succeed; None: it goes well.

    `rates` are shares of requests by the faults' names.
    """
    position = draw("fault", seed, body, seen) if rates else 1.0
    for name in FAULTS:
        rate = rates.get(name, 0.0)
        if position < rate:
            return name
        position -= rate
    return None


def unreadable(kind: str, seed: int, body: bytes, seen: int) -> str:
    """Return a reply that holds nothing for a prompt of this `kind`; to an extraction any prose would be an answer."""
    texts = NOTICES if kind == "extraction" else NOTICES + FALSE_MARKS
    return texts[int(draw("unreadable", seed, body, seen) * len(texts))]
