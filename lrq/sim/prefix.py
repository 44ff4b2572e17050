"""The prompt cache as providers run it: whole blocks of a prefix that an earlier prompt had, from a minimum up."""

from collections.abc import Sequence
from dataclasses import dataclass

from lrq.domain.tokens import chunk, count_tokens
from lrq.sim.lru import Lru

BLOCK = 128  # tokens
SHORTEST = 1024  # tokens: shorter prefixes are not cached


@dataclass(frozen=True, kw_only=True)
class Tokenised:
    """The length of a prompt, and a hash per full block that stands for all the text up to its end."""

    tokens: int
    chain: tuple[int, ...]


def tokenise(model: str, text: str) -> Tokenised:
    blocks = chunk(text, BLOCK) if text else []
    last = count_tokens(text[blocks[-1].start :]) if blocks else 0
    chain: list[int] = [hash(model)]
    for block in blocks if last == BLOCK else blocks[:-1]:
        chain.append(hash((chain[-1], text[block.start : block.end])))
    return Tokenised(tokens=max(0, len(blocks) - 1) * BLOCK + last, chain=tuple(chain[1:]))


def cut(text: str, limit: int) -> str:
    """Return the first `limit` tokens of `text`."""
    if limit < 1 or not text:
        return ""
    return text[: chunk(text, limit)[0].end]


class PrefixCache:
    """The prefixes of the prompts answered so far; the oldest are forgotten."""

    def __init__(self, blocks: int = 200_000) -> None:
        self.known: Lru[int, bool] = Lru(blocks)

    def cached(self, chain: Sequence[int]) -> int:
        """Return the tokens of the prompt `chain` that need not be read again: a multiple of 128 from 1,024, or 0."""
        count = next((i for i, block in enumerate(chain) if not self.known.get(block)), len(chain)) * BLOCK
        return count if count >= SHORTEST else 0

    def add(self, chain: Sequence[int]) -> None:
        for block in reversed(chain):  # the head is used last and so forgotten last
            self.known.put(block, True)
