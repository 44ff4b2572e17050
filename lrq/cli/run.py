"""lrq run: from a file to its result, on this machine."""

from typing import Any

import click

from lrq.cli.common import (
    apply_settings,
    concurrency_option,
    dataset_options,
    flags_of,
    intent_of,
    json_option,
    note_probe,
    reading_bar,
    with_concurrency,
)
from lrq.cli.estimate import preview_if_possible, sentence
from lrq.cli.progress import process_options, work_on
from lrq.cli.terminal import echo
from lrq.config import Settings, merge_flags
from lrq.ledger import Ledger, open_ledger
from lrq.operations.ingest import Ingested, ingest
from lrq.operations.pairable import check_pairable, check_run_pairable
from lrq.queue.diagnosis import check_servers
from lrq.reports.sizes import last_item
from lrq.run_config import snapshot_config
from lrq.workers.supervisor import is_up
from lrq.workers.trainer import check_trainable


@click.command()
@dataset_options
@click.option("--config", type=click.Path(exists=True, dir_okay=False), help="Settings file instead of ./lrq.yaml.")
@click.option("--set", "flags", multiple=True, metavar="KEY=VALUE", help="A setting, e.g. judge.rpm=500; repeatable.")
@concurrency_option
@process_options
@json_option
def run(
    config: str | None,
    flags: tuple[str, ...],
    concurrency: int | None,
    judges: int,
    samplers: int,
    as_json: bool,
    **options: Any,
) -> int:
    """Work on a dataset from its lines to pairs and, unless --no-train, to a trained model.

    Starts and stops the processes it needs, or uses those of a running `lrq up`. Run it again after any interruption:
    what was sampled, judged or trained is not done again.

    Example: lrq run dataset.jsonl --responses sampled.jsonl --no-train
    """
    shortcuts = merge_flags(flags, flags_of(options))
    settings = apply_settings(config, with_concurrency(shortcuts, concurrency))
    if concurrency is not None and is_up(settings):
        echo("the processes of `lrq up` keep the --concurrency that they were started with", err=True)
    intent = intent_of(options)
    frozen = snapshot_config(settings, train=intent.train)
    check_trainable(frozen)
    check_servers(settings)
    note_probe(settings, frozen)
    ledger = open_ledger(settings, create=True)
    check_pairable(settings, intent)
    before = last_item(ledger)
    ingested = ingest(ledger, settings, intent, send=False, watch=reading_bar)
    _announce(ledger, settings, ingested, before, as_json)
    if not intent.scores_only:
        check_run_pairable(ledger, ingested.run)
    return work_on(
        ledger,
        settings,
        ingested.run.name,
        judges=judges,
        samplers=samplers,
        as_json=as_json,
        scores_only=intent.scores_only,
    )


def _announce(ledger: Ledger, settings: Settings, ingested: Ingested, before: int, as_json: bool) -> None:
    """Say what was read and what it will take, before anything is paid."""
    name = ingested.run.name
    if ingested.set_aside:
        echo(f"{ingested.set_aside} lines rejected: `lrq status {name} --failed` says why", err=True)
    for note in ingested.dropped:
        echo(note, err=True)
    estimate = preview_if_possible(ledger, settings, ingested, before) if settings.endpoints("judge") else None
    for line in () if estimate is None else (f"estimate: {sentence(estimate)}", *estimate["notes"]):
        echo(line, err=as_json)
