"""How far passages bear a statement out, by the words that stand in one place."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from lrq.domain.marks import SUPPORT_VALUES
from lrq.sim.text import clauses, negated, overlap, sentences, units, value_of

NONE, PARTIAL, FULL = sorted(SUPPORT_VALUES, key=SUPPORT_VALUES.__getitem__)
SEAM = 200  # characters on either side of a cut between passages


@dataclass(frozen=True, kw_only=True)
class Supported:
    """A verdict on a statement, and the largest share of its units in one place."""

    mark: str
    share: float


def evidence(passages: Sequence[str]) -> list[str]:
    """Return the sentences of `passages`, and those that a cut between two of them may have parted."""
    seams = (first[-SEAM:] + second[:SEAM] for first, second in pairwise(passages))
    return [sentence for text in (*passages, *seams) for sentence in sentences(text)]


def supported(statement: str, places: Sequence[str]) -> Supported:
    """Judge a statement against `places`, sentences.

    A short value after a copula must stand in the same clause as the rest, since other sentences often hold
    the same words with another value; a clause with the same subject and another value denies the statement.
    """
    need, value = units(statement), units(value_of(statement))
    subject = need - value
    short = bool(subject) and 0 < len(value) <= 3
    spread = overlap(need, "\n".join(places)) if places else 0.0
    places = [clause for sentence in places for clause in clauses(sentence)] if short else places
    share = max((overlap(need, sentence) for sentence in places), default=0.0)
    agreeing = [sentence for sentence in places if negated(sentence) == negated(statement)]
    denied = short and any(_denies(sentence, subject, value) for sentence in agreeing)
    if need and any(need <= units(sentence) for sentence in agreeing):
        return Supported(mark=FULL, share=share)
    partly = share < 1 and not denied and (share >= 0.35 or spread >= 0.8)
    return Supported(mark=PARTIAL if partly else NONE, share=share)


def _denies(place: str, subject: frozenset[str], value: frozenset[str]) -> bool:
    return subject <= units(place) and not value & units(place) and bool(units(value_of(place)))
