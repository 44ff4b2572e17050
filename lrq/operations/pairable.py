"""Which items can make a pair, known before anything is paid: a pair needs some scored responses."""

from collections.abc import Mapping
from typing import Any

from lrq.config import Settings
from lrq.datasets.dataset import Dataset, ResponsesFile
from lrq.domain.errors import UsageError
from lrq.domain.lines import Entry
from lrq.ledger import Ledger
from lrq.ledger.runs import Run
from lrq.operations.ingest import Intent
from lrq.recipes import load_recipe
from lrq.reports.pairable import SETTING, count_given, count_unpairable, responses_needed
from lrq.run_config import snapshot_config


def count_responses(entry: Entry, config: Mapping[str, Any]) -> int:
    """Count the responses that an item has to be judged by: its own, else as many as `config` has the policy sample."""
    is_given = entry.responses or entry.blank
    return len(entry.responses) if is_given else int(config["sample"]["responses"])


def check_pairable(settings: Settings, intent: Intent) -> None:
    """Refuse a file of which no item can make a pair, unless scores alone are wanted. Raises UsageError.

    Lines are read until one can; for standard input, which cannot be read twice, there is `check_run_pairable`.
    """
    config = snapshot_config(settings, train=intent.train)
    needed = responses_needed(config)
    if intent.scores_only or not needed or intent.file == "-":
        return
    responses_file = ResponsesFile(intent.responses) if intent.responses else None
    most, is_given = -1, True
    recipe = load_recipe(settings.recipe)
    for line in Dataset(intent.file, recipe.needs, responses_file, joins_systems=recipe.joins_systems):
        if line.value is not None:
            most = max(most, count_responses(line.value, config))
            is_given &= bool(line.value.responses or line.value.blank)
        if most >= needed:
            return
    if most >= 0:  # a file without a usable line is told apart where it is taken in
        raise UsageError(no_pair(intent.file, most, needed, is_given=is_given))


def no_pair(file: str, most: int, needed: int, *, is_given: bool) -> str:
    """Say that no item can make a pair, and what to set.

    Args:
        file: the file, or another word for the items.
        most: responses of the item that has most of them.
        needed: scored responses that a pair needs.
        is_given: all items bring their responses, so that sampling more is no way out.
    """
    sampling = "" if is_given else f"--set sample.responses={needed}, or "
    lower = f"--set settings.{SETTING}={most}, or " if most > 1 else ""
    return (
        f"no item of {file} can make a pair: they have {most} responses at most and {needed} are needed "
        f"({SETTING}): give {sampling}{lower}--scores-only where scores are all that is wanted"
    )


def some_no_pair(short: int, total: int, needed: int) -> list[str]:
    """Say in a line how many items cannot make a pair, or nothing where all can.

    Args:
        short: items with fewer than `needed` responses.
        total: all items.
    """
    if not short:
        return []
    return [f"{short:,} of {total:,} items cannot make a pair: they have fewer than {needed} responses ({SETTING})"]


def check_run_pairable(ledger: Ledger, run: Run) -> None:
    """Refuse to work on a run of which no item can make a pair. Raises UsageError."""
    total, most = count_given(ledger, run)
    if total and count_unpairable(ledger, run) == total:
        sampled = int(run.config["sample"]["responses"])
        needed = responses_needed(run.config)
        raise UsageError(no_pair(f"run {run.name}", most or sampled, needed, is_given=bool(most)))
