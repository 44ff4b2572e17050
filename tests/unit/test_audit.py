"""What speaks against rewards, by hand."""

import pytest

from lrq.domain.audit import (
    Figure,
    Judged,
    against_length,
    compared_pairs,
    figure,
    position_figures,
    separation,
    vote_figures,
)


def of_prompt(item: int, *values: float) -> dict[tuple[int, int, int], float]:
    """Return the values of the responses to an item's only prompt."""
    return {(item, 0, k): value for k, value in enumerate(values)}


def judged(item: int, k: int, evidence: dict[str, object]) -> Judged:
    return Judged(response=(item, 0, k), dimension="wit", evidence=evidence)


@pytest.mark.parametrize(
    ("values", "ties", "pairs", "commonest", "count"),
    [
        (of_prompt(1, 5, 5, 7) | of_prompt(2, 5, 5), 0.5, 4, 0.8, 5),  # 1 of 3 pairs and 1 of 1: 2 / 4; 5 in 4 of 5
        (of_prompt(1, 8, 8, 8, 8), 1.0, 6, 1.0, 4),
        (of_prompt(1, 1, 2, 3) | of_prompt(2, 3, 2, 1), 0.0, 6, 0.3333, 6),  # equal ones of two prompts are no pair
        (of_prompt(1, 0.1 + 0.2, 0.3), 1.0, 1, 1.0, 2),  # equal but for floating point
        (of_prompt(1, 4), None, 0, 1.0, 1),
        ({}, None, 0, None, 0),
    ],
)
def test_how_far_a_dimension_separates_responses(
    values: dict[tuple[int, int, int], float], ties: float | None, pairs: int, commonest: float | None, count: int
) -> None:
    """Ties are counted in pairs of responses to one prompt, the commonest value over all responses."""
    tied, common = separation("wit", values)
    assert (tied.value, tied.count, common.value, common.count) == (ties, pairs, commonest, count)
    assert bool(tied.doubt) == (ties is not None and ties > 0.5)
    assert bool(common.doubt) == (commonest is not None and commonest > 0.8)


@pytest.mark.parametrize(
    ("rewards", "lengths", "rank", "prompts"),
    [
        (of_prompt(1, 1, 2, 3), of_prompt(1, 10, 20, 30), 1.0, 1),
        (of_prompt(1, 1, 2, 3), of_prompt(1, 10, 30, 20), 0.5, 1),  # 1 − 6·2 / (3·8)
        # (1 + 0.5) / 2; two responses, and rewards that are all equal, rank nothing
        (
            of_prompt(1, 1, 2, 3) | of_prompt(2, 1, 2, 3) | of_prompt(3, 1, 2) | of_prompt(4, 6, 6, 6),
            of_prompt(1, 1, 2, 3) | of_prompt(2, 1, 3, 2) | of_prompt(3, 1, 2) | of_prompt(4, 1, 2, 3),
            0.75,
            2,
        ),
        # within prompts shorter is better, though the longer prompt has the better rewards
        (of_prompt(1, 3, 2, 1) | of_prompt(2, 9, 8, 7), of_prompt(1, 1, 2, 3) | of_prompt(2, 7, 8, 9), -1.0, 2),
        (of_prompt(1, 1, 2), of_prompt(1, 1, 2), None, 0),
    ],
)
def test_rewards_against_length(
    rewards: dict[tuple[int, int, int], float],
    lengths: dict[tuple[int, int, int], float],
    rank: float | None,
    prompts: int,
) -> None:
    """Spearman's correlation within each prompt, as a mean over prompts."""
    found = against_length(rewards, lengths)
    assert (found.value, found.count) == (rank, prompts)
    assert found.doubt == ("follows length" if rank is not None and abs(rank) > 0.5 else "")


def test_what_the_order_of_two_texts_does() -> None:
    """Of three pairs one is won by whoever is first and one ties in one order alone; firsts win 3.5 of 6."""
    records = [
        {"order": [0, 1], "value": 1.0},
        {"order": [1, 0], "value": 0.0},  # 0 wins both times
        {"order": [0, 2], "value": 1.0},
        {"order": [2, 0], "value": 1.0},  # the first wins
        {"order": [1, 2], "value": 0.5},
        {"order": [2, 1], "value": 0.0},  # a tie, then 1
    ]
    scores = [judged(1, k, {"comparisons": records}) for k in range(3)]  # each keeps the comparisons of all
    disagree, first = position_figures(scores)
    assert (disagree.check, disagree.value, disagree.count) == ("orders that disagree", 0.6667, 3)
    assert disagree.doubt == "the place decides"
    assert (first.check, first.value, first.count, first.doubt) == ("first preferred", 0.5833, 6, "")


def test_comparisons_of_a_preference_model_and_failed_ones() -> None:
    """Logits count by their sign, the row shown first; a comparison that failed is none."""
    assert compared_pairs({"logits": [[0, 2.5], [1.5, 0]]}) == {(0, 1): 1.0, (1, 0): 1.0}
    assert compared_pairs({"logits": [[0, 0.0], [-1.5, 0]]}) == {(0, 1): 0.5, (1, 0): 0.0}
    assert compared_pairs({"comparisons": [{"order": [0, 1], "reason": "unreadable"}]}) == {}
    assert position_figures([judged(1, 0, {"statements": []})]) == []


def test_votes_that_contradict_each_other() -> None:
    """Votes 1 and 2 order (a, b) alike; (a, c) and (b, c) they turn round: 1 of 3. A vote without value is none."""
    votes = {0: (8, 9), 1: (6, 7), 2: (4, 10)}
    scores = [judged(1, k, {"votes": [{"value": float(one)} for one in pair]}) for k, pair in votes.items()]
    (figure_,) = vote_figures(scores)
    assert (figure_.value, figure_.count, figure_.doubt) == (0.3333, 3, "the judge is unsteady")
    missing = judged(1, 3, {"votes": [{"value": 1.0}, {"value": None}]})
    assert vote_figures([*scores, missing]) == [figure_]
    assert vote_figures([judged(1, 0, {})]) == []


@pytest.mark.parametrize(
    ("value", "low", "doubt"),
    [
        (0.7, 0.55, ""),
        (0.7, 0.5, "not above chance"),
        (0.7, 0.4, "not above chance"),
        (None, None, ""),
    ],
)
def test_people_are_judged_by_the_interval(value: float | None, low: float | None, doubt: str) -> None:
    """A share above a half is none to rely on while its interval has the half in it."""
    found = figure("agreement with people", "reward", value, 20, low=low)
    assert found == Figure(check="agreement with people", of="reward", value=value, count=20, doubt=doubt)
