"""lrq worker: one worker process."""

import os
import signal
import socket

import click

from lrq.cli.common import raise_file_limit, settings_options
from lrq.config import Settings
from lrq.domain.errors import UsageError
from lrq.queue.celery import app, use
from lrq.queue.routes import WORKERS, concurrency
from lrq.workers import loop
from lrq.workers.supervisor import unable

idle_option = click.option(
    "--idle", is_flag=True, help="Where this cannot run, say why and wait: runners of a Procfile end all when one ends."
)


@click.command()
@click.argument("name", type=click.Choice(list(WORKERS)))
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
    why = unable(settings).get(name)
    if why and idle:
        return wait_idle(f"{name} has nothing to do here: {why}")
    if why:
        raise UsageError(f"{name} cannot run here: {why}")
    use(settings)
    raise_file_limit()
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


def wait_idle(why: str) -> int:
    """Say why, and wait for the signal that ends us."""
    click.echo(why)
    ends = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)
    signal.sigwait(ends)
    return 0
