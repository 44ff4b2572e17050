"""lrq pause: let a run take no further calls."""

import click

from lrq.cli.common import settings_options
from lrq.cli.terminal import echo
from lrq.config import Settings
from lrq.ledger import open_ledger
from lrq.ledger import runs as runs_


@click.command()
@click.argument("run")
@settings_options
def pause(run: str, settings: Settings) -> None:
    """Let a run take no further calls; what is in flight is kept. `lrq resume` goes on.

    Example: lrq pause my-run
    """
    ledger = open_ledger(settings)
    with ledger.write() as tx:
        stored = runs_.get_run(tx, run)
        halted = runs_.halt(tx, stored.id, state="paused", by="user", reason="paused by `lrq pause`")
    echo(f"run {run} is paused" if halted else f"run {run} is {stored.state} already")
