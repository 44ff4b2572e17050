"""lrq report: a run in numbers, and two runs on the same items beside each other."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from rich.console import RenderableType
from rich.text import Text

from lrq.cli.common import json_option, settings_options
from lrq.cli.status import cut_off, round_tables
from lrq.cli.terminal import amount, console, decimal, echo, echo_json, figure, percent, table
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
    with ledger.read() as tx:
        return runs_.get_run(tx, name)


# ----- for people, in the words of the viewer (lrq/view/static/overview.js)


def _parts(facts: Mapping[str, Any]) -> Iterator[RenderableType]:
    yield Text(f"{facts['run']} · {facts['state']} · {facts['recipe']}", style="bold")
    if facts["reason"]:
        yield Text(str(facts["reason"]))
    yield _headline(facts)
    yield Text("Scores", style="bold")
    yield _score_table(facts)
    if facts["trainings"]:
        yield Text("Training", style="bold")
        yield from map(Text, _trainings(facts))
    yield from round_tables(facts)
    if facts["before_after"]:
        yield Text("Before and after training", style="bold")
        yield _evaluation_table(facts["before_after"])
    yield Text("Cost by dimension", style="bold")
    yield _call_table(facts)
    yield from map(Text, _sentences(facts))
    yield Text("")
    yield Text("Errors", style="bold")
    yield _error_table(facts)
    if "compared" in facts:
        yield from _compared_parts(facts["run"], facts["compared"])


def _headline(facts: Mapping[str, Any]) -> RenderableType:
    money = facts["money"]
    figures = {
        "items": f"{facts['items'].get('done', 0):,} of {sum(facts['items'].values()):,}",
        "responses": f"{facts['responses']:,}",
        "mean reward": decimal(facts["reward"]["mean"]),
        "rows": f"{facts['pairs']['count']:,}",
        "mean margin": decimal(facts["pairs"]["margin"]),
        "calls": f"{facts['calls']['calls']:,}",
        "cached": percent(facts["calls"]["cache_hit_rate"]),
        "money": amount(None if money["unpriced_calls"] and not money["spent"] else money["spent"]),
    }
    rows = table(*figures)
    rows.add_row(*figures.values())
    return rows


def _score_table(facts: Mapping[str, Any]) -> RenderableType:
    rows = table("dimension", "mean", "deviation", "values", "not applicable", "unscored")
    reward = facts["reward"]
    rows.add_row("reward", decimal(reward["mean"]), decimal(reward["deviation"]), f"{reward['values']:,}", "", "")
    for name, spread in facts["dimensions"].items():
        counts = (f"{spread[state]:,}" for state in ("values", "not_applicable", "unscored"))
        rows.add_row(name, decimal(spread["mean"]), decimal(spread["deviation"]), *counts)
    return rows


def _trainings(facts: Mapping[str, Any]) -> Iterator[str]:
    for each in facts["trainings"]:
        reason = f" ({each['reason']})" if each["reason"] else ""
        yield f"Training of {each['rows']:,} rows in round {each['round']}: {each['state']}{reason}"


def _evaluation_table(evaluations: Sequence[Mapping[str, Any]]) -> RenderableType:
    names = ("round", "before", "after", "difference", "95 % interval", "better", "worse", "items")
    rows = table("evaluations", *names)
    for pair in evaluations:
        means = (decimal(pair[name]) for name in ("mean_before", "mean_after", "difference"))
        interval = "–" if pair["interval"] is None else " – ".join(map(decimal, pair["interval"]))
        counts = (f"{pair[name]:,}" for name in ("better", "worse", "items"))
        rows.add_row(f"{pair['before']} → {pair['after']}", str(pair["round"]), *means, interval, *counts)
    return rows


def _call_table(facts: Mapping[str, Any]) -> RenderableType:
    rows = table("dimension", "calls", "reused", "an item", "prompt", "cached", "reply", "money")
    for name, usage in facts["dimensions"].items():
        rate = percent(usage["cached_tokens"] / usage["prompt_tokens"] if usage["prompt_tokens"] else None)
        counts = (figure(usage["calls"]), figure(usage["reused"]), f"{usage['calls_per_item']:g}")
        tokens = (figure(usage["prompt_tokens"]), rate, figure(usage["completion_tokens"]))
        rows.add_row(name, *counts, *tokens, amount(usage["cost"]))
    return rows


def _sentences(facts: Mapping[str, Any]) -> Iterator[str]:
    money = facts["money"]
    if money["saved_by_caches"]:
        yield f"Prompt caches saved {amount(money['saved_by_caches'])}."
    if money["max_cost"]:
        yield f"Budget {amount(money['max_cost'])}, spent {amount(money['spent'])}."
    if len(facts["servers"]) > 1:
        yield "Replies by server: " + ", ".join(f"{name} {number:,}" for name, number in facts["servers"].items())
    yield from cut_off({"cut": facts["cut_responses"], "count": facts["responses"]})


def _error_table(facts: Mapping[str, Any]) -> RenderableType:
    rows = table("what", "how many", "why")
    kinds = {"unscored": "unscored", "failed": "failed items", "no_pair": "no row", "rejected": "rejected lines"}
    for name, words in kinds.items():
        for reason, number in facts[name].items():
            rows.add_row(words, f"{number:,}", reason)
    rows.columns[2].justify, rows.columns[2].no_wrap = "left", False
    return rows if rows.rows else Text("None: every line was used and every score was given.")


def _compared_parts(run: str, facts: Mapping[str, Any]) -> Iterator[RenderableType]:
    names = (run, facts["with"])
    counts = f"{facts['items']} items, {facts['responses']} responses equal in both"
    yield Text(f"\n{names[0]} (A) and {names[1]} (B) on {counts}")
    rows = table("dimension", "scored", "mean A", "mean B", "B - A", "|B - A|", "rank corr.", "same order")
    for name, score in [*facts["dimensions"].items(), ("reward", facts["reward"])]:
        figures = ("mean", "other_mean", "difference", "absolute_difference", "rank_correlation")
        order = "–" if score["same_order"] is None else f"{score['same_order']:.0%} of {score['pairs']:,}"
        rows.add_row(name, str(score["count"]), *(decimal(score[figure]) for figure in figures), order)
    yield rows
    rows = table("what the scores took", "calls A", "calls B", "tokens A", "tokens B")
    first, second = (facts["took"][name] for name in names)
    for name in first | second:
        sides = [first.get(name), second.get(name)]
        rows.add_row(name, *("–" if side is None else f"{side[of]:,}" for of in ("calls", "tokens") for side in sides))
    yield rows
    if facts["same_pairs"] is not None:
        yield Text(f"{facts['items_with_pairs']} items have a pair in both, the same in {facts['same_pairs']:.0%}")
