"""lrq status: what runs, what it costs, what failed."""

import asyncio
import time
from collections.abc import Mapping
from typing import Any

import click
from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from lrq.cli.common import json_option, seconds, settings_options
from lrq.cli.dashboard import dashboard
from lrq.cli.terminal import console, echo, echo_json, figure, table
from lrq.config import Settings
from lrq.domain.printable import one_line
from lrq.ledger import Ledger, open_ledger
from lrq.ledger import runs as runs_
from lrq.ledger.engine import explain
from lrq.ledger.writer import AWAY
from lrq.reports.facts import lane_facts, learned_facts, process_facts, run_facts
from lrq.reports.outcome import shortfalls
from lrq.reports.progress import progress_of

MOST_REASONS = 20  # shown; --json has all


@click.command()
@click.argument("run", required=False)
@click.option("--failed", is_flag=True, help="What was rejected, unscored or failed, with reasons.")
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
        with Live(_watched(ledger, settings, run), console=console(), auto_refresh=False) as live:
            while True:
                time.sleep(2)
                live.update(_watched(ledger, settings, run), refresh=True)
    else:
        console().print(_render(ledger, settings, run))


def _facts(ledger: Ledger, settings: Settings, name: str | None) -> dict[str, Any]:
    with ledger.read() as tx:
        runs = [runs_.get_run(tx, name)] if name else runs_.all_runs(tx)
    return {
        "runs": [run_facts(ledger, run) for run in runs],
        "processes": process_facts(ledger),
        "lanes": asyncio.run(lane_facts(ledger, settings)),
        "learned": learned_facts(ledger, settings),
    }


def _watched(ledger: Ledger, settings: Settings, name: str | None) -> RenderableType:
    """Draw one run, or those that are not done: what costs the same for any size of run."""
    try:
        with ledger.read() as tx:
            runs = [runs_.get_run(tx, name)] if name else runs_.all_runs(tx)
        shown = [run for run in runs if name or run.state != "done"] or runs[-1:]
        parts: list[RenderableType] = [dashboard(progress_of(ledger, run)) for run in shown]
        parts += [Text(_lane_line(lane)) for lane in asyncio.run(lane_facts(ledger, settings))]
        return Group(*parts, _processes_line(process_facts(ledger)))
    except AWAY as error:
        return Text(f"the ledger does not answer: {explain(error)}; waiting for it")


def _render(ledger: Ledger, settings: Settings, name: str | None) -> RenderableType:
    facts = _facts(ledger, settings, name)
    parts: list[RenderableType] = [_runs_table(facts["runs"])]
    parts += [Text(f"{run['run']} is {run['state']}: {run['reason']}") for run in facts["runs"] if run["reason"]]
    if name:
        parts += run_tables(facts["runs"][0])
    else:
        parts += [Text(f"{run['run']}: {note}") for run in facts["runs"] for note in shortfalls(run)]
    parts += [Text(_lane_line(lane)) for lane in facts["lanes"]]
    parts += [Text(f"{endpoint['name']}: {'; '.join(endpoint['learned'])}") for endpoint in facts["learned"]]
    parts.append(_processes_line(facts["processes"]))
    return Group(*parts)


def _lane_line(lane: dict[str, Any]) -> str:
    """Say how an endpoint stands: what is used of its limits, who waits, and why nothing goes out."""
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


def _runs_table(runs: list[dict[str, Any]]) -> Table:
    rows = table("run", "state", "items", "pairs", "calls", "money")
    for run in runs:
        ended = run["items"].get("done", 0) + run["items"].get("failed", 0)
        items = f"{ended:,} of {sum(run['items'].values()):,}"
        figures = (items, f"{run['pairs']:,}", f"{run['calls']['calls']:,}", spent(run["money"]))
        rows.add_row(run["run"], run["state"], *figures)
    return rows


def pace_lines(pace: dict[str, Any]) -> list[str]:
    """Say how the latest calls went, in a line or two; `pace` is that of `run_facts`, nothing where none was made."""
    if not pace["calls"]:
        return []
    rate, left = pace["per_second"], pace["seconds_left"]
    parts = [] if rate is None else [f"{rate:.1f} calls/s"]
    parts += [] if left is None else [f"about {seconds(left)} left"]
    if pace["latency_p50"] is not None:
        parts.append(f"latency p50 {pace['latency_p50']:.2f} s, p95 {pace['latency_p95']:.2f} s")
    trouble = [f"{number:,} {name}" for name, number in pace["errors"].items()]
    trouble += [f"{pace[name]:,} {words}" for name, words in (("reasks", "re-asks"), ("resent", "sent again"))]
    of = f"of the last {pace['calls']:,} calls: "
    return [*([", ".join(parts)] if parts else []), of + ", ".join(trouble)]


def spent(money: dict[str, Any]) -> str:
    """Return what was spent, and the limit where there is one; `money` is that of `run_facts`."""
    if not money["spent"] and money["unpriced_calls"]:
        return "unpriced"
    text = f"{money['spent']:.4f}"
    return f"{text} of {money['max_cost']:.2f}" if money["max_cost"] else text


def run_tables(run: dict[str, Any]) -> list[RenderableType]:
    """Return scores, calls and trainings of one run, as `run_facts` tells them, and notes of what is missing."""
    scores = table("dimension", "mean", "scored", "not applicable", "unscored")
    for name, each in run["scores"].items():
        mean = "–" if each["mean"] is None else f"{each['mean']:.2f}"
        scores.add_row(name, mean, *(str(each[state]) for state in ("value", "not_applicable", "unscored")))
    calls = table("calls", "bought", "reused", "failed", "prompt", "cached", "reply", "cost")
    for each in run["usage"]:
        where = each["kind"] if each["kind"] == each["step"] else f"{each['step']}, {each['kind']}"
        counts = ("calls", "reused", "failed", "prompt_tokens", "cached_tokens", "completion_tokens")
        cost = "unpriced" if each["unpriced"] else f"{each['cost']:.4f}"
        calls.add_row(where, *(figure(each[name]) for name in counts), cost)
    notes = [*caching(run), *in_doubt(run), *cut_off(run["responses"]), *pace_lines(run["pace"]), *shortfalls(run)]
    notes += [f"no pair for {number} items: {reason}" for reason, number in [*run["no_pair"].items()][:MOST_REASONS]]
    lines: list[RenderableType] = [scores, calls, *round_tables(run), *map(Text, notes)]
    trained = (
        f"training of {job['rows']} rows{in_round(job, run['rounds'])}: {job['state']} {job['reason']}{job['model']}"
        for job in run["trainings"]
    )
    return [*lines, *map(Text, trained)]


def round_tables(run: Mapping[str, Any]) -> list[RenderableType]:
    """Show what each round of a `run` brought, where there are several; they are counted from 0."""
    rounds = run["rounds"]
    if not rounds:
        return []
    rows = table("round", "rewarded", "mean reward", "rows", "mean margin")
    for round_ in rounds:
        means = ("–" if round_[name] is None else f"{round_[name]:.3f}" for name in ("reward", "margin"))
        reward, margin = means
        rows.add_row(str(round_["round"]), f"{round_['rewards']:,}", reward, f"{round_['pairs']:,}", margin)
    late = [round_ for round_ in rounds if round_["untrained"]]
    return [rows, *(Text(_untrained(run["run"], round_)) for round_ in late)]


def _untrained(run: str, round_: Mapping[str, Any]) -> str:
    return (
        f"{round_['untrained']:,} rows of round {round_['round']} came of a repair when later rounds had begun, and "
        f"none trains on them: `lrq train {run}` does, on the rows of all rounds"
    )


def in_round(training: dict[str, Any], rounds: list[dict[str, Any]]) -> str:
    """Name the round of a `training` where there are several."""
    return f" of round {training['round']}" if rounds else ""


def caching(run: dict[str, Any]) -> list[str]:
    """Say what prompt caches did, where they did anything."""
    if not run["calls"]["cached_tokens"]:
        return []
    saved = run["money"]["saved_by_caches"]
    money = "" if saved is None else f" and saved {saved:.4f}"
    return [f"prompt caches held {run['calls']['cache_hit_rate']:.0%} of all prompt tokens{money}"]


def cut_off(responses: dict[str, Any]) -> list[str]:
    """Say how many `responses` have no end, in a line, where any has none."""
    if not responses["cut"]:
        return []
    return [f"{responses['cut']:,} of {responses['count']:,} responses were cut by max_new_tokens"]


def in_doubt(run: dict[str, Any]) -> list[str]:
    """Say what is charged without a reply, where anything is: the tables count replies alone."""
    count, cost = run["calls"]["unknown"], run["money"]["unknown_outcome"]
    money = f", {cost:.4f} of the money" if cost else ""
    return [f"{count:,} deliveries of unknown outcome stay charged at their most{money}"] if count else []


def _processes_line(processes: list[dict[str, Any]]) -> Text:
    if not processes:
        return Text("no worker is running: `lrq up` starts them")
    names = [f"{process['type']}@{process['host']}:{process['pid']}{_noted(process['note'])}" for process in processes]
    return Text("processes: " + ", ".join(names))


def _noted(note: dict[str, Any]) -> str:
    return " (" + ", ".join(f"{name} {value}" for name, value in note.items()) + ")" if note else ""


def _print_failed(ledger: Ledger, name: str | None, as_json: bool) -> None:
    with ledger.read() as tx:
        runs = [runs_.get_run(tx, name)] if name else runs_.all_runs(tx)
        failures = [failure for run in runs for failure in runs_.failures(tx, run)]
    if as_json:
        echo_json(failures)
    for failure in failures[:MOST_REASONS] if not as_json else ():
        echo(one_line(f"{failure['run']}: {failure['what']}: {failure['reason']}"))
    if len(failures) > MOST_REASONS and not as_json:
        echo(f"and {len(failures) - MOST_REASONS:,} more; --json prints all")
    if not failures and not as_json:
        echo("nothing was rejected, unscored or failed")
