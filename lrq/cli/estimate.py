"""lrq estimate: calls, tokens, money and hours before the first call."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import click
from rich.console import Console

from lrq.cli import EXIT_PARTLY
from lrq.cli.common import apply_settings, dataset_options, flags_of, intent_of, json_option, reading_bar, seconds
from lrq.cli.progress import process_options, work_until
from lrq.cli.terminal import console, echo, echo_json, table
from lrq.config import Settings, merge_flags
from lrq.domain.errors import LrqError, UsageError
from lrq.estimate.cost import Estimate, Pricing, estimate_facts, limit_notes, simulated
from lrq.estimate.dry_run import DryRun
from lrq.estimate.preview import preview
from lrq.estimate.survey import Seen, survey
from lrq.judge.estimate import calibrated
from lrq.ledger import Ledger, intakes, open_ledger
from lrq.ledger import items as items_
from lrq.ledger import runs as runs_
from lrq.ledger.runs import Run
from lrq.operations.execute import is_over
from lrq.operations.ingest import Ingested, Intent, ingest, name_of
from lrq.operations.pairable import check_pairable, no_pair, some_no_pair
from lrq.reports.pairable import responses_needed
from lrq.reports.usage import bill_of
from lrq.run_config import load_run_config, snapshot_config

MOST_REASONS = 20  # why lines are rejected


@click.command()
@dataset_options
@click.option("--pilot", type=click.IntRange(min=1), metavar="N", help="Run N items first, as part of the run.")
@click.option("--sample", type=click.IntRange(min=2), default=30, show_default=True, help="Items to look at closely.")
@click.option("--response-tokens", type=click.IntRange(min=1), help="Of responses yet to be sampled; else as `answer`.")
@click.option("--config", type=click.Path(exists=True, dir_okay=False), help="Settings file instead of ./lrq.yaml.")
@click.option("--set", "flags", multiple=True, metavar="KEY=VALUE", help="A setting, e.g. judge.rpm=500; repeatable.")
@process_options
@json_option
def estimate(
    config: str | None,
    flags: tuple[str, ...],
    pilot: int | None,
    sample: int,
    response_tokens: int | None,
    judges: int,
    samplers: int,
    as_json: bool,
    **options: Any,
) -> int:
    """Say what a dataset will take, from the real lengths of its lines; nothing is asked and nothing is charged.

    With --pilot the first N items are worked on in earnest, as the beginning of the run, and what they took corrects
    the estimate. `lrq run` with the same options goes on from there.

    Example: lrq estimate dataset.jsonl --price 0.15,0.6 --pilot 5
    """
    shortcuts = flags_of(options)
    settings = apply_settings(config, merge_flags(flags, shortcuts))
    intent = intent_of(options)
    if pilot and intent.file == "-":
        raise UsageError("a pilot reads the lines twice: give a file instead of standard input")
    frozen = load_run_config(settings.recipe, snapshot_config(settings, train=intent.train))
    make = partial(DryRun, frozen, response_tokens=response_tokens, simulated=simulated(settings))
    if pilot:
        check_pairable(settings, intent)
    sight = survey(settings, intent, frozen, make, sample=sample, first=pilot or 0, watch=reading_bar)
    if pilot:
        facts = _pilot(settings, replace(intent, limit=pilot), sight, judges=judges, samplers=samplers)
    else:
        facts = _facts(settings, sight.estimate)
    needed, items_ = responses_needed(frozen.config), sight.estimate.items
    notes = some_no_pair(sight.cannot_pair, items_, needed) + limit_notes(facts, intent.max_cost, intent.max_tokens)
    facts |= {"cannot_pair": sight.cannot_pair, "notes": [*facts["notes"], *notes]}
    if as_json:
        echo_json(facts | {"set_aside": sight.set_aside})
    else:
        show(facts)
        if sight.set_aside:
            echo(f"{sight.set_aside} lines would be rejected", err=True)
            for reason, number in sight.reasons.most_common(MOST_REASONS):
                echo(f"  {number:,} × {reason}", err=True)
    if sight.cannot_pair == items_ and not intent.scores_only:
        raise UsageError(no_pair(intent.file, sight.most_responses, needed, is_given=sight.are_given))
    return EXIT_PARTLY if sight.set_aside else 0


def _facts(settings: Settings, estimate: Estimate) -> dict[str, Any]:
    ledger = _ledger_if_any(settings)
    pricing = Pricing.of(settings, ledger)
    if ledger is not None:
        ledger.close()
    return estimate_facts(replace(estimate, bill=pricing.replied(estimate.bill)), pricing)


def _ledger_if_any(settings: Settings) -> Ledger | None:
    try:
        return open_ledger(settings)
    except LrqError:
        return None  # nothing was ever counted here


def _pilot(settings: Settings, intent: Intent, seen: Seen, **counts: int) -> dict[str, Any]:
    """Run the first items as the run's beginning; the estimate as they correct it."""
    ledger = open_ledger(settings, create=True)
    run = _begin(ledger, settings, intent, seen.ids)
    if work_until(ledger, settings, run.name, lambda run: is_over(run) or run.open_items == 0, **counts) is None:
        raise click.Abort
    with ledger.read() as tx:
        run = runs_.get_run(tx, run.name)
        if run.state not in {"active", "done"}:
            raise LrqError(f"the pilot is {run.state}: {run.reason}")
        billed = bill_of(tx, items_.ids_of(tx, run.id, seen.ids))
    pricing = Pricing.of(settings, ledger)
    ledger.close()
    before = pricing.replied(seen.first)
    bill = calibrated(pricing.replied(seen.estimate.bill), before, billed)
    facts = estimate_facts(replace(seen.estimate, bill=bill), pricing)
    actual = estimate_facts(Estimate(items=len(seen.ids), responses=0, looked_at=len(seen.ids), bill=billed), pricing)
    names = ("items", "calls", "tokens", "cost", "unpriced_calls")
    return facts | {"pilot": {"run": run.name, **{name: actual[name] for name in names}}}


def _begin(ledger: Ledger, settings: Settings, intent: Intent, ids: Sequence[str]) -> Run:
    """Begin the run with its first items; while more lines may come it is never at its end, and nothing is trained."""
    with ledger.read() as tx:
        run = runs_.find_run(tx, intent.name or name_of(intent.file))
        is_begun = run is not None and len(items_.ids_of(tx, run.id, ids)) == len(ids)
    if run is None or not is_begun:
        run = ingest(ledger, settings, intent, send=False).run
        with ledger.write() as tx:
            runs_.set_ingesting(tx, run.id, intakes.PILOT)
    return run


def cost_of(facts: Mapping[str, Any]) -> str:
    """Return the money of a bill or of a part of it, in words; `facts` are as `estimate_facts` returns them."""
    if facts["cost"] is None:
        return "unpriced"
    unpriced = f" and {facts['unpriced_calls']:,} calls unpriced" if facts["unpriced_calls"] else ""
    return f"{facts['cost']:,.4f}{unpriced}"


def sentence(facts: Mapping[str, Any]) -> str:
    """Return calls, tokens, money and hours in a line; `facts` are as `estimate_facts` returns them."""
    if not facts["kinds"]:
        return "no paid calls"
    within = f" (give or take {facts['uncertainty']:.0%})" if facts["uncertainty"] >= 0.005 else ""
    amounts = f"{facts['calls']:,} calls, {facts['tokens']:,} tokens{within}"
    return f"{amounts}; {_money_in_words(facts)}; {_time_in_words(facts)}"


def _money_in_words(facts: Mapping[str, Any]) -> str:
    if facts["cost"] is None:
        return "unpriced: --price IN,OUT per million tokens tells the money"
    uncached = facts["cost_uncached"]
    saved = f", {uncached:,.4f} if no prompt is cached" if uncached > facts["cost"] * 1.005 else ""
    return f"money {cost_of(facts)}{saved}"


def _time_in_words(facts: Mapping[str, Any]) -> str:
    if facts["hours"] is None:
        return "hours unknown: no limit is set (judge.rpm, judge.tpm or judge.concurrency)"
    return f"at least {seconds(facts['hours'] * 3600)} by the {facts['limited_by']}"


def preview_if_possible(ledger: Ledger, settings: Settings, ingested: Ingested, before: int) -> dict[str, Any] | None:
    """Return the estimate of what was just read; where there can be none, say why and return None.

    `before` is the ledger's last item of before it was read.
    """
    try:
        return preview(ledger, settings, ingested, before)
    except LrqError as error:
        echo(str(error), err=True)
        return None


def print_facts(console: Console, facts: Mapping[str, Any]) -> None:
    """Print what `estimate_facts` returns, by dimension and in a sentence."""
    rows = table("dimension", "calls", "prompt tokens", "cached", "completion", "cost")
    for name, part in [*facts["dimensions"].items(), ("all", facts)]:
        counts = (f"{part[count]:,}" for count in ("calls", "prompt_tokens", "cached_tokens", "completion_tokens"))
        rows.add_row(name, *counts, cost_of(part))
    console.print(rows)
    amounts = f"{facts['items']:,} items, {facts['responses']:,} responses"
    for line in (f"{amounts}; {facts['looked_at']} items looked at closely", sentence(facts), *facts["notes"]):
        console.print(line, soft_wrap=True, highlight=False)


def show(facts: dict[str, Any]) -> None:
    """Print an estimate, and what its `pilot` took where there was one."""
    out = console()
    print_facts(out, facts)
    if pilot := facts.get("pilot"):
        out.print(
            f"the pilot of {pilot['items']} items took {pilot['calls']:,} calls, {pilot['tokens']:,} tokens, "
            f"{cost_of(pilot)}; `lrq run` with the same options goes on with run {pilot['run']}",
            soft_wrap=True,
        )
