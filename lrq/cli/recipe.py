"""lrq recipe: check a recipe of one's own before anything is paid."""

import asyncio
from itertools import islice
from pathlib import Path
from typing import Any

import click

from lrq.cli.common import apply_settings, json_option
from lrq.cli.terminal import echo, echo_json
from lrq.datasets.dataset import Dataset
from lrq.domain.errors import LrqError, UsageError
from lrq.domain.lines import Entry
from lrq.domain.records import Item, NoRow, Row
from lrq.estimate.dry_run import DryRun
from lrq.recipes import Case, Recipe, load_recipe
from lrq.run_config import RunConfig, load_run_config, snapshot_config

_ITEMS = 3
_SAMPLE = Item(
    id="sample",
    context="The harbour froze on Friday. Pell left on Sunday with nine crates of tea.",
    question="When did the harbour freeze, and what did Pell take?",
    answer="It froze on Friday; Pell took nine crates of tea.",
    fields={
        "system": ["Be brief.", "Be kind."],
        "rubrics": [{"criteria": "Is it exact?"}],
        "turns": ["A: Hello."],
        "questions": ["When did the harbour freeze?"],
        "short_contexts": ["The harbour froze on Friday."],
    },
)


@click.group()
def recipe() -> None:
    """Work on recipes of your own.

    Example: lrq recipe check my_recipe.py:NAME
    """


@recipe.command()
@click.argument("name")
@click.option("--items", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Items of yours to play.")
@json_option
def check(name: str, items: Path | None, as_json: bool) -> None:
    """Play a recipe, a name or FILE.py:NAME, on a few items in this process, with stand-ins for policy and judge.

    Nothing is sent. It tells what the recipe makes of each item, and stops at the first thing that is wrong with it.

    Example: lrq recipe check examples/recipes/wit.py:WIT
    """
    settings = apply_settings(None, {"recipe": name})
    loaded = load_recipe(name)
    frozen = load_run_config(name, snapshot_config(settings, train=False))
    dry_run = DryRun(frozen)
    entries = [Entry(item=_SAMPLE)] if items is None else _entries(items, loaded)
    facts = [_facts(_play(dry_run, entry), frozen) for entry in entries]
    if as_json:
        echo_json({"recipe": loaded.name, "steps": [step.name for step in loaded.steps], "items": facts})
        return
    for item_facts in facts:
        _print(item_facts)
    echo(f"{loaded.name}: {len(facts)} items played, nothing sent")


def _entries(path: Path, loaded: Recipe) -> list[Entry]:
    """Return the first items of a file. Raises UsageError for a line that cannot be used."""
    entries: list[Entry] = []
    for line in islice(Dataset(str(path), loaded.needs, joins_systems=loaded.joins_systems), _ITEMS):
        if line.value is None:
            raise UsageError(f"{path}, line {line.number}: {line.reason}")
        entries.append(line.value)
    return entries


def _play(dry_run: DryRun, entry: Entry) -> Case:
    try:
        return asyncio.run(dry_run.play(entry))
    except Exception as error:  # whatever a recipe does wrong, one line says what
        raise LrqError(f"item {entry.item.id!r}: {type(error).__name__} in its prompts or steps: {error}") from error


def _facts(case: Case, frozen: RunConfig) -> dict[str, Any]:
    try:
        rewards = list(frozen.recipe.rewards(case))
        rows = list(frozen.recipe.rows(case, rewards))
    except Exception as error:
        raise LrqError(f"item {case.item.id!r}: {type(error).__name__} in its rewards or rows: {error}") from error
    return {
        "id": case.item.id,
        "prompts": [{"name": prompt.name, "by": prompt.by} for prompt in case.prompts],
        "responses": len(case.responses),
        "scores": len(case.scores),
        "unscored": sorted({score.reason for score in case.scores if score.state == "unscored"}),
        "rewards": [reward.value for reward in rewards],
        "rows": sum(isinstance(row, Row) for row in rows),
        "reasons": [row.reason for row in rows if isinstance(row, NoRow)],
    }


def _print(facts: dict[str, Any]) -> None:
    prompts = ", ".join(f"{prompt['name'] or 'prompt'} by {prompt['by']}" for prompt in facts["prompts"])
    echo(f"{facts['id']}: {len(facts['prompts'])} prompts ({prompts or 'none'}), {facts['responses']} responses")
    rewarded = sum(value is not None for value in facts["rewards"])
    echo(f"  {facts['scores']} scores, {rewarded} rewards, {facts['rows']} rows")
    for reason in (*facts["unscored"], *facts["reasons"]):
        echo(f"  {reason}")
