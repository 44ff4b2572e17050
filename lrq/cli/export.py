"""lrq export: pairs and scores in the forms other tools read."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import click
import orjson

from lrq.cli.common import echo, settings_options
from lrq.cli.parquet_export import write_parquet
from lrq.config import Settings
from lrq.domain import exports
from lrq.domain.errors import UsageError
from lrq.domain.printable import printable_json
from lrq.ledger import Ledger, open_ledger
from lrq.ledger import items as items_
from lrq.ledger import runs as runs_
from lrq.ledger.runs import Run
from lrq.reports.labels import label_lines
from lrq.workers.frozen import schedule_of, thaw
from lrq.workers.rows import TrainingRow, renderer_of, training_rows, trl_row
from lrq.workers.trainer import run_folder


def _longreward(row: TrainingRow) -> dict[str, Any]:
    return exports.longreward_pair(row.item, row.chosen, row.rejected or "")


def _llama_factory(row: TrainingRow) -> dict[str, Any]:
    return exports.llama_factory_pair(row.messages, row.chosen, row.rejected or "")


_FORMS: dict[str, Callable[[TrainingRow], dict[str, Any]]] = {  # beside TRL's, which has the tokens too
    "longreward": _longreward,
    "llama-factory": _llama_factory,
}


@click.command()
@click.argument("run")
@click.option(
    "--format", "form", type=click.Choice(["trl", *_FORMS, "scores", "labels"]), default="trl", show_default=True
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
    with ledger.reading() as conn:
        found = runs_.get_run(conn, run)
    if round_ is not None and round_ > found.round:
        raise UsageError(f"run {run!r} has no round {round_}: its latest is {found.round}")
    if form == "labels":
        lines = label_lines(ledger, found)
    else:
        lines = scores(ledger, found, round_) if form == "scores" else pairs(ledger, found, form, round_)
    differing: list[str] = []
    if output.endswith(".parquet"):
        count = write_parquet(_noting(lines, differing), Path(output))
    else:
        with click.open_file(output, "wb") as stream:
            count = write(_noting(lines, differing), stream)
    if differing:
        echo(f"{len(differing)} rows train other tokens under stock TRL, as `trl_differs` says of each", err=True)
    left = f"; {found.open_items} items are not at their end" if found.open_items else ""
    echo(f"{count} lines{left}", err=True)
    if form == "llama-factory" and output != "-":
        entry = {Path(output).stem: exports.llama_factory_entry(Path(output).name)}
        echo(f"for dataset_info.json: {orjson.dumps(entry).decode()}", err=True)


def pairs(
    ledger: Ledger, run: Run, form: str = "trl", round_: int | None = None, model: Path | None = None
) -> Iterator[dict[str, Any]]:
    """The rows of a round, or of all, in a form; `model` renders prompts where the run names no folder."""
    frozen = thaw(run.recipe, run.config)
    renderer = renderer_of(frozen, model) if form == "trl" else None
    for row in training_rows(ledger, frozen, run.id, round_, scores=True, rates=form == "trl"):
        if form == "longreward" and row.rejected is None:
            raise UsageError("this run has demonstrations, not pairs: export it with --format trl")
        if form != "trl" and len(row.turns) > 1:
            raise UsageError("this run has rows of several turns: export it with --format trl")
        known = exports.pair_scores(row.item, row.margin, row.rewards, row.scores)
        known |= {"round": row.round} if _has_rounds(run) else {}
        yield (trl_row(row, renderer) if form == "trl" else _FORMS[form](row)) | known


def _noting(lines: Iterator[dict[str, Any]], differing: list[str]) -> Iterator[dict[str, Any]]:
    for line in lines:
        if reason := line.get("trl_differs"):
            differing.append(reason)
        yield line


def _has_rounds(run: Run) -> bool:
    schedule = schedule_of(run.config.get("train"))
    return schedule is not None and schedule.rounds > 1


def scores(ledger: Ledger, run: Run, round_: int | None = None) -> Iterator[dict[str, Any]]:
    """One line per response, in the order of items, rounds and responses."""
    has_rounds = _has_rounds(run)
    after = 0
    while True:
        with ledger.reading() as conn:
            page = items_.item_ids(conn, run.id, after=after)
            for id_ in page:
                for line in items_.score_lines(conn, id_, round_):
                    yield {"id": line["id"], "round": 0} | line if has_rounds else line
        if not page:
            return
        after = page[-1]


def write(lines: Iterator[dict[str, Any]], stream: IO[bytes]) -> int:
    """Write one JSON object per line; on a terminal what would drive it, or would not be seen, is escaped."""
    count, is_seen = 0, stream.isatty()
    for line in lines:
        text = printable_json(line).encode() if is_seen else orjson.dumps(line)
        stream.write(text + b"\n")
        count += 1
    return count


def write_results(ledger: Ledger, settings: Settings, run: Run, model: Path | None = None) -> list[Path]:
    """Write runs/<run>/{pairs,scores}.jsonl; a reader sees the old file or the new.

    `model`: the folder that is to be trained, where the run names none.
    """
    folder = run_folder(settings.home, run.name)
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, lines in (("pairs", pairs(ledger, run, model=model)), ("scores", scores(ledger, run))):
        path = folder / f"{name}.jsonl"
        temporary = path.with_suffix(".part")
        with temporary.open("wb") as stream:
            write(lines, stream)
        temporary.replace(path)
        written.append(path)
    return written
