"""`lrq judge-sim`: the offline judge as a server."""

import asyncio
import signal
from collections.abc import Mapping
from typing import Any

import click

from lrq.cli.common import raise_file_limit
from lrq.cli.terminal import echo
from lrq.domain.errors import UsageError
from lrq.domain.origin import is_loopback
from lrq.sim.faults import FAULTS
from lrq.sim.options import NOTICE, Options
from lrq.sim.server import serve

RATE = click.FloatRange(0, 1)
COUNT = click.IntRange(min=1)


@click.command(
    "judge-sim",
    epilog="Example: lrq judge-sim --latency 300 --rpm 6000 --fault-500 0.03; who uses it sets "
    "LRQ_JUDGE_URL=http://127.0.0.1:8099/v1 and LRQ_JUDGE_MODEL=judge-sim",
    help=f"""Serve an offline stand-in for a judge, a policy and an embedding model.

    It is {NOTICE}: it reads the fenced sections of lrq's prompts and decides by comparing texts. It speaks the
    OpenAI API (/v1/chat/completions, /v1/embeddings, /v1/models) and counts what it sent at /stats.""",
)
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=8099, show_default=True, type=click.IntRange(0, 65535), help="0 picks a free one.")
@click.option("--model", "models", multiple=True, help="A model name to serve; repeatable.  [default: any]")
@click.option("--api-key", help="Refuse requests without this key; needed where other machines reach it.")
@click.option("--allow-host", "hosts", multiple=True, metavar="NAME", help="A name it is reached under; repeatable.")
@click.option("--seed", default=0, show_default=True, help="Of faults and jitter.")
@click.option("--latency", "latency_ms", default=0.0, type=click.FloatRange(0), help="Mean milliseconds per reply.")
@click.option("--jitter", "jitter_ms", default=0.0, type=click.FloatRange(0), help="Milliseconds around the mean.")
@click.option("--rpm", type=COUNT, help="Requests per window; more get a 429.")
@click.option("--tpm", type=COUNT, help="Tokens per window; more get a 429.")
@click.option("--concurrency", type=COUNT, help="Requests at once; more get a 429.")
@click.option("--slots", type=COUNT, help="Requests at once; more wait, as on a self-hosted server.")
@click.option("--window", default=60.0, show_default=True, type=click.FloatRange(0, min_open=True), help="Seconds.")
@click.option("--no-headers", "headers", is_flag=True, flag_value=False, default=True, help="Send no limit headers.")
@click.option("--quota", type=click.IntRange(0), help="Requests until the account has no credit left.")
@click.option("--max-context", type=COUNT, help="Tokens of prompt and completion the model takes.")
@click.option("--fault-500", type=RATE, default=0.0, help="Share of requests that fail with status 500.")
@click.option("--fault-reset", type=RATE, default=0.0, help="Share whose connection is reset.")
@click.option("--fault-hang", type=RATE, default=0.0, help="Share that never gets a reply.")
@click.option("--fault-empty", type=RATE, default=0.0, help="Share with an empty reply.")
@click.option("--fault-unreadable", type=RATE, default=0.0, help="Share with a reply that holds no mark.")
@click.option("--hang-seconds", default=600.0, show_default=True, type=click.FloatRange(0), help="End of a hang.")
@click.option("--reasoning", is_flag=True, help="Reason in reasoning_content, as reasoning judges do.")
@click.option("--canned", is_flag=True, help="One fixed tiny reply to everything, for benchmarks of clients.")
def judge_sim(**settings: Any) -> None:
    options = _options(settings)
    raise_file_limit()
    try:
        asyncio.run(_serve(options))
    except OSError as wrong:
        where = f"{options.host}:{options.port}"
        raise UsageError(f"judge-sim cannot listen on {where} ({wrong.strerror}): choose another --port.") from wrong


def _options(settings: Mapping[str, Any]) -> Options:
    rates = {name: settings[f"fault_{name}"] for name in FAULTS}
    if sum(rates.values()) > 1:
        raise click.UsageError("The --fault rates are shares of all requests: let them add up to at most 1.")
    if not (is_loopback(settings["host"]) or settings["api_key"]):
        raise UsageError(f"{settings['host']} is open to other machines: set --api-key, or leave --host at 127.0.0.1")
    plain = {name: value for name, value in settings.items() if not name.startswith("fault_")}
    return Options(**plain, faults={name: rate for name, rate in rates.items() if rate})


async def _serve(options: Options) -> None:
    stop = asyncio.Event()
    for sign in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(sign, stop.set)
    async with serve(options) as running:
        echo(f"judge-sim is {NOTICE}: it compares texts by rules, for tests and demonstrations.", err=True)
        echo(f"judge-sim listening on {running.url}")  # echo flushes: whoever started it waits for this line
        await stop.wait()
