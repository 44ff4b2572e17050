"""lrq label: people compare responses, to see how far rewards agree with them."""

import getpass
from urllib.parse import quote

import click

from lrq.cli.common import settings_options
from lrq.cli.view import check_run, open_option, port_option, serve_pages
from lrq.config import Settings
from lrq.ledger import open_ledger


@click.command()
@click.argument("run")
@click.option("--who", help="Whose labels they are.  [default: the user of this machine]")
@port_option
@open_option
@settings_options
def label(run: str, who: str | None, port: int, opens: bool, settings: Settings) -> None:
    """Compare two responses at a time in the browser: 1 left, 2 right, 0 a tie, space skips, u takes back.

    The pairs that say most come first: rewards that lie close together, and dimensions that contradict the reward.
    Which one the run prefers is hidden, and sides are drawn at random. `lrq agreement RUN` compares labels with
    rewards, `lrq export RUN --format labels` writes them.

    Example: lrq label my-run --who ada --open
    """
    ledger = open_ledger(settings)
    check_run(ledger, run)
    name = (who or getpass.getuser()).strip()[:100]
    serve_pages(
        ledger, port=port, opens=opens, page=f"#/run/{quote(run, safe='')}/label", who=name, flower=settings.flower_url
    )
