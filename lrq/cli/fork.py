"""lrq fork: a new run over the items of another, which asks only what has changed."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

from lrq.cli.common import json_option, parse_money, settings_options
from lrq.cli.progress import finish, process_options, work_on
from lrq.cli.terminal import echo, echo_json
from lrq.config import Settings
from lrq.ledger import Ledger, open_ledger
from lrq.ledger import runs as runs_
from lrq.operations.fork import fork_config, make_fork, read_texts
from lrq.operations.results import write_results
from lrq.reports.facts import run_facts
from lrq.run_config import load_run_config

Command = TypeVar("Command", bound=Callable[..., Any])


def fork_options(command: Command) -> Command:
    """Add what a fork may change, and how its work is done."""
    options: list[Callable[[Any], Any]] = [
        click.option("--judge", metavar="ENDPOINT", help="Judge by this endpoint of the settings."),
        click.option(
            "--prompts",
            type=click.Path(exists=True, file_okay=False, path_type=Path),
            help="Use these prompt texts: a folder of en/support.txt and the like.",
        ),
        click.option("--max-cost", metavar="MONEY", help="Stop the new run at this amount; by default at RUN's."),
        click.option(
            "--max-tokens",
            type=click.IntRange(min=1),
            help="Stop the new run at this many tokens; by default at RUN's.",
        ),
        click.option("--detach", is_flag=True, help="Only mark the work; `lrq up` does it."),
        process_options,
        json_option,
        settings_options,
    ]
    for option in reversed(options):
        command = option(command)
    return command


@click.command()
@click.argument("run")
@click.option("--name", required=True, metavar="NEW", help="Name the new run.")
@click.option("--dimension", "-d", metavar="NAME", help="Judge this dimension alone again, by today's prompts.")
@click.option("--train/--no-train", default=False, help="Train on the new pairs.")
@fork_options
def fork(run: str, name: str, **options: Any) -> int:
    """Make a run of the items of another one with another judge, other prompts or settings of the recipe.

    Responses are kept, and so is every score that what you name does not touch; questions that were asked before are
    not asked again. Rewards and pairs are made anew: another `settings.min_scored` or `settings.min_margin` costs
    nothing. `lrq report RUN --compare NEW` shows before and after.

    The new run has a budget of its own, which starts at nothing spent: the limits of RUN, unless --max-cost or
    --max-tokens names others.

    Example: lrq fork my-run --name strict --set settings.min_margin=2
    """
    return make(run, name=name, **options)


def make(
    run: str,
    *,
    name: str | None,
    dimension: str | None,
    judge: str | None,
    prompts: Path | None,
    max_cost: str | None,
    max_tokens: int | None,
    train: bool,
    detach: bool,
    as_json: bool,
    settings: Settings,
    **counts: Any,
) -> int:
    """Fork a run, do its work unless it is detached, and print what it took; return the exit code.

    Args:
        name: of the fork; None: the run's with a number.
        dimension: judge this alone again, by today's judge and prompts.
        judge: name of the endpoint that judges from now on.
        prompts: a folder of prompt texts.
        max_cost: as the user writes it, in units of the currency.
        counts: how many processes are started, as `work_on` takes them.
    """
    limits = {"max_cost": parse_money(max_cost), "max_tokens": max_tokens}
    ledger = open_ledger(settings, create=True)
    with ledger.read() as tx:
        source = runs_.get_run(tx, run)
    frozen = load_run_config(source.recipe, source.config)
    texts = read_texts(frozen, prompts) if prompts else None
    planned = fork_config(source, frozen, settings, dimension=dimension, judge=judge, texts=texts, train=train)
    facts: dict[str, Any] = {"run": run, "dimension": dimension, "changed": planned.changes, "fork": None}
    code = 0
    if planned.changes:
        new_run = make_fork(ledger, source, frozen, planned, name, **limits)
        facts |= {"fork": new_run.name, "steps": planned.steps, "items": new_run.open_items}
        facts |= {
            "max_cost": None if new_run.max_cost is None else new_run.max_cost / 1e6,
            "max_tokens": new_run.max_tokens,
        }
        if not as_json:
            _print_begin(facts)
        if not detach:
            work = finish if as_json else work_on
            code = work(ledger, settings, new_run.name, **counts)
            facts |= _difference(ledger, source, new_run, dimension)
            if as_json:
                write_results(ledger, settings, new_run)
    echo_json(facts) if as_json else _print_end(facts)
    return code


def _difference(ledger: Ledger, source: runs_.Run, new_run: runs_.Run, dimension: str | None) -> dict[str, Any]:
    before, after = run_facts(ledger, source), run_facts(ledger, new_run)
    facts = {"bought": after["calls"]["calls"], "reused": after["calls"]["reused"]}
    if dimension is None:
        return facts | {"pairs": after["pairs"], "pairs_before": before["pairs"]}
    mean, mean_before = (each["scores"].get(dimension, {}).get("mean") for each in (after, before))
    return facts | {"mean": mean, "mean_before": mean_before}


def _print_begin(facts: Mapping[str, Any]) -> None:
    steps = ", ".join(facts["steps"]) or "pairs"
    echo(f"run {facts['fork']}: {steps} of {facts['items']} items made again for: {', '.join(facts['changed'])}")
    limits = [] if facts["max_cost"] is None else [f"{facts['max_cost']:g}"]
    limits += [] if facts["max_tokens"] is None else [f"{facts['max_tokens']:,} tokens"]
    if limits:
        echo(f"it may spend {' and '.join(limits)}, beside what {facts['run']} has (--max-cost, --max-tokens)")


def _print_end(facts: Mapping[str, Any]) -> None:
    if not facts["changed"]:
        what = f"for {facts['dimension']}, so its scores stand" if facts["dimension"] else "in this run"
        echo(f"nothing has changed {what} (--judge, --prompts, --set)")
        return
    if "bought" in facts:
        names = ("mean", "mean_before") if facts["dimension"] else ("pairs", "pairs_before")
        after, before = ("–" if facts[name] is None else f"{facts[name]:g}" for name in names)
        echo(f"{facts['bought']} calls bought, {facts['reused']} answers reused; {names[0]} {after}, before {before}")
    echo(f"`lrq report {facts['run']} --compare {facts['fork']}` sets them side by side")
