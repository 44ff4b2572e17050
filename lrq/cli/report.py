"""lrq report: a run in numbers, and two runs on the same items beside each other."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click
from rich.console import RenderableType
from rich.text import Text

from lrq.cli.common import console, echo, echo_json, json_option, settings_options
from lrq.cli.figures import table
from lrq.cli.status import caching, cut_off, in_round, round_tables, spent
from lrq.config import Settings
from lrq.domain.errors import UsageError
from lrq.ledger import Ledger, open_ledger
from lrq.ledger import runs as runs_
from lrq.ledger.runs import Run
from lrq.reports.comparison import compared
from lrq.reports.run import summary
from lrq.view.file import MOST_ITEMS, write_page


@click.command()
@click.argument("run")
@click.option("--compare", metavar="RUN", help="Another run on the same items, e.g. with another judge.")
@click.option("--output", "-o", type=click.Path(dir_okay=False), help="Write the viewer's pages as one HTML file.")
@click.option("--items", "most", type=click.IntRange(1), default=MOST_ITEMS, show_default=True, help="At most, in it.")
@json_option
@settings_options
def report(run: str, compare: str | None, output: str | None, most: int, as_json: bool, settings: Settings) -> None:
    """Sum a run up: scores, rewards, pairs, and what they took; with --compare, how far two runs agree.

    With -o, what `lrq view` shows of the run becomes one file that opens without lrq and asks the network for nothing.

    Example: lrq report one-by-one --compare batched, or lrq report my-run -o my-run.html
    """
    if output is not None and (compare is not None or as_json):
        raise UsageError("-o writes the pages of one run: leave --compare and --json out")
    ledger = open_ledger(settings)
    if output is not None:
        written = write_page(ledger, _find(ledger, run), Path(output), most_items=most)
        left = f" of {written['of']:,}; --items raises that" if written["items"] < written["of"] else ""
        size = Path(output).stat().st_size / 1e6
        echo(f"{output}: {written['items']:,} items{left}, {size:,.1f} MB", err=True)
        return
    facts = summary(ledger, _find(ledger, run))
    if compare is not None:
        facts["compared"] = compared(ledger, _find(ledger, run), _find(ledger, compare))
    if as_json:
        echo_json(facts)
        return
    out = console()
    for part in _parts(facts):
        out.print(part)


def _find(ledger: Ledger, name: str) -> Run:
    with ledger.reading() as conn:
        return runs_.get_run(conn, name)


# ----- for people


def _parts(facts: Mapping[str, Any]) -> Iterator[RenderableType]:
    done, all_ = facts["items"].get("done", 0), sum(facts["items"].values())
    yield Text(
        f"run {facts['run']}, recipe {facts['recipe']}, {facts['state']}: {done} of {all_} items, "
        f"{facts['responses']} responses, {facts['set_aside']} lines rejected"
    )
    yield _score_table(facts)
    yield _call_table(facts)
    yield from round_tables(facts)
    yield from map(Text, _sentences(facts))
    if "compared" in facts:
        yield from _compared_parts(facts["run"], facts["compared"])


def _score_table(facts: Mapping[str, Any]) -> RenderableType:
    made = table("dimension", "mean", "deviation", "scored", "n/a", "unscored", "before")
    for name, one in facts["dimensions"].items():
        before = ", ".join(_number(past["mean"]) for past in one["before"])
        counts = (str(one[state]) for state in ("values", "not_applicable", "unscored"))
        made.add_row(name, _number(one["mean"]), _number(one["deviation"]), *counts, before)
    reward = facts["reward"]
    made.add_row("reward", _number(reward["mean"]), _number(reward["deviation"]), str(reward["values"]), "", "", "")
    return made


def _call_table(facts: Mapping[str, Any]) -> RenderableType:
    made = table("calls", "bought", "reused", "an item", "prompt", "cached", "reply", "cost", "saved")
    for name, one in facts["dimensions"].items():
        rate = f"{one['cached_tokens'] / one['prompt_tokens']:.0%}" if one["prompt_tokens"] else "–"
        counted = (f"{one['prompt_tokens']:,}", rate, f"{one['completion_tokens']:,}")
        money = ("unpriced" if one[part] is None else f"{one[part]:,.4f}" for part in ("cost", "saved"))
        made.add_row(name, f"{one['calls']:,}", f"{one['reused']:,}", f"{one['calls_per_item']:g}", *counted, *money)
    return made


def _sentences(facts: Mapping[str, Any]) -> Iterator[str]:
    pairs = facts["pairs"]
    yield f"{pairs['count']} pairs, mean margin {_number(pairs['margin'])}; money {spent(facts['money'])}"
    yield from caching(dict(facts))
    yield from cut_off({"cut": facts["cut_responses"], "count": facts["responses"]})
    yield from (f"no pair for {number} items: {reason}" for reason, number in facts["no_pair"].items())
    if len(facts["servers"]) > 1:
        yield "replies by server: " + ", ".join(f"{name} {number:,}" for name, number in facts["servers"].items())
    for one in facts["trainings"]:
        yield f"training of {one['rows']} rows{in_round(one, facts['rounds'])}: {one['state']} {one['reason']}"
    if facts["state"] == "done" and facts["reason"]:
        yield str(facts["reason"])


def _compared_parts(run: str, facts: Mapping[str, Any]) -> Iterator[RenderableType]:
    names = (run, facts["with"])
    counted = f"{facts['items']} items, {facts['responses']} responses equal in both"
    yield Text(f"\n{names[0]} (A) and {names[1]} (B) on {counted}")
    made = table("dimension", "scored", "mean A", "mean B", "B - A", "|B - A|", "rank corr.", "same order")
    for name, one in [*facts["dimensions"].items(), ("reward", facts["reward"])]:
        figures = ("mean", "other_mean", "difference", "absolute_difference", "rank_correlation")
        order = "–" if one["same_order"] is None else f"{one['same_order']:.0%} of {one['pairs']:,}"
        made.add_row(name, str(one["count"]), *(_number(one[figure]) for figure in figures), order)
    yield made
    made = table("what the scores took", "calls A", "calls B", "tokens A", "tokens B")
    first, other = (facts["took"][name] for name in names)
    for name in first | other:
        both = [first.get(name), other.get(name)]
        made.add_row(name, *("–" if one is None else f"{one[of]:,}" for of in ("calls", "tokens") for one in both))
    yield made
    if facts["same_pairs"] is not None:
        yield Text(f"{facts['items_with_pairs']} items have a pair in both, the same in {facts['same_pairs']:.0%}")


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"
