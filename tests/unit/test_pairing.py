"""Best against worst."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrq.domain.pairing import best_against_worst
from lrq.domain.records import NoRow, Pair, Reward


def pair(values: list[float | None], texts: str = "abcdefghij", **settings: Any) -> Pair | NoRow:
    """Rewards by k, and one letter of text per response."""
    rewards = [Reward(k=k, value=value) for k, value in enumerate(values)]
    return best_against_worst(rewards, dict(enumerate(texts)), **settings)


def test_the_highest_reward_is_chosen_over_the_lowest() -> None:
    """The margin is the difference of the two rewards."""
    assert pair([5, 7.5, 6, 2, 3]) == Pair(chosen=1, rejected=3, margin=5.5)


def test_the_lowest_k_wins_among_equals() -> None:
    """Ties at either end are broken the same way on every machine, whatever the order of the rewards."""
    rewards = [Reward(k=k, value=value) for k, value in enumerate([4, 9, 1, 9, 1])]
    expected = Pair(chosen=1, rejected=2, margin=8)
    assert best_against_worst(rewards[::-1], dict(enumerate("abcde"))) == expected


def test_rounding_of_a_mean_decides_nothing() -> None:
    """0.1 + 0.2 is a hair above 0.3 in floating point, and yet k = 0 stays the first of the best."""
    assert pair([0.3, 0.1 + 0.2, 0.2, 0.2, 0.1]) == Pair(chosen=0, rejected=4, margin=0.2)


def test_unscored_responses_neither_count_nor_win() -> None:
    """Four scored of six are too few; with a fifth there is a pair among the scored alone."""
    assert pair([None, 8, 7, 6, None, 5]) == NoRow(reason="4 of 6 responses scored, 5 needed")
    assert pair([None, 8, 7, 6, 3, 5]) == Pair(chosen=1, rejected=4, margin=5)


def test_repeats_count_towards_the_five() -> None:
    """Five scored responses with two texts suffice."""
    assert pair([6, 6, 6, 6, 4], "aaaab") == Pair(chosen=0, rejected=4, margin=2)


def test_one_text_alone_makes_no_pair() -> None:
    """Chosen and rejected would be the same answer."""
    assert pair([6, 6, 6, 6, 5], "aaaaa") == NoRow(reason="all scored responses have the same text")


def test_equal_rewards_make_no_pair() -> None:
    """Rounding of a mean is not a difference: 0.1 + 0.2 equals 0.3."""
    assert pair([0.3, 0.1 + 0.2, 0.3, 0.3, 0.3]) == NoRow(reason="best and worst have the same reward, 0.3")


def test_a_margin_under_the_setting_makes_no_pair() -> None:
    """The margin itself may be as small as the setting, not smaller."""
    assert pair([5, 5.4, 5, 5, 5], min_margin=0.5) == NoRow(reason="margin 0.4 is under 0.5")
    assert pair([5, 5.5, 5, 5, 5], min_margin=0.5) == Pair(chosen=1, rejected=0, margin=0.5)


def test_a_worst_that_repeats_the_best_gives_way_to_the_next_text() -> None:
    """If the judge scored one text twice and differently, the worst of the other texts is rejected."""
    assert pair([9, 1, 4, 5, 6], "aabcd") == Pair(chosen=0, rejected=2, margin=5)


@pytest.mark.parametrize("values", [[], [None, None], [None] * 10])
def test_nothing_scored_makes_no_pair(values: list[float | None]) -> None:
    """Not even if the setting asks for none."""
    assert isinstance(pair(values, min_scored=0), NoRow)


@given(
    st.lists(
        st.tuples(st.one_of(st.none(), st.sampled_from([0.0, 2.5, 5.0, 10.0])), st.sampled_from("abc")), max_size=12
    ),
    st.integers(1, 6),
    st.sampled_from([0.0, 1.0, 5.0]),
)
def test_a_pair_is_always_sound(responses: list[tuple[float | None, str]], min_scored: int, min_margin: float) -> None:
    """Both sides are scored, their texts differ, nobody beats the chosen, and the margin is positive and as asked."""
    values = [value for value, _ in responses]
    texts = "".join(text for _, text in responses)
    row = pair(values, texts, min_scored=min_scored, min_margin=min_margin)
    if isinstance(row, NoRow):
        assert row.reason
        return
    chosen, rejected = values[row.chosen], values[row.rejected]
    assert chosen is not None
    assert rejected is not None
    assert chosen == max(value for value in values if value is not None)
    assert texts[row.chosen] != texts[row.rejected]
    assert row.margin == chosen - rejected >= max(min_margin, 1e-9)
    assert sum(value is not None for value in values) >= min_scored


def test_unfit_responses_are_never_chosen_and_may_be_rejected() -> None:
    """The best of those that have an end is chosen; what was cut may be the worst."""
    assert pair([9, 8, 7, 3, 1], unfit={0, 4}) == Pair(chosen=1, rejected=4, margin=7)
    reason = "all 5 scored responses were cut by max_new_tokens"
    assert pair([9, 8, 7, 3, 1], unfit=range(5)) == NoRow(reason=reason)


def test_an_unfit_response_that_is_better_makes_no_pair() -> None:
    """Where only cut responses have more reward than the one with an end, nothing is preferred."""
    assert pair([9, 8, 7, 5, 1], unfit={0, 1, 2, 3}) == NoRow(
        reason="only responses that were cut by max_new_tokens are better"
    )
