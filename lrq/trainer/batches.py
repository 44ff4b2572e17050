"""The order in which rows are trained, where long and short ones are mixed: those that run together are alike."""

from collections.abc import Iterator, Sequence

import torch

POOL = 50  # groups whose rows are sorted among each other


class LengthGroups(torch.utils.data.Sampler[int]):  # type: ignore[misc]
    """Draws rows at random in groups of like lengths; the order is a function of seed and epoch alone.

    A group is what runs at the same time: one micro batch on each process. Groups come in random order, so that a step
    has long and short ones.
    """

    def __init__(self, lengths: Sequence[int], group: int, seed: int) -> None:
        self._lengths, self._group, self._seed = lengths, group, seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by the training loop."""
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._lengths)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self._seed + self._epoch)
        permutation: list[int] = torch.randperm(len(self._lengths), generator=generator).tolist()
        groups: list[list[int]] = []
        for start in range(0, len(permutation), POOL * self._group):
            pool = sorted(permutation[start : start + POOL * self._group], key=lambda row: self._lengths[row])
            groups += [pool[first : first + self._group] for first in range(0, len(pool), self._group)]
        short = [groups.pop()] if len(groups[-1]) < self._group else []  # a group that is not full comes last
        order = torch.randperm(len(groups), generator=generator).tolist()
        return (row for group in [*(groups[index] for index in order), *short] for row in group)
