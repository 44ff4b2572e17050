"""lrq view: runs, items and scores in the browser."""

import asyncio
import signal
import webbrowser
from urllib.parse import quote

import click

from lrq.cli.common import settings_options
from lrq.cli.terminal import echo
from lrq.config import Settings
from lrq.ledger import Ledger, open_ledger
from lrq.ledger import runs as runs_
from lrq.view.server import serve

port_option = click.option("--port", type=click.IntRange(0, 65535), default=0, help="0 picks a free one.")
open_option = click.option("--open", "opens", is_flag=True, help="Open it in the browser.")


@click.command()
@click.argument("run", required=False)
@port_option
@open_option
@settings_options
def view(run: str | None, port: int, opens: bool, settings: Settings) -> None:
    """Show runs in the browser: scores, rewards and rows in charts, each item down to the judge's words.

    It answers on this machine alone, and only to who has the link that it prints. It reads; `lrq label` writes.

    Example: lrq view my-run --open
    """
    ledger = open_ledger(settings)
    check_run(ledger, run)
    serve_pages(
        ledger, port=port, opens=opens, page=f"#/run/{quote(run, safe='')}" if run else "", flower=settings.flower_url
    )


def check_run(ledger: Ledger, run: str | None) -> None:
    """Refuse a `run` that there is not; None is all of them. Raises UsageError."""
    if run:
        with ledger.read() as tx:
            runs_.get_run(tx, run)


def serve_pages(ledger: Ledger, *, port: int, opens: bool, page: str, who: str = "", flower: str | None = None) -> None:
    """Serve until Ctrl-C or SIGTERM; print the link, or open it. Closes the ledger.

    Args:
        port: 0 picks a free one.
        page: where the link leads, as `#/run/NAME`.
        who: whose labels are written; empty: pages only read.
        flower: URL of Flower's pages, to link to.
    """
    try:
        asyncio.run(_serve(ledger, port=port, opens=opens, page=page, who=who, flower=flower or ""))
    finally:
        ledger.close()


async def _serve(ledger: Ledger, *, port: int, opens: bool, page: str, who: str, flower: str) -> None:
    stop = asyncio.Event()
    for sign in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(sign, stop.set)
    async with serve(ledger, port=port, who=who, flower=flower) as url:
        echo(f"open {url}{page}  (Ctrl-C ends it)")  # echo flushes: whoever waits for us reads it
        if opens:
            await asyncio.to_thread(webbrowser.open, f"{url}{page}")
        await stop.wait()
