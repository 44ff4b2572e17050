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

ResponseKey = tuple[int, int, int]  # (item, prompt, k): a response
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

    response: ResponseKey
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
    """Return a figure of the check `check`, with its doubt, `value` rounded to four decimals.

    `of` is a dimension, a kind of call or "reward", `count` what the value is made of. Where `low` is given, the lower
    end of the value's interval, the doubt is judged by it in place of the value.
    """
    _, least, most, doubt = CHECKS[check]
    is_fine = value is None or (least <= value <= most if low is None else low > least)
    rounded = None if value is None else round(value, 4)
    return Figure(check=check, of=of, value=rounded, count=count, doubt="" if is_fine else doubt)


def share(check: str, of: str, part: float, count: int) -> Figure:
    """Return the share `part` / `count` as a figure; its value is None where `count` is 0."""
    return figure(check, of, part / count if count else None, count)


def separation(name: str, values: Mapping[ResponseKey, float]) -> list[Figure]:
    """Return how far the `values` of the dimension `name`, or of "reward", tell the responses of a prompt apart."""
    groups = list(_by_prompt({key: round(value, DECIMALS) for key, value in values.items()}).values())
    pairs = sum(comb(len(group), 2) for group in groups)
    tied = sum(comb(number, 2) for group in groups for number in Counter(group.values()).values())
    counts = Counter(value for group in groups for value in group.values())
    return [
        share("ties", name, tied, pairs),
        share("commonest value", name, max(counts.values(), default=0), counts.total()),
    ]


def against_length(rewarded: Mapping[ResponseKey, float], lengths: Mapping[ResponseKey, float]) -> Figure:
    """Return Spearman's correlation of rewards with lengths in characters, the mean over prompts of three responses.

    Responses without an entry in `lengths` are left out.
    """
    groups = _by_prompt({key: value for key, value in rewarded.items() if key in lengths}).values()
    ranks = [spearman(list(group.values()), [lengths[key] for key in group]) for group in groups if len(group) >= _FEW]
    correlations = [rank for rank in ranks if rank is not None]
    mean = fmean(correlations) if correlations else None
    return figure("reward against length", "reward", mean, len(correlations))


def position_figures(judged: Iterable[Judged]) -> list[Figure]:
    """Return what the order of two texts did to their comparison; nothing where none were compared."""
    # All scores of a prompt keep the same comparisons.
    tournaments = {(score.dimension, score.response[:2]): compared_pairs(score.evidence) for score in judged}
    figures = []
    for name in sorted({name for (name, _), results in tournaments.items() if results}):
        matches = [results for (dimension, _), results in tournaments.items() if dimension == name]
        sums = [results[a, b] + results[b, a] for results in matches for a, b in results if a < b and (b, a) in results]
        first = [result for results in matches for result in results.values()]
        figures.append(share("orders that disagree", name, sum(total != 1 for total in sums), len(sums)))
        figures.append(share("first preferred", name, sum(first), len(first)))
    return figures


def compared_pairs(evidence: Mapping[str, Any]) -> dict[tuple[int, int], float]:
    """Return the results of a tournament: (a, b) → 1 where a, shown first, beat b, 0 where it lost, ½ for a tie.

    `evidence` is a score's; a preference model's results are the signs of its logits.
    """
    if logits := evidence.get("logits"):
        cells = permutations(range(len(logits)), 2)
        return {(a, b): 0.5 if logits[a][b] == 0 else float(logits[a][b] > 0) for a, b in cells}
    records = (record for record in evidence.get("comparisons", ()) if record.get("value") is not None)
    return {tuple(record["order"]): record["value"] for record in records}


def vote_figures(judged: Iterable[Judged]) -> list[Figure]:
    """Return how far several votes on one score agree; nothing where there is one vote each."""
    sides: dict[str, tuple[dict[Any, float], dict[Any, float]]] = defaultdict(lambda: ({}, {}))
    for score in judged:
        item, prompt, k = score.response
        votes = [vote["value"] for vote in score.evidence.get("votes", ())]
        for (a, first), (b, second) in combinations(enumerate(votes), 2):
            if first is not None and second is not None:
                key = (f"{item} {a} {b}", prompt, k)  # orders are compared between the same two votes
                for side, value in zip(sides[score.dimension], (first, second), strict=True):
                    side[key] = value
    agreements = [(name, agreement(*votes)) for name, votes in sorted(sides.items())]
    return [figure("votes in one order", name, pairs.same_order, pairs.pairs) for name, pairs in agreements]


def _by_prompt(values: Mapping[ResponseKey, float]) -> dict[tuple[int, int], dict[ResponseKey, float]]:
    groups: dict[tuple[int, int], dict[ResponseKey, float]] = defaultdict(dict)
    for key, value in values.items():
        groups[key[:2]][key] = value
    return groups
