"""`lrq train`: preference optimisation on a file of pairs, without a queue."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import yaml
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from lrq.cli.terminal import console, echo, echo_json
from lrq.config import load_settings
from lrq.domain.errors import UsageError
from lrq.domain.printable import one_line
from lrq.ledger import open_ledger
from lrq.ledger.runs import get_run
from lrq.operations.results import write_results
from lrq.recipes import load_recipe
from lrq.trainer.files import find_rows, is_file_of_rows
from lrq.trainer.job import make_job
from lrq.trainer.job_folder import Preflight, Result, prepare
from lrq.trainer.launch import run
from lrq.trainer.loss_names import loss_settings
from lrq.workers.trainer import about, run_folder, train_settings

STATUS = {"done": 0, "nothing": 0, "failed": 1, "stopped": 130}
UNREADABLE = 1
ROWS_SET_ASIDE = 3


@click.command(
    epilog="Example: lrq train pairs.jsonl --model ./policy --output ./better --set beta=0.1 --set zero_stage=3"
)
@click.argument("source", metavar="RUN|FILE")
@click.option(
    "--model",
    type=click.Path(path_type=Path),
    help="Folder to start from, or a name in the local hub cache.  [default: the run's policy]",
)
@click.option("--output", type=click.Path(path_type=Path), help="Folder for the model.  [default: runs/RUN/model]")
@click.option(
    "--job", type=click.Path(path_type=Path), help="Folder for checkpoints and metrics.  [default: OUTPUT.job]"
)
@click.option("--adapter", type=click.Choice(["lora"]), help="Train low-rank matrices beside the weights.")
@click.option("--loss", metavar="NAME", help="With this loss or sum of losses, e.g. sppo, dpo:beta=0.1+0.1*sft.")
@click.option("--merge", is_flag=True, help="Save a whole model, the adapter added to its base.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="A setting of the training; repeatable.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def train(
    source: str,
    model: Path | None,
    output: Path | None,
    job: Path | None,
    adapter: str | None,
    loss: str | None,
    settings: tuple[str, ...],
    *,
    merge: bool,
    as_json: bool,
) -> None:
    """Train on FILE or on the pairs of a finished RUN.

    FILE is any preference file that TRL reads: JSON lines or Parquet, compressed or in a folder, or the name of a data
    set in the local hub cache. Interrupted, the same command goes on from the last checkpoint.
    """
    values: dict[str, Any] = {"model": model, "rows": Path(source), "output": output}
    if is_file_of_rows(source):
        find_rows(Path(source))
    else:
        values = _of_run(source, model) | {name: value for name, value in values.items() if value and name != "rows"}
    values |= loss_settings(loss) if loss else {}
    values |= {name: value for name, value in (("adapter", adapter), ("merge", merge)) if value}
    for name in ("model", "output"):
        if values[name] is None:
            raise UsageError(f"say with --{name} which folder: {source} names none")
    checked = make_job({**values, **read_settings(settings)})
    folder = prepare(job or checked.output.with_name(f"{checked.output.name}.job"), checked)
    try:
        with _bar() as bar:
            result = run(folder, on_metric=bar.metric, on_stage=bar.stage)
    except KeyboardInterrupt:
        result = folder.load_result() or Result(state="stopped", reason="interrupted")
    if as_json:
        echo_json(result.model_dump(mode="json"))
    else:
        echo(_summary(result), lines=True)
    sys.exit(exit_status(result))


def _of_run(name: str, model: Path | None = None) -> dict[str, Any]:
    """Return the pairs, policy, output folder and training settings of a run; raises UsageError."""
    settings = load_settings()
    ledger = open_ledger(settings)
    with ledger.read() as tx:
        run = get_run(tx, name)
    if run.state != "done":
        raise UsageError(f"run {name} is {run.state}: its pairs are not complete; `lrq resume {name}` goes on")
    pairs = next(path for path in write_results(ledger, settings, run, model) if path.stem == "pairs")
    policy = run.config["policy"]["path"]
    training = train_settings(run.config["train"] or load_recipe(run.recipe).loss)
    output = run_folder(settings.home, name) / "model"
    job = {**training, "about": about(name, run.config)}
    return {"model": Path(policy) if policy else None, "rows": pairs, "output": output, **job}


def read_settings(pairs: tuple[str, ...]) -> dict[str, Any]:
    """Return --set flags, KEY=VALUE each, as a mapping; values are read as YAML, `none` as nothing.

    Raises UsageError where one has no `=`.
    """
    settings = {}
    for pair in pairs:
        key, separator, value = pair.partition("=")
        if not separator:
            raise UsageError(f"--set wants KEY=VALUE, not {pair!r}")
        settings[key.strip()] = None if value == "none" else yaml.safe_load(value)
    return settings


def exit_status(result: Result) -> int:
    """Return the exit code of a training: that of its `state`, or of rows that were set aside where it went well."""
    status = STATUS[result.state]
    if result.state == "nothing" and "rows can be read" in result.reason:
        return UNREADABLE
    return ROWS_SET_ASIDE if not status and result.preflight and result.preflight.set_aside else status


class TrainBar:
    """A progress bar on standard error, nothing where that is no terminal."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task = progress.add_task("starting", total=None, figures="")

    def stage(self, stage: Mapping[str, Any]) -> None:
        """Show how far a stage of preparing is: `stage`, `done` and `of`, 0 where that is not known."""
        self._progress.update(
            self._task, description=stage["stage"], completed=stage["done"], total=stage["of"] or None
        )

    def metric(self, metric: Mapping[str, Any]) -> None:
        """Show a training step's figures, as the trainer's metrics have them."""
        figures = f"{_figures(metric)}, {metric['tokens_per_second']:,.0f} tokens/s"
        self._progress.update(
            self._task, description="train", completed=metric["step"], total=metric["of"], figures=figures
        )


@contextmanager
def _bar() -> Iterator[TrainBar]:
    shown = console(err=True)
    columns = (
        TextColumn("{task.description:>9}"),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TextColumn("{task.fields[figures]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=shown, disable=not shown.is_terminal) as progress:
        yield TrainBar(progress)


def _figures(figures: Mapping[str, Any]) -> str:
    if figures.get("margin") is None:  # nothing is rejected
        return f"loss {figures['loss']:.4f}"
    share = f" ({figures['sppo_share']:.4f} of (½/β)²)" if "sppo_share" in figures else ""
    return (
        f"loss {figures['loss']:.4f}{share}, margin {figures['margin']:+.3f}, pairs in order {figures['accuracy']:.0%}"
    )


def _summary(result: Result) -> str:
    rows = result.preflight or Preflight()
    lines = [
        f"Rows: {rows.kept} of {rows.rows} kept, {rows.cut} cut, {rows.dropped} dropped, {rows.set_aside} set aside; "
        f"tokens of prompt and response {rows.total.min} to {rows.total.max}, median {rows.total.median}",
        *(f"  {one_line(reason)}" for reason in rows.reasons),
        *(f"  note: {one_line(note)}" for note in rows.notes),
    ]
    if rows.shared_prefix not in {"", "yes"}:
        lines.append(f"Prompts were encoded twice, not shared: {rows.shared_prefix}")
    if result.state == "done":
        lines.append(
            f"Trained {result.steps} steps in {result.seconds:.0f} s: last {_figures(result.metrics)}, "
            f"{result.tokens / max(result.seconds, 0.1):,.0f} tokens/s"
        )
        lines += [f"Held out, {name}: {_figures(figures)}" for name, figures in result.held_out.items()]
        return "\n".join([*lines, f"Model: {result.model}"])
    word = {"nothing": "Nothing to train", "failed": "Failed", "stopped": "Stopped"}[result.state]
    return "\n".join([*lines, f"{word}: {one_line(result.reason)}"])
