"""lrq run: from a file to its result, on this machine."""

from typing import Any

import click

from lrq.cli.common import apply_settings, concurrency_option, json_option, with_concurrency
from lrq.cli.enqueue import intent_of
from lrq.cli.follow import follow_options, work_on
from lrq.cli.intake import flags_of, intake_options, take_in
from lrq.config import merge_flags
from lrq.ledger import open_ledger
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
    own = merge_flags(flags, flags_of(options["recipe"], options["loss"], options["price"]))
    settings = apply_settings(config, with_concurrency(own, concurrency))
    if concurrency is not None and is_up(settings):
        click.echo("the processes of `lrq up` keep the --concurrency that they were started with", err=True)
    intent = intent_of(options)
    check_trainable(freeze(settings, train=intent.train))
    ledger = open_ledger(settings, create=True)
    intake = take_in(ledger, settings, intent, send=False)
    if intake.set_aside:
        click.echo(f"{intake.set_aside} lines set aside: `lrq status {intake.run.name} --failed` says why", err=True)
    return work_on(ledger, settings, intake.run.name, judges=judges, samplers=samplers, as_json=as_json)
