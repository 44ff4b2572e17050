"""Pairwise comparisons of K responses, and the win rates that come of them (SPPO, arXiv 2405.00675, section 4)."""

from collections.abc import Mapping, Sequence
from itertools import combinations, permutations
from math import exp
from statistics import fmean
from typing import TypeVar

K = TypeVar("K")
Matrix = Sequence[Sequence[float]]  # K × K; [i][j] is the probability, in [0, 1], that response i beats response j

DECIMALS = 9  # probabilities that differ further behind the point are equal


def preference_matrix(asked: Mapping[tuple[int, int], float], count: int) -> list[list[float]]:
    """Return P with P[i][j] + P[j][i] = 1 and ½ on the diagonal.

    Args:
        asked: (i, j) → probability that i beats j when i was shown first. A pair asked in both orders counts by the
            mean of the two, so that a judge's liking for a place cancels out.
        count: K, how many responses there are.

    Raises ValueError where a pair was asked in neither order.
    """
    matrix = [[0.5] * count for _ in range(count)]
    for i, j in combinations(range(count), 2):
        values = [asked[i, j]] if (i, j) in asked else []
        values += [1 - asked[j, i]] if (j, i) in asked else []
        if not values:
            raise ValueError(f"responses {i} and {j} were not compared")
        matrix[i][j] = fmean(values)
        matrix[j][i] = 1 - matrix[i][j]
    return matrix


def win_rates(matrix: Matrix) -> list[float]:
    """Return the mean of each row of `matrix`: how likely a response beats one of all K, itself included (½)."""
    return [fmean(row) for row in matrix]


def logit_matrix(logits: Matrix) -> list[list[float]]:
    """Return P from `logits`, K × K, of a preference model that is shown i before j.

    Both orders are averaged in probability (the paper's P = σ(s)).
    """
    count = len(logits)
    preferences = {(i, j): sigmoid(logits[i][j]) for i in range(count) for j in range(count) if i != j}
    return preference_matrix(preferences, count)


def collapsed_matrix(logits: Matrix) -> list[list[float]]:
    """Return P as the authors' released code makes it: σ of the difference of s_i = mean_j(l_ij − l_ji).

    A consistent difference of `logits` counts twice, P_ij depends on the other responses, and cycles become ties.
    """
    count = range(len(logits))
    means = [fmean(logits[i][j] - logits[j][i] for j in count) for i in count]
    return [[sigmoid(a - b) for b in means] for a in means]


def sigmoid(logit: float) -> float:
    """Return 1 / (1 + e^−x), without overflow."""
    return 1 / (1 + exp(-logit)) if logit >= 0 else 1 - 1 / (1 + exp(logit))


def reward_logits(rewards: Sequence[float]) -> list[list[float]]:
    """Return the K × K logits of a Bradley-Terry model: of i over j the difference of their `rewards`."""
    return [[a - b for b in rewards] for a in rewards]


def reward_matrix(rewards: Sequence[float]) -> list[list[float]]:
    """Return the K × K matrix in which the higher of the `rewards` beats the lower, and equal ones tie."""
    return [[0.5 if a == b else float(a > b) for b in rewards] for a in rewards]


def rates_by_reward(rewards: Mapping[K, float]) -> dict[K, float]:
    """Return the win rate of each of a prompt's responses among all of them, itself included, by their `rewards`."""
    return dict(zip(rewards, win_rates(reward_matrix(list(rewards.values()))), strict=True))


def cycles(matrix: Matrix) -> list[tuple[int, int, int]]:
    """Return the triples (i, j, k) of `matrix` in which i beats j beats k beats i, each once: no ranking fits them."""

    def beats(i: int, j: int) -> bool:
        return round(matrix[i][j], DECIMALS) > 0.5

    triples = combinations(range(len(matrix)), 3)
    rings = ((i, *path) for i, *others in triples for path in permutations(others))
    return [(i, j, k) for i, j, k in rings if beats(i, j) and beats(j, k) and beats(k, i)]
