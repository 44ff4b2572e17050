"""lrq enqueue: put a dataset into the queues."""

from typing import Any

import click

from lrq.cli.common import apply_settings, console, echo, echo_json, json_option, note_probe, parse_money
from lrq.cli.intake import Intent, exit_code, flags_of, intake_options, report, take_in
from lrq.cli.outlook import announce, last_item
from lrq.cli.pairable import check_pairable
from lrq.cli.reckoning import print_facts
from lrq.config import merge_flags
from lrq.ledger import open_ledger
from lrq.recipes import load_recipe
from lrq.workers.frozen import freeze


@click.command()
@intake_options
@click.option("--config", type=click.Path(exists=True, dir_okay=False), help="Settings file instead of ./lrq.yaml.")
@click.option("--set", "flags", multiple=True, metavar="KEY=VALUE", help="A setting, e.g. judge.rpm=500; repeatable.")
@json_option
def enqueue(
    config: str | None,
    flags: tuple[str, ...],
    as_json: bool,
    **options: Any,
) -> int:
    """Put a dataset into the queues; workers started by `lrq up` do the rest.

    Lines that cannot be used are rejected with their reason, and the exit code is 3. The same file again adds
    nothing; a longer one adds its new lines.

    Example: lrq enqueue dataset.jsonl --responses sampled.jsonl --no-train
    """
    settings = apply_settings(config, merge_flags(flags, flags_of(options)))
    intent = intent_of(options)
    note_probe(settings, freeze(settings, train=intent.train))
    ledger = open_ledger(settings, create=True)
    check_pairable(settings, intent)
    before = last_item(ledger)
    intake = take_in(ledger, settings, intent)
    estimate = announce(ledger, settings, intake, before)
    ledger.close()
    if as_json:
        echo_json(report(intake) | {"estimate": estimate})
    else:
        echo(f"run {intake.run.name}: {intake.added} items added, {intake.known} known, {intake.set_aside} rejected")
        for said in intake.dropped:
            echo(said, err=True)
        if estimate is not None:
            print_facts(console(), estimate)
        if load_recipe(intake.run.recipe).steps and not settings.endpoints("judge"):
            echo("no judge is named yet: set LRQ_JUDGE_URL and LRQ_JUDGE_MODEL, then `lrq resume`", err=True)
        if intake.set_aside:
            echo(f"`lrq status {intake.run.name} --failed` says why", err=True)
    return exit_code(intake)


def intent_of(options: dict[str, Any]) -> Intent:
    return Intent(
        file=options["file"],
        name=options["name"],
        responses=options["responses"],
        strict=options["strict"],
        train=not options["no_train"],
        max_cost=parse_money(options["max_cost"]),
        max_tokens=options["max_tokens"],
        scores_only=options["scores_only"],
    )
