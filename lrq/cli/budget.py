"""lrq budget: change what a run may spend."""

import click

from lrq.cli.common import json_option, money, parse_money, settings_options
from lrq.cli.terminal import echo, echo_json
from lrq.config import Settings
from lrq.ledger import open_ledger
from lrq.ledger import runs as runs_
from lrq.ledger.backlog import advance_run
from lrq.run_config import load_run_config


@click.command()
@click.argument("run")
@click.option("--max-cost", metavar="MONEY", help="The new limit, e.g. 25.00.")
@click.option("--max-tokens", type=click.IntRange(min=1), help="The new limit.")
@json_option
@settings_options
def budget(run: str, max_cost: str | None, max_tokens: int | None, as_json: bool, settings: Settings) -> None:
    """Show what a run has spent, or change its limits; a run that its budget stopped goes on.

    Example: lrq budget my-run --max-cost 25
    """
    ledger = open_ledger(settings)
    with ledger.write() as tx:
        stored = runs_.get_run(tx, run)
        halted = stored.halt
        if max_cost is not None or max_tokens is not None:
            runs_.set_budget(tx, stored.id, max_cost=parse_money(max_cost), max_tokens=max_tokens)
            advance_run(tx, stored.id, load_run_config(stored.recipe, stored.config).schedule)
            stored = runs_.get_run(tx, run)
    facts = {
        "run": run,
        "spent": stored.spent_cost / 1e6,
        "max_cost": None if stored.max_cost is None else stored.max_cost / 1e6,
        "tokens": stored.spent_tokens,
        "max_tokens": stored.max_tokens,
        "state": stored.state,
    }
    if as_json:
        echo_json(facts)
        return
    limits = [] if stored.max_cost is None else [money(stored.max_cost)]
    limits += [] if stored.max_tokens is None else [f"{stored.max_tokens:,} tokens"]
    echo(
        f"run {run}, {stored.state}: spent {money(stored.spent_cost)}, {stored.spent_tokens:,} tokens; "
        f"limit: {' and '.join(limits) or 'none'}"
    )
    if halted and stored.state == "active":
        echo(f"`lrq resume {run}` goes on with it, where no `lrq up` does", err=True)
