"""How far a judge's scores agree with reference scores (EvalYaks, arXiv 2408.12226, section 4; kappa: Cohen 1968).

Each item has one whole-numbered score for each criterion, on a scale such as 1 to 5.
"""

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, product
from typing import Any, Literal

Scores = Sequence[int]  # of one item, by criterion
Category = Literal["accurate", "partly accurate", "acceptable", "inaccurate"]
CATEGORIES: tuple[Category, ...] = ("accurate", "partly accurate", "acceptable", "inaccurate")
_MOST_CONSTANTS = 10_000  # that are tried: five criteria of five scores have 3,125


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Predictions against references over N items."""

    items: int
    counts: Mapping[Category, int]
    variation: float  # mean of |reference − predicted| over items and criteria
    kappa: Sequence[float]  # quadratic weighted, by criterion, in [−1, 1]

    @property
    def accurate(self) -> float:
        """Share of items in which every criterion agrees."""
        return self.counts["accurate"] / self.items

    @property
    def acceptable(self) -> float:
        """Acceptable accuracy: the share of items that are not inaccurate."""
        return 1 - self.counts["inaccurate"] / self.items


def category(reference: Scores, predicted: Scores) -> Category:
    """Return the category of an item's `predicted` scores, each a whole number, against its `reference` scores.

    The first that holds: all criteria equal; one at least; all within 1 and in one direction; none of it.
    """
    deviations = [b - a for a, b in zip(reference, predicted, strict=True)]
    if not any(deviations):
        return "accurate"
    if not all(deviations):
        return "partly accurate"
    return "acceptable" if set(deviations) in ({1}, {-1}) else "inaccurate"


def compare(references: Sequence[Scores], predictions: Sequence[Scores]) -> Agreement:
    """Compare predictions with references, item by item. Raises ValueError where there are none, or not as many."""
    if not references:
        raise ValueError("there is nothing to compare")
    return _compare_counted(_count_pairs(references, predictions))


_Pair = tuple[tuple[int, ...], tuple[int, ...]]  # reference and predicted scores of an item


def _count_pairs(references: Sequence[Scores], predictions: Sequence[Scores]) -> Counter[_Pair]:
    return Counter((tuple(a), tuple(b)) for a, b in zip(references, predictions, strict=True))


@lru_cache(maxsize=100_000)
def _rate(pair: _Pair) -> tuple[Category, int]:
    """Return the category of an item and its sum of absolute deviations."""
    return category(*pair), sum(abs(a - b) for a, b in zip(*pair, strict=True))


def _compare_counted(pairs: Mapping[_Pair, int]) -> Agreement:
    """Compare items of which equal ones are counted."""
    counts: Counter[Category] = Counter()
    columns = [Counter[tuple[int, int]]() for _ in next(iter(pairs))[0]]  # by criterion
    deviation = 0
    for pair, count in pairs.items():
        name, sum_of_deviations = _rate(pair)
        counts[name] += count
        deviation += count * sum_of_deviations
        for column, scores in zip(columns, zip(*pair, strict=True), strict=True):
            column[scores] += count
    items, criteria = sum(pairs.values()), len(columns)
    return Agreement(
        items=items,
        counts={name: counts[name] for name in CATEGORIES},
        variation=deviation / (criteria * items),
        kappa=[_kappa(column) for column in columns],
    )


def _kappa(pairs: Mapping[tuple[int, int], int]) -> float:
    """Return Cohen's kappa with quadratic weights: 1 − Σ w·observed / Σ w·expected; 1.0 where both are one constant.

    pairs: (reference, prediction) → how often they met.
    """
    items = sum(pairs.values())
    rows, columns = Counter[int](), Counter[int]()
    for (a, b), count in pairs.items():
        rows[a] += count
        columns[b] += count
    observed = sum(count * (a - b) ** 2 for (a, b), count in pairs.items()) / items
    expected = sum(rows[a] * columns[b] * (a - b) ** 2 for a in rows for b in columns) / items**2
    return 1 - observed / expected if expected else 1.0


def best_constant(references: Sequence[Scores], scale: Sequence[int]) -> tuple[tuple[int, ...], Agreement]:
    """Return the scores that a judge who always says the same would say best, and how far they agree.

    Best by acceptable accuracy, then by accurate ones, then by the smaller variation. `scale` lists the scores that
    there are. Where they have more than 10,000 combinations, a constant has the same score for every criterion.
    """
    counts = Counter(map(tuple, references))
    criteria = len(references[0])
    is_small = len(scale) ** criteria <= _MOST_CONSTANTS
    candidates = product(scale, repeat=criteria) if is_small else ((score,) * criteria for score in scale)
    rated = [(scores, _compare_counted({(item, scores): n for item, n in counts.items()})) for scores in candidates]
    return max(rated, key=lambda pair: (pair[1].acceptable, pair[1].accurate, -pair[1].variation))


def bootstrap_intervals(
    references: Sequence[Scores], predictions: Sequence[Scores], *, resamples: int = 1000, seed: int = 0
) -> dict[str, Any]:
    """Return 95 % intervals (low, high) over items drawn `resamples` times with replacement (Efron 1979, percentiles).

    `accurate`, `acceptable` and `variation` have one each, `kappa` has one for each criterion.
    """
    generator = random.Random(seed)
    counts = _count_pairs(references, predictions)
    pairs, ends = list(counts), list(accumulate(counts.values()))
    samples = [
        _compare_counted(Counter(generator.choices(pairs, cum_weights=ends, k=len(references))))
        for _ in range(resamples)
    ]
    return {
        "accurate": _percentiles([sample.accurate for sample in samples]),
        "acceptable": _percentiles([sample.acceptable for sample in samples]),
        "variation": _percentiles([sample.variation for sample in samples]),
        "kappa": [_percentiles(values) for values in zip(*(sample.kappa for sample in samples), strict=True)],
    }


def _percentiles(values: Sequence[float]) -> tuple[float, float]:
    ordered = sorted(values)
    return ordered[int(0.025 * len(ordered))], ordered[min(len(ordered) - 1, int(0.975 * len(ordered)))]


def wilson_interval(successes: int, count: int) -> tuple[float, float]:
    """Return the 95 % interval (low, high) of the share `successes` / `count` (Wilson 1927).

    It is honest for few trials and for shares near 0 and 1. `count` is at least 1.
    """
    z = 1.959964
    share, square = successes / count, z * z / count
    middle = (share + square / 2) / (1 + square)
    half = z / (1 + square) * (share * (1 - share) / count + square / (4 * count)) ** 0.5
    low, high = middle - half, middle + half
    return 0.0 if successes == 0 else low, 1.0 if successes == count else high
