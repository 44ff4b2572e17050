"""How far two judgements of the same responses agree: differences, ranks, order within an item. No I/O."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, groupby
from statistics import correlation, fmean

Response = tuple[str, int, int]  # item's id, prompt, k
Values = Mapping[Response, float]


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Of the responses that both have a value for. None where there is too little to say."""

    count: int
    mean: float | None = None  # of the first
    other_mean: float | None = None
    difference: float | None = None  # mean of other minus first
    absolute_difference: float | None = None
    rank_correlation: float | None = None  # Spearman's, over all responses
    pairs: int = 0  # of responses of one item that both put in an order
    same_order: float | None = None  # the share of these pairs with the same order in both


def agreement(first: Values, other: Values) -> Agreement:
    """Compare the responses that both `first` and `other` have a value for; without any, all but `count` is None."""
    common = sorted(first.keys() & other.keys())
    if not common:
        return Agreement(count=0)
    xs, ys = [first[name] for name in common], [other[name] for name in common]
    prompts = groupby(zip(common, xs, ys, strict=True), key=lambda entry: entry[0][:2])
    pairs = [pair for _, entries in prompts for pair in combinations(entries, 2)]
    same = [(x1 < x2) == (y1 < y2) for (_, x1, y1), (_, x2, y2) in pairs if x1 != x2 and y1 != y2]
    return Agreement(
        count=len(common),
        mean=fmean(xs),
        other_mean=fmean(ys),
        difference=fmean(y - x for x, y in zip(xs, ys, strict=True)),
        absolute_difference=fmean(abs(y - x) for x, y in zip(xs, ys, strict=True)),
        rank_correlation=spearman(xs, ys),
        pairs=len(same),
        same_order=fmean(same) if same else None,
    )


def spearman(xs: Sequence[float], ys: Sequence[float]) -> float | None:
    """Return the rank correlation of `xs[i]` and `ys[i]`, ties at the mean of their ranks.

    None where there are fewer than two, or one side is constant.
    """
    if len(xs) < 2 or len(set(xs)) == 1 or len(set(ys)) == 1:
        return None
    return correlation(_ranks(xs), _ranks(ys))


def _ranks(values: Sequence[float]) -> list[float]:
    order = sorted(range(len(values)), key=values.__getitem__)
    ranks = [0.0] * len(values)
    begin = 0
    for _, tied in groupby(order, key=values.__getitem__):
        places = list(tied)
        for index in places:
            ranks[index] = begin + (len(places) - 1) / 2
        begin += len(places)
    return ranks
