"""lrq rescore: judge a dimension again, asking only what has changed."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from lrq.cli.common import echo, echo_json, json_option, settings_options
from lrq.cli.progress import finish, process_options, work_on
from lrq.config import Settings
from lrq.domain.errors import UsageError
from lrq.ledger import Ledger, open_ledger
from lrq.ledger import runs as runs_
from lrq.ledger.rescoring import reopen_step, revise
from lrq.ledger.runs import Run
from lrq.operations.results import write_results
from lrq.queue.routes import step_queue
from lrq.recipes.templates import load_prompts
from lrq.reports.facts import run_facts
from lrq.workers.frozen import Frozen, prices, thaw
from lrq.workers.revising import revised


@click.command()
@click.argument("run")
@click.option("--dimension", "-d", required=True, metavar="NAME", help="What to judge again, e.g. faithfulness.")
@click.option("--judge", metavar="ENDPOINT", help="By this endpoint of the settings.")
@click.option(
    "--prompts",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="With these prompt texts: a folder of en/support.txt and the like.",
)
@click.option("--detach", is_flag=True, help="Only mark the work; `lrq up` does it.")
@process_options
@json_option
@settings_options
def rescore(
    run: str,
    dimension: str,
    judge: str | None,
    prompts: Path | None,
    detach: bool,
    as_json: bool,
    settings: Settings,
    **counts: Any,
) -> int:
    """Judge a dimension of a finished run again by what has changed since: its judge, the prompts of this version or
    your own, the recipe's settings named with --set.

    Questions that were asked before are not asked again, and no other dimension is. Rewards and pairs are made anew;
    the old scores are kept, and so are the words they were judged by. What was trained stays as it is.

    Example: lrq rescore my-run --dimension faithfulness --judge strong --set settings.passages=8
    """
    ledger = open_ledger(settings, create=True)
    with ledger.reading() as conn:
        found = runs_.get_run(conn, run)
    frozen = thaw(found.recipe, found.config)
    _check_dimension(frozen, dimension)
    texts = _own_texts(frozen, prompts) if prompts else None
    changed = revised(frozen, settings, dimension, judge=judge, texts=texts)
    before = _dimension_facts(ledger, found, dimension)
    items = _reopen(ledger, settings, found, frozen, dimension, changed) if changed else 0
    facts = {"run": run, "dimension": dimension, "changed": _said(frozen, dimension, changed), "items": items}
    code = 0
    if items and not detach:
        code = finish(ledger, settings, run, **counts) if as_json else work_on(ledger, settings, run, **counts)
        facts |= _difference(before, _dimension_facts(ledger, found, dimension))
    if as_json:
        write_results(ledger, settings, found)
        echo_json(facts)
    else:
        _print(facts, trained=bool(before["trained"]))
    return code


def _check_dimension(frozen: Frozen, dimension: str) -> None:
    if dimension not in frozen.step_of:
        raise UsageError(f"this run has no dimension {dimension!r}; it has {', '.join(frozen.step_of)}")


def _own_texts(frozen: Frozen, folder: Path) -> dict[str, str]:
    """The texts of a folder, each with the placeholders of the one it replaces."""
    texts, known = load_prompts(folder), frozen.config["prompts"]
    if not texts:
        raise UsageError(f"no prompt text in {folder}; name them like {sorted(known)[0]}.txt")
    for name, text in texts.items():
        if name not in known:
            raise UsageError(f"this recipe has no prompt {name!r}; it has {', '.join(sorted(known))}")
        if _placeholders(text) != _placeholders(known[name]):
            wanted = ", ".join(f"{{{{{one}}}}}" for one in sorted(_placeholders(known[name]))) or "none"
            raise UsageError(f"{folder / name}.txt has other placeholders than it takes: {wanted}")
    return texts


def _placeholders(text: str) -> set[str]:
    return set(re.findall(r"\{\{(\w+)\}\}", text))


def _reopen(
    ledger: Ledger, settings: Settings, run: Run, frozen: Frozen, dimension: str, changed: Mapping[str, Any]
) -> int:
    step = frozen.recipe.step(frozen.step_of[dimension])
    named: dict[str, Any] = {"step": step.name, "dimensions": [one.name for one in step.dimensions]}
    with ledger.writing() as conn:
        revision = revise(ledger, conn, run, changed, **named, prices=prices(settings))
        return reopen_step(ledger, conn, run.id, revision, queue=step_queue(step.name), **named)


def _said(frozen: Frozen, dimension: str, changed: Mapping[str, Any]) -> list[str]:
    """What changes, in names."""
    held = frozen.of(frozen.step_of[dimension])
    said = [f"prompt {name}" for name in sorted(changed.get("prompts", ()))]
    for part in ("judge", "settings"):
        said += [f"{part}.{name}" for name, value in changed.get(part, {}).items() if held[part].get(name) != value]
    return said + [name for name in ("tokens", "embedding") if name in changed]


def _dimension_facts(ledger: Ledger, run: Run, dimension: str) -> dict[str, Any]:
    facts = run_facts(ledger, run)
    rows = [row for row in facts["usage"] if row["dimension"] == dimension]
    sums = {name: sum(row[name] for row in rows) for name in ("calls", "reused")}
    return {**sums, "mean": facts["scores"].get(dimension, {}).get("mean"), "trained": facts["trainings"]}


def _difference(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    counted = {"bought": after["calls"] - before["calls"], "reused": after["reused"] - before["reused"]}
    return counted | {"mean": after["mean"], "mean_before": before["mean"]}


def _print(facts: Mapping[str, Any], *, trained: bool) -> None:
    if not facts["changed"]:
        echo(f"nothing has changed for {facts['dimension']}, so its scores stand (--judge, --prompts, --set)")
        return
    echo(f"{facts['dimension']} of {facts['items']} items judged again for: {', '.join(facts['changed'])}")
    if "bought" in facts:
        mean, before = ("–" if facts[name] is None else f"{facts[name]:.2f}" for name in ("mean", "mean_before"))
        echo(f"{facts['bought']} calls bought, {facts['reused']} answers reused; mean {mean}, before {before}")
    if trained:
        echo("what was trained stays as it is; `lrq train` on the new pairs.jsonl makes another model")
