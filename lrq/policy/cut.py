"""Cutting over-long contexts in the middle; never the question, never the system message. Pure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from lrq.domain.records import Chunk, Message

Count = Callable[[Sequence[Message]], int]  # tokens of the whole prompt as the model reads it


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """A prompt that the model can take."""

    messages: tuple[Message, ...]
    tokens: int
    cut: Chunk | None = None


class OverLong(Exception):
    """The prompt is longer than the limit and may not, or cannot, be cut."""


def fit(
    messages: Sequence[Message], context: str, *, count: Count, limit: int | None, over_long: Literal["cut", "refuse"]
) -> Fitted:
    """Return the prompt with as much of its `context` as `limit` tokens hold; None: it is not cut.

    `count` gives the tokens of messages. Raises OverLong where `over_long` is "refuse", or nothing of the context fits.
    """
    tokens = count(messages)
    if limit is None or tokens <= limit:
        return Fitted(messages=tuple(messages), tokens=tokens)
    if over_long == "refuse":
        raise OverLong(f"{tokens} tokens where {limit} are allowed")
    cut = middle(context, kept_characters(messages, context, count=count, limit=limit, tokens=tokens))
    shorter = without(messages, context, cut)
    return Fitted(messages=shorter, tokens=count(shorter), cut=cut)


def kept_characters(messages: Sequence[Message], context: str, *, count: Count, limit: int, tokens: int) -> int:
    """Return how many characters of `context` to keep: between 99 and 100 % of the `limit` is used.

    `tokens` is what `count` gives for the messages uncut. Raises OverLong if nothing can be kept.
    """

    def measure(characters: int) -> int:
        return count(without(messages, context, middle(context, characters)))

    low, high = 0, len(context)  # `low` fits, `high` does not
    low_tokens, high_tokens = (measure(0) if context else tokens), tokens
    if low_tokens > limit:
        raise OverLong(f"{low_tokens} tokens without the context where {limit} are allowed")
    aim, turn = limit - limit // 200, 0
    while high - low > 1 and limit - low_tokens > limit // 100:
        # Tokens per character hardly vary, so a straight line mostly lands at once; bisection bounds the turns.
        part = 0.5 if turn % 2 else (aim - low_tokens) / (high_tokens - low_tokens)
        characters = min(max(low + int((high - low) * part), low + 1), high - 1)
        counted_tokens, turn = measure(characters), turn + 1
        if counted_tokens <= limit:
            low, low_tokens = characters, counted_tokens
        else:
            high, high_tokens = characters, counted_tokens
    if low == 0:
        raise OverLong(f"{limit} tokens hold nothing of the context")
    return low


def middle(context: str, kept: int) -> Chunk:
    """Return the stretch to leave out so that `kept` characters stay, half of them on either side."""
    return Chunk(start=kept - kept // 2, end=len(context) - kept // 2)


def without(messages: Sequence[Message], context: str, cut: Chunk) -> tuple[Message, ...]:
    """Return the messages with the cut taken out of the context, at the first place where it stands."""
    shorter = context[: cut.start] + context[cut.end :]
    index = next((i for i, message in enumerate(messages) if context in message["content"]), None)
    return tuple(
        {**message, "content": message["content"].replace(context, shorter, 1)} if i == index else message
        for i, message in enumerate(messages)
    )
