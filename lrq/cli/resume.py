"""lrq resume: go on with a run, and repair it."""

import click

from lrq.cli.common import json_option, settings_options
from lrq.cli.follow import follow_options, work_on
from lrq.config import Settings
from lrq.domain.errors import UsageError
from lrq.ledger import backlog, open_ledger
from lrq.ledger import runs as runs_
from lrq.ledger.engine import SETTLING
from lrq.workers.frozen import named, thaw


@click.command()
@click.argument("run")
@click.option(
    "--failed", is_flag=True, help="Ask again for what is unscored; restart what failed: items, samplings, trainings."
)
@click.option(
    "--skip", multiple=True, metavar="ITEM", help="Leave an item out: it fails, and costs no more; repeatable."
)
@click.option("--detach", is_flag=True, help="Only mark the work; `lrq up` does it.")
@follow_options
@json_option
@settings_options
def resume(
    run: str, failed: bool, skip: tuple[str, ...], detach: bool, as_json: bool, settings: Settings, **counts: int
) -> int:
    """Go on with a run that was paused or interrupted; replies that were paid for are never asked again.

    Example: lrq resume my-run --failed
    """
    ledger = open_ledger(settings, create=True)
    with ledger.writing() as conn:
        found = runs_.get_run(conn, run)
        ledger.alone(conn, SETTLING)  # the ends of steps lock the same tasks after the run
        backlog.put_back_all(conn, found.id)
        frozen = thaw(found.recipe, runs_.complete(conn, found, named(settings)))
        if skip and found.state == "active":
            raise UsageError(f"run {run!r} is at work: `lrq pause {run}` it before an item is left out")
        for key in dict.fromkeys(skip):
            backlog.leave_out(conn, found.id, key)
        if found.state in {"paused", "stopped"}:
            runs_.activate(conn, found.id)
        runs_.set_taking_in(conn, found.id, False)
        if failed:
            reopened = backlog.reopen_unscored(ledger, conn, found.id, frozen.step_of, frozen.steps)
            trainings = backlog.reopen_trainings(conn, found.id)
            click.echo(f"{reopened} items are asked again, {trainings} trainings started again", err=True)
        backlog.settle_run(ledger, conn, found.id, frozen.train_every)
    if detach:
        return 0
    return work_on(ledger, settings, run, as_json=as_json, **counts)
