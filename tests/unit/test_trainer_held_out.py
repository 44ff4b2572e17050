"""Rows held out of a training."""

from typing import Any

import pytest

pytest.importorskip("torch")

from datasets import Dataset

from lrq.domain.errors import UsageError
from lrq.trainer.held_out import held_out_rows, split


def test_a_share_of_the_rows_is_held_out_by_prompt() -> None:
    """As many as asked for, the same in any order, and never a prompt on both sides."""
    prompts = [[number // 2, 7] for number in range(40)]  # two rows of each
    chosen = held_out_rows(prompts, 0.25)
    assert len(chosen) == 10
    assert all(place ^ 1 in chosen for place in chosen)
    backward = held_out_rows(prompts[::-1], 0.25)
    assert {tuple(prompts[::-1][place]) for place in backward} == {tuple(prompts[place]) for place in chosen}


@pytest.mark.parametrize(("share", "trained", "held"), [(0.0, 4, None), (0.01, 3, 1), (0.5, 2, 2)])
def test_what_is_held_out_is_not_trained_on(share: float, trained: int, held: int | None) -> None:
    """At least one row where a share is asked for; none at all where it is not."""
    rows: Any = Dataset.from_list([{"prompt_ids": [number]} for number in range(4)])
    kept, out = split(rows, share)
    assert (len(kept), out and len(out)) == (trained, held)


def test_something_must_be_left_to_train_on() -> None:
    """One prompt in all cannot be on both sides."""
    with pytest.raises(UsageError, match="leaves none to train on"):
        split(Dataset.from_list([{"prompt_ids": [1]}, {"prompt_ids": [1]}]), 0.5)
