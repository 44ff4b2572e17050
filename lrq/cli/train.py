"""`lrq train`: preference optimisation on a file of pairs, without a queue."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import yaml
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from lrq.domain.errors import UsageError
from lrq.trainer.job import Preflight, Result, make_job, prepare
from lrq.trainer.launch import run

STATUS = {"done": 0, "nothing": 0, "failed": 1, "stopped": 130}
ROWS_SET_ASIDE = 3


@click.command(
    epilog="Example: lrq train pairs.jsonl --model ./policy --output ./better --set beta=0.1 --set zero_stage=3"
)
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--model", required=True, type=click.Path(path_type=Path), help="Folder of the model to start from.")
@click.option("--output", required=True, type=click.Path(path_type=Path), help="Folder for the trained model.")
@click.option(
    "--job", type=click.Path(path_type=Path), help="Folder for checkpoints and metrics.  [default: OUTPUT.job]"
)
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="A setting of the training; repeatable.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def train(file: Path, model: Path, output: Path, job: Path | None, settings: tuple[str, ...], *, as_json: bool) -> None:
    """Train on FILE, a TRL preference file in JSON lines.

    Interrupted, the same command goes on from the last checkpoint.
    """
    wanted = make_job({**read_settings(settings), "model": model, "rows": file, "output": output})
    folder = prepare(job or output.with_name(f"{output.name}.job"), wanted)
    try:
        with _bar() as bar:
            result = run(folder, on_metric=bar.metric, on_stage=bar.stage)
    except KeyboardInterrupt:
        result = folder.load_result() or Result(state="stopped", reason="interrupted")
    click.echo(result.model_dump_json(indent=2) if as_json else _summary(result))
    sys.exit(exit_status(result))


def read_settings(pairs: tuple[str, ...]) -> dict[str, Any]:
    """Values are read as YAML, `none` as nothing; raises UsageError."""
    settings = {}
    for pair in pairs:
        key, separator, value = pair.partition("=")
        if not separator:
            raise UsageError(f"--set wants KEY=VALUE, not {pair!r}")
        settings[key.strip()] = None if value == "none" else yaml.safe_load(value)
    return settings


def exit_status(result: Result) -> int:
    status = STATUS[result.state]
    return ROWS_SET_ASIDE if not status and result.preflight and result.preflight.set_aside else status


class TrainBar:
    """A progress bar on standard error, nothing where that is no terminal."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task = progress.add_task("starting", total=None, figures="")

    def stage(self, stage: Mapping[str, Any]) -> None:
        self._progress.update(
            self._task, description=stage["stage"], completed=stage["done"], total=stage["of"] or None
        )

    def metric(self, metric: Mapping[str, Any]) -> None:
        figures = (
            f"loss {metric['loss']:.3f} margin {metric['margin']:+.2f} {metric['tokens_per_second']:,.0f} tokens/s"
        )
        self._progress.update(
            self._task, description="train", completed=metric["step"], total=metric["of"], figures=figures
        )


@contextmanager
def _bar() -> Iterator[TrainBar]:
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description:>9}"),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TextColumn("{task.fields[figures]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        yield TrainBar(progress)


def _summary(result: Result) -> str:
    rows = result.preflight or Preflight()
    lines = [
        f"Rows: {rows.kept} of {rows.rows} kept, {rows.cut} cut, {rows.dropped} dropped, {rows.set_aside} set aside; "
        f"tokens of prompt and response {rows.total.min} to {rows.total.max}, median {rows.total.median}",
        *(f"  {reason}" for reason in rows.reasons),
    ]
    if result.state == "done":
        last = result.metrics
        lines.append(
            f"Trained {result.steps} steps in {result.seconds:.0f} s: last loss {last['loss']:.4f}, "
            f"margin {last['margin']:+.3f}, pairs in order {last['accuracy']:.0%}"
        )
        return "\n".join([*lines, f"Model: {result.model}"])
    word = {"nothing": "Nothing to train", "failed": "Failed", "stopped": "Stopped"}[result.state]
    return "\n".join([*lines, f"{word}: {result.reason}"])
