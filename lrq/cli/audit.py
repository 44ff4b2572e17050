"""lrq audit: what in a run's rewards cannot be trusted."""

from typing import Any

import click

from lrq.cli.common import json_option, settings_options
from lrq.cli.terminal import console, decimal, echo_json, percent, table
from lrq.config import Settings
from lrq.domain.audit import CHECKS
from lrq.ledger import open_ledger
from lrq.ledger import runs as runs_
from lrq.reports.audit import audit as audit_run


@click.command()
@click.argument("run")
@json_option
@settings_options
def audit(run: str, as_json: bool, settings: Settings) -> None:
    """Name what in a run's rewards cannot be trusted, from the ledger alone: nothing is sent.

    Shares of what is unscored or cut; dimensions in which responses tie or nearly all have one value; rewards that
    rank as the lengths of responses do; comparisons that the order of two responses decides; re-asks; several votes
    that contradict each other; and how often rewards prefer what people preferred (`lrq label RUN`). The last column
    says what a person should look at. All figures are of the current round and of at most 2,000 items.

    Example: lrq audit my-run
    """
    ledger = open_ledger(settings)
    with ledger.read() as tx:
        stored = runs_.get_run(tx, run)
    facts = audit_run(ledger, stored)
    ledger.close()
    if as_json:
        echo_json(facts)
        return
    _print(facts)


def _print(facts: dict[str, Any]) -> None:
    out = console()
    figures = table("check", "figure", "counted", "doubt")
    for each in facts["figures"]:
        is_rank = each["check"] == "reward against length"
        value = decimal(each["value"]) if is_rank else percent(each["value"])
        count = f"{each['count']:,} {CHECKS[each['check']][0]}"
        figures.add_row(" · ".join(filter(None, (each["check"], each["of"]))), value, count, each["doubt"])
    figures.columns[3].justify = "left"
    out.print(figures)
    doubts = sum(bool(each["doubt"]) for each in facts["figures"])
    of = f"{facts['items']:,} of {facts['of']:,} items" if facts["items"] < facts["of"] else f"{facts['of']:,} items"
    out.print(f"{doubts} doubts in {len(facts['figures'])} figures of {of}", soft_wrap=True)
