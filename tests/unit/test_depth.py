"""How many more items a budget covers beside those at work."""

import pytest

from lrq.ledger.depth import Expectation, Sized, count_covered


@pytest.mark.parametrize(
    ("left", "begun", "ended", "more"),
    [
        (10**9, [], [], 4),  # nothing is known yet: a few
        (10**9, [0, 5], [], 2),
        (100, [], [10, 10], 10),
        (100, [4, 10], [10, 10], 9),  # 6 to come, and a tenth of 10 of the one that took more
        (9.5, [], [10, 10], 0),
        (24, [], [5, 15], 1),  # a second would begin beside it, and both may take 5 x sqrt(2) more
        (100, [1], [5, 15], 7),  # 9 to come and 7 x 10; they may take 5 x sqrt(8) more
        (-3, [], [10], 0),
    ],
)
def test_what_is_begun_comes_first(left: float, begun: list[float], ended: list[float], more: int) -> None:
    """Left is what the limit has above what is spent; what is begun is expected to take what others took."""
    sized = [[Sized(chars=1, taken=taken) for taken in each] for each in (begun, ended)]
    assert count_covered(left, *sized, [Sized(chars=1)] * 12) == more


def test_long_documents_are_expected_to_take_more() -> None:
    """5 and 1 for each 100 characters, as four that ended say; one is not enough to say it."""
    ended = [Sized(chars=chars, taken=5 + chars / 100) for chars in (1000, 3000, 2000, 500)]
    expected = Expectation(ended)
    assert expected.of(Sized(chars=4000)) == pytest.approx(45)
    assert expected.still(Sized(chars=4000, taken=40)) == pytest.approx(5)
    assert expected.deviation == pytest.approx(0)
    assert Expectation(ended[:1]).of(Sized(chars=4000)) == 15
    waiting = [Sized(chars=1000), Sized(chars=9000), Sized(chars=100)]
    assert count_covered(100, [], ended, waiting) == 1, "no smaller one overtakes while others are at work"


def test_a_further_round_is_expected_to_take_what_the_earlier_ones_did_not() -> None:
    """Two rounds took 20 of those that ended; of one that waits for its second, having taken 10, as much is to come."""
    waiting = [Sized(chars=1, taken=10)] * 6
    assert count_covered(40, [], [Sized(chars=1, taken=20)] * 2, waiting) == 4
