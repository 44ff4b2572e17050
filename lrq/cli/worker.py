"""lrq worker: one worker process."""

import os
import signal
import socket
import time
from contextlib import closing

import click

from lrq.cli.common import raise_file_limit, settings_options
from lrq.cli.terminal import echo
from lrq.config import Settings
from lrq.domain.errors import LrqError, UsageError
from lrq.domain.records import ROLES
from lrq.ledger import LedgerUnavailable, open_ledger
from lrq.queue.celery import app, use
from lrq.queue.diagnosis import broker_problem
from lrq.queue.routes import WORKERS, concurrency
from lrq.workers import loop
from lrq.workers.supervisor import unavailable_processes

_LONGEST_PAUSE = 15.0  # seconds between two looks at a ledger that is away

idle_option = click.option(
    "--idle", is_flag=True, help="Where this cannot run, say why and wait: runners of a Procfile end all when one ends."
)


@click.command()
@click.argument("name", type=click.Choice([*WORKERS, "scorer"]))
@click.option(
    "--concurrency", "threads", type=click.IntRange(1), help="Messages at once; by default what suits the type."
)
@click.option("--log-level", default="INFO", type=click.Choice(["DEBUG", "INFO", "WARNING", "ERROR"]))
@idle_option
@settings_options
def worker(settings: Settings, name: str, threads: int | None, log_level: str, idle: bool) -> int:
    """Run one worker process of this type in the foreground.

    SIGTERM or Ctrl-C once: calls in flight are committed, then it ends. Twice: at once.

    Example: lrq worker judge --concurrency 64
    """
    problem = unavailable_processes(settings, ROLES).get(name)
    if problem and idle:
        return wait_idle(f"{name} has nothing to do here: {problem}")
    if problem:
        raise (LrqError if "pip install" in problem else UsageError)(f"{name} cannot run here: {problem}")
    refusal = broker_problem(settings)
    if refusal is not None and not refusal.may_pass:  # one that is away is waited for
        raise LrqError(str(refusal))
    _await_ledger(settings)
    use(settings)
    raise_file_limit()
    if name == "scorer":
        from lrq.workers.scorer import serve  # noqa: PLC0415 - loads torch

        return serve(settings, log_level)
    process = app.Worker(
        hostname=f"{name}@{socket.gethostname()}-{os.getpid()}",
        queues=list(WORKERS[name]),
        concurrency=threads or concurrency(name, settings),
        loglevel=log_level,
        quiet=True,
        # Talk among workers that nothing here listens to; it would cost a second at each start.
        without_mingle=True,
        without_gossip=True,
    )
    process.start()
    return 130 if loop.interrupted else int(process.exitcode or 0)


def _await_ledger(settings: Settings) -> None:
    """Wait until the ledger can be opened; raise LrqError where that would be for ever."""
    pause, words = 1.0, ""
    while True:
        try:
            ledger = open_ledger(settings, create=True)
            with closing(ledger):
                ledger.check_writing()
        except LedgerUnavailable as error:
            if str(error) != words:
                words = str(error)
                echo(f"{words}; waiting for it", err=True)
            time.sleep(pause)
            pause = min(_LONGEST_PAUSE, 2 * pause)
        else:
            return


def wait_idle(why: str) -> int:
    """Print `why`, and wait for the signal that ends us; returns the exit code."""
    echo(why)
    ends = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)
    signal.sigwait(ends)
    return 0
