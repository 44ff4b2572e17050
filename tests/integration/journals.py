"""Journals with questions and responses, English and Chinese in turn, as the examples make them."""

import random
import sys
from functools import cache
from pathlib import Path
from typing import Any

EXAMPLES = Path(__file__).parents[2] / "examples"


@cache
def _maker() -> Any:
    sys.path.insert(0, str(EXAMPLES))
    try:
        import make_dataset  # noqa: PLC0415

        return make_dataset
    finally:
        sys.path.remove(str(EXAMPLES))


def journals(
    count: int, responses: int, *, seed: str = "", chars: tuple[int, int] = (3000, 1200)
) -> list[dict[str, Any]]:
    """Items that bring responses; `chars` of an English and of a Chinese journal."""
    made, rng = _maker(), random.Random(f"{count} {responses} {seed}")
    return [
        dict(made.journal_item(rng, f"item-{n:02d}", made.LANGUAGES[n % 2], chars[n % 2], 14, responses))
        for n in range(count)
    ]


def questions(count: int) -> list[dict[str, Any]]:
    """Items with a reference answer and no responses."""
    made, rng = _maker(), random.Random(f"questions {count}")
    return [dict(line) for line in made.sampled_items(rng, "asked", count)]
