"""lrq enqueue: put a dataset into the queues."""

from typing import Any

import click

from lrq.cli import EXIT_PARTLY
from lrq.cli.common import apply_settings, dataset_options, flags_of, intent_of, json_option, note_probe, reading_bar
from lrq.cli.estimate import preview_if_possible, print_facts
from lrq.cli.terminal import console, echo, echo_json
from lrq.config import merge_flags
from lrq.ledger import open_ledger
from lrq.operations.ingest import ingest
from lrq.operations.pairable import check_pairable
from lrq.reports.sizes import last_item
from lrq.run_config import load_run_config, snapshot_config


@click.command()
@dataset_options
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
    note_probe(settings, snapshot_config(settings, train=intent.train))
    ledger = open_ledger(settings, create=True)
    check_pairable(settings, intent)
    before = last_item(ledger)
    ingested = ingest(ledger, settings, intent, watch=reading_bar)
    estimate = preview_if_possible(ledger, settings, ingested, before)
    ledger.close()
    if ingested.unsent:
        echo(ingested.unsent, err=True)
    run = ingested.run
    if as_json:
        facts = {"run": run.name, "added": ingested.added, "known": ingested.known, "set_aside": ingested.set_aside}
        echo_json(facts | {"dropped": list(ingested.dropped), "estimate": estimate})
    else:
        echo(f"run {run.name}: {ingested.added} items added, {ingested.known} known, {ingested.set_aside} rejected")
        for note in ingested.dropped:
            echo(note, err=True)
        if estimate is not None:
            print_facts(console(), estimate)
        if load_run_config(run.recipe, run.config).needs_judge and not settings.endpoints("judge"):
            echo("no judge is named yet: set LRQ_JUDGE_URL and LRQ_JUDGE_MODEL, then `lrq resume`", err=True)
        if ingested.set_aside:
            echo(f"`lrq status {run.name} --failed` says why", err=True)
    return EXIT_PARTLY if ingested.set_aside else 0
