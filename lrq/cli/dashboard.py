"""A run at work, drawn in place: how far, how fast, when done, what it costs, what fails and what it waits for."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from lrq.cli.common import seconds
from lrq.cli.terminal import figure, table
from lrq.reports.outcome import because

_STYLES = {"active": "green", "done": "green", "paused": "yellow", "stopped": "yellow"}


def dashboard(progress: Mapping[str, Any], now: datetime | None = None) -> RenderableType:
    """Return the picture of what `progress_of` tells, at most 80 columns wide.

    Args:
        now: when it is drawn, UTC; the end is foreseen from here.
    """
    lines: list[RenderableType] = [_title(progress), _bar(progress), Text(" · ".join(_pace(progress, now)))]
    money = _money(progress)
    lines += [Text(" · ".join(money))] if money else []
    if progress["stages"]:
        lines.append(_stages(progress))
    if step := progress["training"]:
        lines.append(Text(f"training step {step['step']} of {step['of']}, loss {step['loss']:.4f}"))
    lines += [Text(f"failing: {text}", style="red") for text in failing(progress)]
    lines += [Text(f"waiting for {text}", style="yellow") for text in progress["waits"]]
    return Group(*lines)


def _title(progress: Mapping[str, Any]) -> RenderableType:
    title = Text.assemble((progress["run"], "bold"), " ", (progress["state"], _STYLES.get(progress["state"], "")))
    if progress["round"]:
        title.append(f", round {progress['round']}")
    if progress["reason"]:
        title.append(f": {progress['reason']}")
    return title


def _bar(progress: Mapping[str, Any]) -> RenderableType:
    grid = Table.grid(padding=(0, 1))
    ended, items = progress["ended"], progress["items"]
    words = f"{ended:,} of {items:,} items, {ended / items:.0%}" if items else "no items yet"
    grid.add_row(ProgressBar(total=max(items, 1), completed=ended, width=40), Text(words))
    return grid


def _pace(progress: Mapping[str, Any], now: datetime | None) -> list[str]:
    """Return how fast it goes and when it ends."""
    pace = progress["pace"]
    words = [f"{progress['calls']:,} calls", f"{progress['pairs']:,} pairs"]
    words += [] if pace["per_second"] is None else [f"{pace['per_second']:.1f} calls/s"]
    if pace["latency_p50"] is not None:
        words.append(f"p50 {pace['latency_p50']:.1f} s")
    if (left := pace["seconds_left"]) is not None:
        end = datetime.fromtimestamp((now or datetime.now(UTC)).timestamp() + left, UTC)
        words.append(f"{seconds(left)} left, done at {end:%H:%M} UTC")
    return words


def _money(progress: Mapping[str, Any]) -> list[str]:
    money = progress["money"]
    if money["spent"] is None:
        return ["unpriced"]
    if not money["spent"] and money["max_cost"] is None:
        return []
    budget = "" if money["max_cost"] is None else f" of a budget of {money['max_cost']:.2f}"
    expected = [] if money["expected"] is None else [f"about {money['expected']:.2f} in all"]
    return [f"spent {money['spent']:.4f}{budget}", *expected]


def _stages(progress: Mapping[str, Any]) -> RenderableType:
    rows = table("stage", "ready", "at work", "calls", "failed", "money", "latency")
    for stage in progress["stages"]:
        counts = (figure(stage[name]) for name in ("ready", "at_work", "calls", "failed"))
        cost = "–" if stage["cost"] is None else f"{stage['cost']:.4f}"
        latency = "–" if stage["latency"] is None else f"{stage['latency']:.1f} s"
        rows.add_row(stage["stage"], *counts, cost, latency)
    return rows


def failing(progress: Mapping[str, Any]) -> list[str]:
    """Return what fails and why, each in a line, of what `progress_of` tells; nothing where all is well."""
    pace = progress["pace"]
    trouble = [f"{number:,} {name}" for name, number in pace["errors"].items()]
    trouble += [
        f"{pace[name]:,} {words}" for name, words in (("reasks", "re-asks"), ("resent", "sent again")) if pace[name]
    ]
    lines = [f"of the last {pace['calls']:,} calls {', '.join(trouble)}"] if trouble else []
    failed = sum(progress["failed"].values())
    return lines + ([f"{failed:,} items{because(progress['failed'], 2)}"] if failed else [])
