"""lrq run: from a file to its result, on this machine."""

from typing import Any

import click

from lrq.cli.common import apply_settings, concurrency_option, echo, json_option, note_probe, with_concurrency
from lrq.cli.enqueue import intent_of
from lrq.cli.follow import follow_options, work_on
from lrq.cli.intake import Intake, flags_of, intake_options, take_in
from lrq.cli.outlook import announce, last_item
from lrq.cli.pairable import check_pairable, check_run_pairable
from lrq.cli.reckoning import sentence
from lrq.config import Settings, merge_flags
from lrq.ledger import Ledger, open_ledger
from lrq.queue.diagnosis import check_servers
from lrq.workers.frozen import freeze
from lrq.workers.supervisor import is_up
from lrq.workers.trainer import check_trainable


@click.command()
@intake_options
@click.option("--config", type=click.Path(exists=True, dir_okay=False), help="Settings file instead of ./lrq.yaml.")
@click.option("--set", "flags", multiple=True, metavar="KEY=VALUE", help="A setting, e.g. judge.rpm=500; repeatable.")
@concurrency_option
@follow_options
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
    own = merge_flags(flags, flags_of(options))
    settings = apply_settings(config, with_concurrency(own, concurrency))
    if concurrency is not None and is_up(settings):
        echo("the processes of `lrq up` keep the --concurrency that they were started with", err=True)
    intent = intent_of(options)
    frozen = freeze(settings, train=intent.train)
    check_trainable(frozen)
    check_servers(settings)
    note_probe(settings, frozen)
    ledger = open_ledger(settings, create=True)
    check_pairable(settings, intent)
    before = last_item(ledger)
    intake = take_in(ledger, settings, intent, send=False)
    _announce(ledger, settings, intake, before, as_json)
    if not intent.scores_only:
        check_run_pairable(ledger, intake.run)
    return work_on(
        ledger,
        settings,
        intake.run.name,
        judges=judges,
        samplers=samplers,
        as_json=as_json,
        scores_only=intent.scores_only,
    )


def _announce(ledger: Ledger, settings: Settings, intake: Intake, before: int, as_json: bool) -> None:
    """Say what was taken in and what it will take, before anything is paid."""
    name = intake.run.name
    if intake.set_aside:
        echo(f"{intake.set_aside} lines rejected: `lrq status {name} --failed` says why", err=True)
    for said in intake.dropped:
        echo(said, err=True)
    estimate = announce(ledger, settings, intake, before) if settings.endpoints("judge") else None
    if estimate is not None:
        echo(f"estimate: {sentence(estimate)}", err=as_json)
        for said in estimate["notes"]:
            echo(said, err=as_json)
