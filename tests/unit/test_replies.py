"""Replies as the ledger keeps them."""

import random

import pytest

from lrq.calls.replies import decode, decode_body, encode
from lrq.domain.records import Choice, Usage
from lrq.ledger.calls import CachedReply

ZSTD = b"\x28\xb5\x2f\xfd"


@pytest.mark.parametrize(
    "choices",
    [
        [],
        [Choice(text="[[7]]")],
        [Choice(text="答：对。 \x00\n", reasoning="因为 🚢", finish="length"), Choice(text="")],
        [Choice(text="so " * 5000, reasoning="long " * 5000)],
    ],
)
def test_a_reply_comes_back_as_it_was(choices: list[Choice]) -> None:
    """Texts, reasoning and ends, short or long."""
    assert decode_body(encode(choices)) == (choices, [])


def test_long_replies_are_compressed_and_short_ones_are_not() -> None:
    """A frame's header would eat the gain."""
    long = encode([Choice(text="the same words again " * 500)])
    assert long.startswith(ZSTD)
    assert len(long) < 1000
    assert encode([Choice(text="[[7]]")]).startswith(b"{")


def test_vectors_keep_the_precision_of_32_bits() -> None:
    """Four bytes a number, before base64."""
    numbers = random.Random(0)
    vectors = [[numbers.gauss(0, 1) for _ in range(256)] for _ in range(3)]
    raw = encode([], vectors)
    _, found = decode_body(raw)
    assert [len(vector) for vector in found] == [256] * 3
    assert (
        max(abs(a - b) for one, other in zip(vectors, found, strict=True) for a, b in zip(one, other, strict=True))
        < 1e-6
    )
    assert len(raw) < 3 * 256 * 4 * 1.4


def test_a_known_reply_says_whether_it_is_reused() -> None:
    """With its key, usage and money."""
    known = CachedReply(reply=encode([Choice(text="a")]), usage=Usage(prompt_tokens=3), cost=None)
    reply = decode("key", known, reused=True)
    assert (reply.key, reply.usage.prompt_tokens, reply.cost_micros, reply.reused) == ("key", 3, None, True)
    assert not decode("key", known).reused
