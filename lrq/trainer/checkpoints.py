"""Checkpoints that a kill cannot spoil: one counts only once its marker stands, and the metrics follow it."""

import shutil
from pathlib import Path

import orjson

MARKER = "complete"


def checkpoint_step(path: Path) -> int:
    return int(path.name.removeprefix("checkpoint-"))


def mark_complete(path: Path) -> None:
    """Mark the checkpoint folder `path` as whole, once all processes have written their parts."""
    (path / MARKER).touch()


def last_complete(folder: Path) -> Path | None:
    """Return the newest checkpoint in `folder` that was written to its end; None where there is none."""
    complete = [path for path in folder.glob("checkpoint-*") if (path / MARKER).exists()]
    return max(complete, key=checkpoint_step, default=None)


def remove_torn(folder: Path) -> None:
    """Remove what a kill left half written, so that it is neither resumed from nor counted as a checkpoint kept."""
    for path in folder.glob("checkpoint-*"):
        if not (path / MARKER).exists():
            shutil.rmtree(path)


def rewind_metrics(metrics: Path, step: int) -> None:
    """Drop the lines of the file `metrics` after `step`, and a torn last one: those steps are taken again."""
    if not metrics.exists():
        return
    lines = (line for line in metrics.read_bytes().splitlines(keepends=True) if line.endswith(b"\n"))
    remaining = [line for line in lines if orjson.loads(line)["step"] <= step]
    temporary = metrics.with_suffix(".part")
    temporary.write_bytes(b"".join(remaining))
    temporary.replace(metrics)
