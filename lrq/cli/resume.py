"""lrq resume: go on with a run, and repair it."""

import click

from lrq.cli.common import settings_options
from lrq.cli.follow import follow_options, work_on
from lrq.config import Settings
from lrq.ledger import backlog, open_ledger
from lrq.ledger import runs as runs_
from lrq.workers.frozen import thaw


@click.command()
@click.argument("run")
@click.option("--failed", is_flag=True, help="Ask again for what is unscored, and restart failed items.")
@click.option("--detach", is_flag=True, help="Only mark the work; `lrq up` does it.")
@follow_options
@settings_options
def resume(run: str, failed: bool, detach: bool, settings: Settings, **counts: int) -> int:
    """Go on with a run that was paused or interrupted; replies that were paid for are never asked again.

    Example: lrq resume my-run --failed
    """
    ledger = open_ledger(settings, create=True)
    with ledger.writing() as conn:
        found = runs_.get_run(conn, run)
        frozen = thaw(found.recipe, found.config)
        if found.state in {"paused", "stopped"}:
            runs_.activate(conn, found.id)
        runs_.set_taking_in(conn, found.id, False)
        backlog.put_back_all(conn, found.id)
        if failed:
            reopened = backlog.reopen_unscored(ledger, conn, found.id, frozen.step_of, frozen.steps)
            click.echo(f"{reopened} items are asked again", err=True)
        backlog.settle_run(ledger, conn, found.id, frozen.train_every)
    if detach:
        return 0
    return work_on(ledger, settings, run, **counts)
