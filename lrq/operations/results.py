"""What a run made, as lines: pairs in the forms other tools read, and scores."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import orjson

from lrq.config import Settings
from lrq.domain import exports
from lrq.domain.errors import UsageError
from lrq.domain.printable import printable_json
from lrq.ledger import Ledger
from lrq.ledger import items as items_
from lrq.ledger.runs import Run
from lrq.run_config import load_run_config, schedule_of
from lrq.workers.rows import TrainingRow, renderer_of, training_rows, trl_row
from lrq.workers.trainer import run_folder

FORMS: dict[str, Callable[[TrainingRow], dict[str, Any]]] = {  # beside TRL's, which has the tokens too
    "longreward": lambda row: exports.longreward_pair(row.item, row.chosen, row.rejected or ""),
    "llama-factory": lambda row: exports.llama_factory_pair(row.messages, row.chosen, row.rejected or ""),
}


def pairs(
    ledger: Ledger, run: Run, form: str = "trl", round_: int | None = None, model: Path | None = None
) -> Iterator[dict[str, Any]]:
    """Yield the run's rows as they are exported.

    Args:
        form: trl, or a key of FORMS.
        round_: rows of this round alone, from 0; None: of all.
        model: the folder whose chat template renders prompts in place of the policy's; read for TRL's form alone.

    Raises UsageError where the rows, as demonstrations or several turns, have no place in that form.
    """
    frozen = load_run_config(run.recipe, run.config)
    renderer = renderer_of(frozen, model) if form == "trl" else None
    for row in training_rows(ledger, frozen, run.id, round_, scores=True, rates=form == "trl"):
        if form == "longreward" and row.rejected is None:
            raise UsageError("this run has demonstrations, not pairs: export it with --format trl")
        if form != "trl" and len(row.turns) > 1:
            raise UsageError("this run has rows of several turns: export it with --format trl")
        extra = exports.pair_scores(row.item, row.margin, row.rewards, row.scores)
        extra |= {"round": row.round} if _has_rounds(run) else {}
        yield (trl_row(row, renderer) if form == "trl" else FORMS[form](row)) | extra


def _has_rounds(run: Run) -> bool:
    schedule = schedule_of(run.config.get("train"))
    return schedule is not None and schedule.rounds > 1


def scores(ledger: Ledger, run: Run, round_: int | None = None) -> Iterator[dict[str, Any]]:
    """Yield one line per response, in the order of items, rounds and responses; `round_`: of that round alone."""
    has_rounds = _has_rounds(run)
    after = 0
    while True:
        with ledger.read() as tx:
            page = items_.item_ids(tx, run.id, after=after)
            for id_ in page:
                for line in items_.score_lines(tx, id_, round_):
                    yield {"id": line["id"], "round": 0} | line if has_rounds else line
        if not page:
            return
        after = page[-1]


def write(lines: Iterator[dict[str, Any]], stream: IO[bytes]) -> int:
    """Write one JSON object per line; on a terminal what would drive it, or would not be seen, is escaped.

    Returns the number of `lines`.
    """
    count, is_seen = 0, stream.isatty()
    for line in lines:
        text = printable_json(line).encode() if is_seen else orjson.dumps(line)
        stream.write(text + b"\n")
        count += 1
    return count


def write_results(ledger: Ledger, settings: Settings, run: Run, model: Path | None = None) -> list[Path]:
    """Write runs/<run>/{pairs,scores}.jsonl; a reader sees the old file or the new.

    `model`: the folder that is to be trained, where the run names none. Returns the paths of the files.
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
