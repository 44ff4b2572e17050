"""A share of the rows that is measured before and after a training, and not trained on."""

import hashlib
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson

from lrq.domain.errors import UsageError


def split(rows: Any, share: float) -> tuple[Any, Any]:
    """Return a data set's rows to train on and those held out; None where `share` is 0.

    Raises UsageError where none is left to train on.
    """
    if not share:
        return rows, None
    chosen = held_out_rows(rows["prompt_ids"], share)
    if len(chosen) == len(rows):
        raise UsageError(f"held_out={share:g} of {len(rows)} rows leaves none to train on: hold out less")
    return rows.select([row for row in range(len(rows)) if row not in chosen]), rows.select(sorted(chosen))


def held_out_rows(prompts: Sequence[Sequence[int]], share: float) -> set[int]:
    """Return the places of a `share` of the rows, at least one; rows of one prompt stay on one side.

    Which they are depends on `prompts`, token ids, alone: the same after a restart, and with rows in another order.
    """
    groups: dict[bytes, list[int]] = {}
    for index, ids in enumerate(prompts):
        groups.setdefault(hashlib.sha256(array("i", ids).tobytes()).digest(), []).append(index)
    count, rows = max(1, round(share * len(prompts))), set[int]()
    for key in sorted(groups):
        if len(rows) >= count:
            break
        rows.update(groups[key])
    return rows


def measurements(path: Path) -> dict[str, dict[str, float]]:
    """Return the first and the last measurement of a training, as `before` and `after`."""
    lines = [orjson.loads(line) for line in path.read_bytes().splitlines()] if path.exists() else []
    ends = {"before": lines[:1], "after": lines[1:][-1:]}
    return {name: {k: v for k, v in line[0].items() if k != "step"} for name, line in ends.items() if line}
