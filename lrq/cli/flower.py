"""`lrq flower`: the monitor."""

import click

from lrq.cli.terminal import echo
from lrq.cli.worker import idle_option, wait_idle
from lrq.domain.errors import LrqError
from lrq.ledger import open_ledger
from lrq.queue.celery import app, settings_in_use


@click.command(
    "flower",
    epilog="Example: FLOWER_BASIC_AUTH=me:secret lrq flower --address 0.0.0.0 --port 5555",
)
@click.option("--address", help="Where to listen.  [default: 127.0.0.1]")
@click.option("--port", type=click.IntRange(0, 65535), help="0 picks a free one.  [default: 5555]")
@click.option("--allow-host", "hosts", multiple=True, metavar="NAME", help="A name it is reached under; repeatable.")
@idle_option
def flower(address: str | None, port: int | None, hosts: tuple[str, ...], idle: bool) -> int:
    """Serve Flower: workers, tasks and queues, and what the judges cost.

    Beside Flower's own pages there are /judge (calls, tokens, money and rates per run, endpoint and dimension), the
    same as JSON at /api/judge/usage, and series for Prometheus at /metrics. FLOWER_* variables set Flower's options;
    to be reached from other machines it wants FLOWER_BASIC_AUTH=user:password, which /metrics asks for too. Without a
    password it answers under the names of this machine alone, and those given with --allow-host.
    """
    try:
        from lrq.monitor.server import serve  # noqa: PLC0415 - an extra
    except ImportError:
        problem = "Flower is not installed: pip install 'lrq[monitor]'"
        if idle:
            return wait_idle(problem)
        raise LrqError(problem) from None
    settings = settings_in_use()
    ledger = open_ledger(settings, create=True)
    try:
        serve(app, ledger, settings, address=address, port=port, ready=_say, hosts=hosts)
    finally:
        ledger.close()
    return 0


def _say(at: str) -> None:
    echo(f"Flower is at {at}, the paid calls at {at}/judge")  # echo flushes: whoever waits for us reads it
