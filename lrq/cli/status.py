"""lrq status: what runs, what it costs, what failed."""

import asyncio
import time
from typing import Any

import click
from rich import box
from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from lrq.cli.common import console, echo_json, json_option, settings_options
from lrq.cli.facts import lane_facts, learned_facts, process_facts, run_facts
from lrq.config import Settings
from lrq.ledger import Ledger, open_ledger
from lrq.ledger import runs as runs_


@click.command()
@click.argument("run", required=False)
@click.option("--failed", is_flag=True, help="What was set aside, unscored or failed, with reasons.")
@click.option("--watch", is_flag=True, help="Look again every two seconds until interrupted.")
@json_option
@settings_options
def status(run: str | None, failed: bool, watch: bool, as_json: bool, settings: Settings) -> None:
    """Show runs, or one run whole.

    Example: lrq status my-run --failed
    """
    ledger = open_ledger(settings)
    if failed:
        _print_failed(ledger, run, as_json)
    elif as_json:
        echo_json(_facts(ledger, settings, run))
    elif watch:
        with Live(_render(ledger, settings, run), refresh_per_second=1) as live:
            while True:
                time.sleep(2)
                live.update(_render(ledger, settings, run))
    else:
        console().print(_render(ledger, settings, run))


def _facts(ledger: Ledger, settings: Settings, name: str | None) -> dict[str, Any]:
    with ledger.reading() as conn:
        found = [runs_.get_run(conn, name)] if name else runs_.all_runs(conn)
    return {
        "runs": [run_facts(ledger, run) for run in found],
        "processes": process_facts(ledger),
        "lanes": asyncio.run(lane_facts(ledger, settings)),
        "learned": learned_facts(ledger, settings),
    }


def _render(ledger: Ledger, settings: Settings, name: str | None) -> RenderableType:
    facts = _facts(ledger, settings, name)
    parts: list[RenderableType] = [_runs_table(facts["runs"])]
    parts += [Text(f"{run['run']} is {run['state']}: {run['reason']}") for run in facts["runs"] if run["reason"]]
    if name:
        parts += run_tables(facts["runs"][0])
    parts += [Text(_lane_line(lane)) for lane in facts["lanes"]]
    parts += [Text(f"{one['name']}: {'; '.join(one['learned'])}") for one in facts["learned"]]
    parts.append(_processes_line(facts["processes"]))
    return Group(*parts)


def _lane_line(lane: dict[str, Any]) -> str:
    """How an endpoint stands: what is used of its limits, who waits, and why nothing goes out."""
    used = [
        f"{lane[kind]['used']:,} of {lane[kind]['limit']:,.0f} {kind} a minute{' (learnt)' * lane[kind]['learnt']}"
        for kind in ("requests", "tokens")
        if lane[kind]["limit"]
    ]
    most = f" of {lane['concurrency']}" if lane["concurrency"] else ""
    used.append(f"{lane['in_flight']}{most} in flight, {lane['waiting']} waiting")
    if lane["probing"]:
        used.append("it only fails: one call at a time is tried")
    if lane["paused"] > 0:
        used.append(f"paused for {lane['paused']:.0f} s")
    return f"{lane['name']}: {', '.join(used)}"


def table(*columns: str, title: str = "") -> Table:
    made = Table(box=box.SIMPLE_HEAD, title=title or None, title_justify="left", pad_edge=False)
    for place, column in enumerate(columns):
        made.add_column(column, justify="left" if place == 0 else "right", no_wrap=True)
    return made


def _runs_table(runs: list[dict[str, Any]]) -> Table:
    made = table("run", "state", "items", "done", "failed", "set aside", "pairs", "calls", "reused", "money")
    for run in runs:
        items = run["items"]
        numbers = (sum(items.values()), items.get("done", 0), items.get("failed", 0), run["set_aside"], run["pairs"])
        calls = run["calls"]
        made.add_row(
            run["run"], run["state"], *map(str, numbers), str(calls["calls"]), str(calls["reused"]), spent(run["money"])
        )
    return made


def spent(money: dict[str, Any]) -> str:
    if not money["spent"] and money["unpriced_calls"]:
        return "unpriced"
    text = f"{money['spent']:.4f}"
    return f"{text} of {money['max_cost']:.2f}" if money["max_cost"] else text


def run_tables(run: dict[str, Any]) -> list[RenderableType]:
    """Scores, calls and trainings of one run."""
    scores = table("dimension", "mean", "scored", "not applicable", "unscored")
    for name, one in run["scores"].items():
        mean = "–" if one["mean"] is None else f"{one['mean']:.2f}"
        scores.add_row(name, mean, *(str(one[state]) for state in ("value", "not_applicable", "unscored")))
    calls = table("calls", "bought", "reused", "failed", "prompt tokens", "of it cached", "completion", "cost")
    for one in run["usage"]:
        where = one["kind"] if one["kind"] == one["step"] else f"{one['step']}, {one['kind']}"
        counts = ("calls", "reused", "failed", "prompt_tokens", "cached_tokens", "completion_tokens")
        cost = "unpriced" if one["unpriced"] else f"{one['cost']:.4f}"
        calls.add_row(where, *(f"{one[name]:,}" for name in counts), cost)
    lines: list[RenderableType] = [scores, calls, *map(Text, caching(run) + in_doubt(run))]
    for reason, number in run["no_pair"].items():
        lines.append(Text(f"no pair for {number} items: {reason}"))
    trained = (
        f"training of {one['rows']} rows: {one['state']} {one['reason']}{one['model']}" for one in run["trainings"]
    )
    return [*lines, *map(Text, trained)]


def caching(run: dict[str, Any]) -> list[str]:
    """What prompt caches did, where they did anything."""
    if not run["calls"]["cached_tokens"]:
        return []
    saved = run["money"]["saved_by_caches"]
    money = "" if saved is None else f" and saved {saved:.4f}"
    return [f"prompt caches held {run['calls']['cache_hit_rate']:.0%} of all prompt tokens{money}"]


def in_doubt(run: dict[str, Any]) -> list[str]:
    """What is charged without a reply, where anything is: the tables count replies alone."""
    count, cost = run["calls"]["unknown"], run["money"]["unknown_outcome"]
    money = f", {cost:.4f} of the money" if cost else ""
    return [f"{count:,} deliveries of unknown outcome stay charged at their most{money}"] if count else []


def _processes_line(found: list[dict[str, Any]]) -> Text:
    if not found:
        return Text("no worker is running: `lrq up` starts them")
    said = [f"{one['type']}@{one['host']}:{one['pid']}{_noted(one['note'])}" for one in found]
    return Text("processes: " + ", ".join(said))


def _noted(note: dict[str, Any]) -> str:
    return " (" + ", ".join(f"{name} {value}" for name, value in note.items()) + ")" if note else ""


def _print_failed(ledger: Ledger, name: str | None, as_json: bool) -> None:
    with ledger.reading() as conn:
        found = [runs_.get_run(conn, name)] if name else runs_.all_runs(conn)
        failures = [failure for run in found for failure in runs_.failures(conn, run)]
    if as_json:
        echo_json(failures)
    for failure in failures if not as_json else ():
        click.echo(f"{failure['run']}: {failure['what']}: {failure['reason']}")
    if not failures and not as_json:
        click.echo("nothing was set aside, unscored or failed")
