"""lrq export: pairs and scores in the forms other tools read."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import orjson

from lrq.cli.common import settings_options
from lrq.cli.terminal import echo
from lrq.config import Settings
from lrq.datasets.parquet_writer import write_parquet
from lrq.domain import exports
from lrq.domain.errors import UsageError
from lrq.ledger import open_ledger
from lrq.ledger import runs as runs_
from lrq.operations.results import FORMS, pairs, scores, write
from lrq.reports.labels import label_lines


@click.command()
@click.argument("run")
@click.option(
    "--format", "form", type=click.Choice(["trl", *FORMS, "scores", "labels"]), default="trl", show_default=True
)
@click.option(
    "--output",
    "-o",
    type=click.Path(dir_okay=False, allow_dash=True),
    default="-",
    help="A file, in Parquet if it ends in .parquet; - is standard output.",
)
@click.option("--round", "round_", type=click.IntRange(min=0), help="This round alone, from 0; by default all.")
@settings_options
def export(run: str, form: str, output: str, round_: int | None, settings: Settings) -> None:
    """Write the pairs of a run, the scores of all its responses or the labels of people, as JSON lines or Parquet.

    Beside what each format's tool reads, a pair has id, reward, margin and scores, and where a run has several rounds
    the round that it was made in.

    Example: lrq export my-run --format longreward -o pairs.jsonl
    """
    ledger = open_ledger(settings)
    with ledger.read() as tx:
        stored = runs_.get_run(tx, run)
    if round_ is not None and round_ > stored.round:
        raise UsageError(f"run {run!r} has no round {round_}: its latest is {stored.round}")
    if form == "labels":
        lines = label_lines(ledger, stored)
    else:
        lines = scores(ledger, stored, round_) if form == "scores" else pairs(ledger, stored, form, round_)
    differing: list[str] = []
    if output.endswith(".parquet"):
        count = write_parquet(_noting(lines, differing), Path(output))
    else:
        with click.open_file(output, "wb") as stream:
            count = write(_noting(lines, differing), stream)
    if differing:
        echo(f"{len(differing)} rows train other tokens under stock TRL, as `trl_differs` says of each", err=True)
    left = f"; {stored.open_items} items are not at their end" if stored.open_items else ""
    echo(f"{count} lines{left}", err=True)
    if form == "llama-factory" and output != "-":
        entry = {Path(output).stem: exports.llama_factory_entry(Path(output).name)}
        echo(f"for dataset_info.json: {orjson.dumps(entry).decode()}", err=True)


def _noting(lines: Iterator[dict[str, Any]], differing: list[str]) -> Iterator[dict[str, Any]]:
    for line in lines:
        if reason := line.get("trl_differs"):
            differing.append(reason)
        yield line
