"""How far a judge's scores agree with reference scores (EvalYaks, arXiv 2408.12226, section 4; kappa: Cohen 1968).

Each item has one whole-numbered score for each criterion, on a scale such as 1 to 5.
"""

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from statistics import fmean
from typing import Literal

Scores = Sequence[int]  # of one item, by criterion
Category = Literal["accurate", "partly accurate", "acceptable", "inaccurate"]
CATEGORIES: tuple[Category, ...] = ("accurate", "partly accurate", "acceptable", "inaccurate")


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
    """Return the first that holds: all criteria equal; one at least; all within 1 and in one direction; none of it."""
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
    pairs = list(zip(references, predictions, strict=True))
    counts = Counter(category(reference, predicted) for reference, predicted in pairs)
    variation = fmean(abs(a - b) for pair in pairs for a, b in zip(*pair, strict=True))
    columns = zip(zip(*references, strict=True), zip(*predictions, strict=True), strict=True)
    return Agreement(
        items=len(pairs),
        counts={name: counts[name] for name in CATEGORIES},
        variation=variation,
        kappa=[quadratic_kappa(a, b) for a, b in columns],
    )


def quadratic_kappa(references: Sequence[int], predictions: Sequence[int]) -> float:
    """Return Cohen's kappa with quadratic weights: 1 − Σ w·observed / Σ w·expected; 1.0 where both are one constant."""
    count = len(references)
    observed = sum((a - b) ** 2 for a, b in zip(references, predictions, strict=True)) / count
    rows, columns = Counter(references), Counter(predictions)
    expected = sum(rows[a] * columns[b] * (a - b) ** 2 for a in rows for b in columns) / count**2
    return 1 - observed / expected if expected else 1.0


def best_constant(references: Sequence[Scores], scale: Sequence[int]) -> tuple[tuple[int, ...], Agreement]:
    """Return the scores that a judge who always says the same would say best, and how far they agree.

    Best by acceptable accuracy, then by accurate ones, then by the smaller variation.
    """
    candidates = product(scale, repeat=len(references[0]))
    rated = [(scores, compare(references, [scores] * len(references))) for scores in candidates]
    return max(rated, key=lambda one: (one[1].acceptable, one[1].accurate, -one[1].variation))


def bootstrap_interval(
    references: Sequence[Scores],
    predictions: Sequence[Scores],
    figure: Callable[[Agreement], float],
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> tuple[float, float]:
    """Return the 95 % interval of a figure over items drawn again with replacement (Efron 1979, percentiles)."""
    generator, count = random.Random(seed), len(references)
    values = []
    for _ in range(resamples):
        drawn = generator.choices(range(count), k=count)
        values.append(figure(compare([references[n] for n in drawn], [predictions[n] for n in drawn])))
    values.sort()
    return values[int(0.025 * resamples)], values[min(resamples - 1, int(0.975 * resamples))]


def wilson_interval(successes: int, count: int) -> tuple[float, float]:
    """Return the 95 % interval of a share (Wilson 1927): honest for few trials and for shares near 0 and 1."""
    z = 1.959964
    share, square = successes / count, z * z / count
    middle = (share + square / 2) / (1 + square)
    half = z / (1 + square) * (share * (1 - share) / count + square / (4 * count)) ** 0.5
    low, high = middle - half, middle + half
    return 0.0 if successes == 0 else low, 1.0 if successes == count else high
