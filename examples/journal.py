"""Prose for documents of any length: a harbour master's journal in which facts are planted.

Its vocabulary is larger than the small policy's; these documents bring their responses and are only judged.
"""

import random
from collections.abc import Sequence

from harbour import Fact, Language


def line(rng: random.Random, language: Language) -> str:
    """Return one sentence of the journal that states no fact."""
    words = language.journal
    ship, other = rng.sample(language.ships, 2)
    number, wind, hour = rng.randint(2, 40), rng.choice(words.winds), rng.choice(words.hours)
    return rng.choice(words.lines).format(ship=ship, other=other, n=number, wind=wind, hour=hour)


def write_journal(rng: random.Random, language: Language, facts: Sequence[Fact], *, characters: int) -> str:
    """Return a journal of about that many characters; the facts stand in it in their order, evenly spread."""
    sample = [line(rng, language) for _ in range(100)]
    count = max(len(facts), characters * len(sample) // sum(map(len, sample)) - len(facts))
    lines = [line(rng, language) for _ in range(count)]
    told: list[str] = []
    for number, fact in enumerate(facts):
        start, middle = number * count // len(facts), (2 * number + 1) * count // (2 * len(facts))
        end = (number + 1) * count // len(facts)
        told += [*lines[start:middle], language.tell(fact), *lines[middle:end]]
    return days(rng, language, told)


def days(rng: random.Random, language: Language, lines: Sequence[str]) -> str:
    """Return the lines as days of four to nine sentences each."""
    paragraphs: list[str] = []
    start = 0
    while start < len(lines):
        size = rng.randint(4, 9)
        heading = language.journal.heading.format(day=len(paragraphs) + 1)
        paragraphs.append(language.join([heading, *lines[start : start + size]]))
        start += size
    return "\n\n".join(paragraphs)


def rambling(rng: random.Random, language: Language, told: str) -> str:
    """Return an answer that wanders off before and after it says what it has to say."""
    return language.join([language.journal.opening, line(rng, language), told, line(rng, language)])
