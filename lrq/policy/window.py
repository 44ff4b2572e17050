"""The window of a server's model: how long a prompt may be, by what the server says in advance and when it refuses.

Nothing of this is remembered between prompts: a task that is delivered twice has to cut alike, so that it finds what
was paid for. A refused request costs nothing, and its refusal stands in the ledger. Pure.
"""

import re
from collections.abc import Sequence

from lrq.domain.errors import LrqError
from lrq.domain.records import Message
from lrq.domain.tokens import count_tokens

CUTS = 6  # prompts sent at most, each shorter than the one before
_PER_CHARACTER = 0.68  # tokens of a Chinese character, by today's vocabularies; our unit takes one
_CJK = re.compile(r"[\u2e80-\u9fff\uf900-\ufaff]")
_IN_HAND = 0.97  # of the window: chat templates, and words that split otherwise
_SHRINK = 0.8  # where a refusal names no numbers
_TOO_LONG = re.compile(
    r"context.{0,12}(length|window|size)|model.{0,3}len|maximum .{0,20}length|too long|longer than|"
    r"too many (input )?tokens|exceed.{0,40}(token|context)|reduce the length",
    re.IGNORECASE,
)
_WINDOW = re.compile(
    r"(?:context.{0,12}(?:length|window|size)|model.{0,3}len(?:gth)?|maximum)\D{0,30}?(?P<after>\d[\d,_]*\d)"
    r"|(?P<before>\d[\d,_]*\d) (?:tokens )?max",
    re.IGNORECASE,
)
_NUMBER = re.compile(r"\d[\d,_]*\d")


def model_tokens(messages: Sequence[Message]) -> int:
    """Return about how many tokens a model's own vocabulary makes of the messages."""
    texts = [message["content"] for message in messages]
    characters = sum(len(_CJK.findall(text)) for text in texts)
    return sum(map(count_tokens, texts)) - round((1 - _PER_CHARACTER) * characters)


def prompt_room(window: int | None, reply: int) -> int | None:
    """Return the tokens of `window` that a prompt may have beside `reply` tokens; None where the window is not known.

    Raises LrqError where the reply leaves no room.
    """
    if window is None:
        return None
    room = int((window - reply) * _IN_HAND)
    if room <= 0:
        raise LrqError(
            f"the policy's server takes {window:,} tokens, prompt and reply together, and sample.max_new_tokens is "
            f"{reply:,}: set it lower"
        )
    return room


def is_too_long(refusal: str) -> bool:
    """Tell whether `refusal`, a server's words, refuses a request for its length."""
    return bool(_TOO_LONG.search(refusal))


def shorter_limit(refusal: str, sent: int, reply: int, window: int | None) -> int:
    """Return how long the next prompt may be, in the unit in which `sent` was counted.

    `reply`: tokens that were asked for. `window`: what the server said in advance, else it is read from the refusal.
    Its numbers of prompt and request are told apart by what must be true of a prompt that was refused.
    """
    match = _WINDOW.search(refusal)
    window = window or (int(re.sub(r"\D", "", match["after"] or match["before"])) if match else None)
    numbers = [int(re.sub(r"\D", "", number)) for number in _NUMBER.findall(refusal)]
    room = prompt_room(window, reply)
    if window is None or room is None:
        return int(sent * _SHRINK)
    prompt_tokens = min((number for number in numbers if number > window - reply and number != window), default=0)
    by_count = int(sent * room / prompt_tokens) if prompt_tokens else room
    return min(by_count, int(sent * (0.99 if prompt_tokens else _SHRINK)))
