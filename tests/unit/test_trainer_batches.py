"""The order of rows where long and short ones are mixed."""

import pytest

pytest.importorskip("torch")

from lrq.trainer.batches import LengthGroups

pytestmark = pytest.mark.torch

LENGTHS = [10] * 40 + [1000] * 8 + [11]


def test_what_runs_together_is_alike_and_each_row_comes_once() -> None:
    """Groups hold rows of like length but where the kinds meet; long ones are spread; the order follows the seed."""
    order = list(LengthGroups(LENGTHS, 4, seed=1))
    assert sorted(order) == list(range(len(LENGTHS)))
    groups = [{LENGTHS[row] > 100 for row in order[at : at + 4]} for at in range(0, len(order), 4)]
    assert sum(len(kinds) > 1 for kinds in groups) <= 1
    assert order == list(LengthGroups(LENGTHS, 4, seed=1))
    assert order != list(LengthGroups(LENGTHS, 4, seed=2))


def test_each_epoch_has_an_order_of_its_own() -> None:
    """The same after a restart: it depends on the epoch's number alone."""
    sampler = LengthGroups(LENGTHS, 2, seed=1)
    first = list(sampler)
    sampler.set_epoch(1)
    second = list(sampler)
    assert first != second
    again = LengthGroups(LENGTHS, 2, seed=1)
    again.set_epoch(1)
    assert list(again) == second
