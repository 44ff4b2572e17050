"""What may speak against rewards: ties, lengths, the order of comparisons, votes that contradict. No I/O."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations, permutations
from math import comb
from statistics import fmean
from typing import Any

from lrq.domain.comparison import agreement, spearman
from lrq.domain.pairing import DECIMALS

Place = tuple[int, int, int]  # (item, prompt, k): a response
_FEW = 3  # responses of a prompt that a rank correlation needs


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One figure of an audit."""

    check: str
    of: str  # reward, a dimension or a kind of call; empty: all responses
    value: float | None  # None: there is too little to say
    count: int  # of what it is made
    doubt: str = ""  # why rewards cannot be trusted; empty: nothing speaks against them


@dataclass(frozen=True, kw_only=True)
class Judged:
    """What led to a score."""

    place: Place
    dimension: str
    evidence: Mapping[str, Any]


# Each with what is counted, the bounds within which nothing is to be said, and else the doubt. Bounds are conventions
# that show where a person should look; none is a test.
CHECKS: Mapping[str, tuple[str, float, float, str]] = {
    "unscored": ("scores", 0.0, 0.05, "rewards lack scores"),
    "cut": ("responses", 0.0, 0.05, "judged without their end"),
    "ties": ("pairs", 0.0, 0.5, "hardly separates responses"),  # two random values tie in a half
    "commonest value": ("values", 0.0, 0.8, "nearly constant"),
    "reward against length": ("prompts", -0.5, 0.5, "follows length"),
    "orders that disagree": ("pairs", 0.0, 0.2, "the place decides"),
    "first preferred": ("comparisons", 0.4, 0.6, "a liking for a place"),
    "re-asks": ("calls", 0.0, 0.1, "the judge is hard to read"),
    "votes in one order": ("pairs", 0.8, 1.0, "the judge is unsteady"),
    "agreement with people": ("labels", 0.5, 1.0, "not above chance"),
}


def figure(check: str, of: str, value: float | None, count: int, *, low: float | None = None) -> Figure:
    """Return a figure with its doubt; `low` is the lower end of its interval, where that is what is judged by."""
    _, least, most, doubt = CHECKS[check]
    is_fine = value is None or (least <= value <= most if low is None else low > least)
    rounded = None if value is None else round(value, 4)
    return Figure(check=check, of=of, value=rounded, count=count, doubt="" if is_fine else doubt)


def share(check: str, of: str, part: float, count: int) -> Figure:
    """Return a share as a figure; of nothing there is none."""
    return figure(check, of, part / count if count else None, count)


def separation(name: str, values: Mapping[Place, float]) -> list[Figure]:
    """Return how far a dimension, or the reward, tells responses apart."""
    groups = list(_by_prompt({place: round(value, DECIMALS) for place, value in values.items()}).values())
    pairs = sum(comb(len(group), 2) for group in groups)
    tied = sum(comb(number, 2) for group in groups for number in Counter(group.values()).values())
    counts = Counter(value for group in groups for value in group.values())
    return [
        share("ties", name, tied, pairs),
        share("commonest value", name, max(counts.values(), default=0), counts.total()),
    ]


def against_length(rewarded: Mapping[Place, float], lengths: Mapping[Place, float]) -> Figure:
    """Return how rewards rank with the characters of responses."""
    groups = _by_prompt({place: value for place, value in rewarded.items() if place in lengths}).values()
    ranks = [
        spearman(list(group.values()), [lengths[place] for place in group]) for group in groups if len(group) >= _FEW
    ]
    known = [rank for rank in ranks if rank is not None]
    return figure("reward against length", "reward", fmean(known) if known else None, len(known))


def position_figures(judged: Iterable[Judged]) -> list[Figure]:
    """Return what the order of two texts did to their comparison; nothing where none were compared."""
    # All scores of a prompt keep the same comparisons.
    tournaments = {(each.dimension, each.place[:2]): compared_pairs(each.evidence) for each in judged}
    figures = []
    for name in sorted({name for (name, _), results in tournaments.items() if results}):
        matches = [results for (dimension, _), results in tournaments.items() if dimension == name]
        both = [
            (results[a, b], results[b, a]) for results in matches for a, b in results if a < b and (b, a) in results
        ]
        first = [result for results in matches for result in results.values()]
        figures.append(share("orders that disagree", name, sum(a + b != 1 for a, b in both), len(both)))
        figures.append(share("first preferred", name, sum(first), len(first)))
    return figures


def compared_pairs(evidence: Mapping[str, Any]) -> dict[tuple[int, int], float]:
    """Return the result for the text shown first, by the places of both; of a preference model by its logit's sign."""
    if logits := evidence.get("logits"):
        cells = permutations(range(len(logits)), 2)
        return {(a, b): 0.5 if logits[a][b] == 0 else float(logits[a][b] > 0) for a, b in cells}
    records = (one for one in evidence.get("comparisons", ()) if one.get("value") is not None)
    return {tuple(one["order"]): one["value"] for one in records}


def vote_figures(judged: Iterable[Judged]) -> list[Figure]:
    """Return how far several votes on one score agree; nothing where there is one vote each."""
    sides: dict[str, tuple[dict[Any, float], dict[Any, float]]] = defaultdict(lambda: ({}, {}))
    for each in judged:
        votes = [vote["value"] for vote in each.evidence.get("votes", ())]
        for (a, one), (b, other) in combinations(enumerate(votes), 2):
            if one is not None and other is not None:
                item, prompt, k = each.place  # orders are compared between the same two votes
                for side, value in zip(sides[each.dimension], (one, other), strict=True):
                    side[f"{item} {a} {b}", prompt, k] = value
    compared = {name: agreement(*both) for name, both in sorted(sides.items())}
    return [figure("votes in one order", name, one.same_order, one.pairs) for name, one in compared.items()]


def _by_prompt(values: Mapping[Place, float]) -> dict[tuple[int, int], dict[Place, float]]:
    groups: dict[tuple[int, int], dict[Place, float]] = defaultdict(dict)
    for place, value in values.items():
        groups[place[:2]][place] = value
    return groups
