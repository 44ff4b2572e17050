"""The little world of the demo: ships with facts, told in English and in Chinese.

Everything is drawn from a `random.Random`, so that the same seed gives the same texts on every machine.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

KINDS = ("right", "partial", "wrong", "refusal")


@dataclass(frozen=True, kw_only=True)
class Fact:
    """One planted fact."""

    ship: str
    attribute: str
    value: str


@dataclass(frozen=True, kw_only=True)
class Journal:
    """Words for documents that are only judged."""

    heading: str
    opening: str
    winds: Sequence[str]
    hours: Sequence[str]
    lines: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class Language:
    """The words and the sentence patterns of one language; words/*.yaml explains the fields."""

    code: str
    ships: Sequence[str]
    values: Mapping[str, Sequence[str]]
    patterns: Mapping[str, str]
    idle: Sequence[str]
    journal: Journal

    def tell(self, fact: Fact) -> str:
        """Return the sentence that states a fact."""
        return self.patterns["fact"].format(ship=fact.ship, attribute=fact.attribute, value=fact.value)

    def ask(self, facts: Sequence[Fact]) -> str:
        """Return the question for the values of one fact or several."""
        words = self.patterns
        *first, last = [words["part"].format(ship=fact.ship, attribute=fact.attribute) for fact in facts]
        parts = words["comma"].join(first) + words["final"] + last if first else last
        return words["question"].format(parts=parts)

    def join(self, sentences: Sequence[str]) -> str:
        """Return sentences as one paragraph."""
        return self.patterns["space"].join(sentences)


def load(code: str) -> Language:
    """Read a language from words/."""
    words = yaml.safe_load((Path(__file__).parent / "words" / f"{code}.yaml").read_text(encoding="utf-8"))
    return Language(code=code, **{**words, "journal": Journal(**words["journal"])})


ENGLISH, CHINESE = LANGUAGES = load("en"), load("zh")


def draw_facts(rng: random.Random, language: Language, count: int, *, attributes: int = 8) -> list[Fact]:
    """Return up to `count` different facts over few ships, so that every fact has distractors.

    Facts that share the ship or the attribute are what a careless reader mixes up; the fewer attributes, the more.
    """
    names = rng.sample(sorted(language.values), attributes)
    crowd = -(-count // max(1, attributes // 2))  # each ship has about half of the attributes
    ships = rng.sample(language.ships, min(len(language.ships), crowd))
    places = [(ship, name) for ship in ships for name in names]
    chosen = rng.sample(places, min(count, len(places)))
    return [Fact(ship=ship, attribute=name, value=rng.choice(language.values[name])) for ship, name in chosen]


def mistake(rng: random.Random, language: Language, fact: Fact, facts: Sequence[Fact]) -> Fact:
    """Return the fact with another ship's value: a distractor's, where the document has one."""
    rivals = {other.value for other in facts if other.attribute == fact.attribute} - {fact.value}
    values = sorted(rivals) or [value for value in language.values[fact.attribute] if value != fact.value]
    return Fact(ship=fact.ship, attribute=fact.attribute, value=rng.choice(values))


def answer(
    rng: random.Random, language: Language, asked: Sequence[Fact], facts: Sequence[Fact], kind: str = "right"
) -> str:
    """Return an answer: right, partial (ends too early), wrong (a part has a distractor's value), or a refusal."""
    told = list(asked)
    if kind == "refusal":
        return language.patterns["refusal"]
    if kind == "partial":
        del told[-1]
    if kind == "wrong":
        spot = rng.randrange(len(told))
        told[spot] = mistake(rng, language, told[spot], facts)
    return language.join([language.tell(fact) for fact in told])
