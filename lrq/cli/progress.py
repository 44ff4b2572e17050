"""Working on a run as a command: its progress on the terminal, its end as an exit code, its results in files."""

import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from lrq.cli import EXIT_ACCOUNT, EXIT_BUDGET, EXIT_ERROR, EXIT_INTERRUPTED, EXIT_PARTLY
from lrq.cli.common import console, echo, echo_json, seconds
from lrq.cli.status import pace_lines, run_tables
from lrq.config import Settings
from lrq.ledger import Ledger
from lrq.ledger import runs as runs_
from lrq.ledger.items import count_rows
from lrq.ledger.runs import Run
from lrq.operations.execute import execute, is_over
from lrq.operations.results import write_results
from lrq.reports.facts import pace_facts, process_facts, run_facts
from lrq.reports.outcome import End, outcome_of
from lrq.workers.collector import open_collector

_PACE_EVERY = 2.0  # seconds between looks at the latest calls
_CODES: Mapping[End, int] = {
    "done": 0,
    "partly": EXIT_PARTLY,
    "failed": EXIT_ERROR,
    "budget": EXIT_BUDGET,
    "account": EXIT_ACCOUNT,
    "halted": EXIT_ERROR,
}


def process_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say how many processes are started."""
    command = click.option("--samplers", type=click.IntRange(min=1), default=1, help="Sampler processes.")(command)
    return click.option("--judges", type=click.IntRange(min=1), default=1, help="Judge processes.")(command)


def work_on(
    ledger: Ledger,
    settings: Settings,
    name: str,
    *,
    judges: int = 1,
    samplers: int = 1,
    as_json: bool = False,
    scores_only: bool = False,
) -> int:
    """Work on a run until it is at an end or halted, and print what came out; returns the exit code.

    scores_only: a run without a pair has made what was wanted.
    """
    code = finish(ledger, settings, name, judges=judges, samplers=samplers, scores_only=scores_only)
    with ledger.reading() as conn:
        run = runs_.get_run(conn, name)
    if run.state == "done":
        _print_results(ledger, settings, run, as_json)
    return code


def finish(
    ledger: Ledger, settings: Settings, name: str, *, judges: int = 1, samplers: int = 1, scores_only: bool = False
) -> int:
    """Work on a run until it is at an end or halted; returns the exit code."""
    collector = open_collector(ledger, "run")
    run = work_until(ledger, settings, name, judges=judges, samplers=samplers)
    if collector is not None:
        if run is not None:
            collector.add_run(run)
        collector.close()
    if run is None:
        return EXIT_INTERRUPTED
    outcome = outcome_of(ledger, run, scores_only=scores_only)
    for note in outcome.notes:
        echo(f"run {run.name} {note}" if run.state != "done" else f"run {run.name}: {note}", err=True)
    return _CODES[outcome.end]


def work_until(
    ledger: Ledger,
    settings: Settings,
    name: str,
    until: Callable[[Run], bool] = is_over,
    *,
    judges: int = 1,
    samplers: int = 1,
) -> Run | None:
    """Work on a run, showing how far it is, until it is as wanted; None: interrupted before."""
    try:
        with Bars() as bars:
            return execute(ledger, settings, name, until=until, judges=judges, samplers=samplers, display=bars)
    except KeyboardInterrupt:
        echo(f"interrupted; replies in flight are kept; `lrq resume {name}` goes on", err=True)
        return None


class Bars:
    """Items and training steps; a line now and then where the output is no terminal."""

    def __init__(self) -> None:
        columns = TextColumn("{task.description}"), BarColumn(10), MofNCompleteColumn()
        self._console = console(err=True)
        self._progress = Progress(*columns, TextColumn("{task.fields[said]}"), console=self._console)
        self._tasks: dict[str, Any] = {}
        self._due = self._look_due = 0.0
        self._pace: dict[str, Any] = {}
        self._trouble: dict[str, Any] = {}
        self._pairs = self._calls = 0
        self._lanes: set[str] = set()  # endpoints that fail
        self._said: set[str] = set()  # what was said and lasts

    def __enter__(self) -> "Bars":
        if sys.stderr.isatty():
            self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        if sys.stderr.isatty():
            self._progress.stop()

    def show(self, ledger: Ledger, run: Run) -> None:
        """Show items and training steps; figures of the latest calls every few seconds."""
        with ledger.reading() as conn:
            states = runs_.item_states(conn, run.id)
            step = runs_.last_metric(conn, run.id)
            if time.monotonic() >= self._look_due:
                self._look_due = time.monotonic() + _PACE_EVERY
                usage = runs_.usage_of(conn, run.id)
                self._pace = pace_facts(ledger, conn, run, usage)
                self._pairs, self._calls = count_rows(conn, run.id), sum(row.calls for row in usage)
        ended = states.get("done", 0) + states.get("failed", 0)
        self._bar(
            f"items, round {run.round}" if run.round else "items",
            ended,
            sum(states.values()),
            ", ".join(self._figures(run)),
        )
        if step is not None:
            self._bar("training", step["step"], step["of"], f"loss {step['loss']:.4f}")
        self._say_waiting(ledger)
        is_terminal = sys.stderr.isatty()
        if time.monotonic() >= self._due:
            self._due = time.monotonic() + 10
            trained = "" if step is None else f", training step {step['step']} of {step['of']}"
            figures = ", ".join([f"{self._calls:,} calls", *self._figures(run)])
            if not is_terminal:
                counted = f"{ended} of {sum(states.values())} items" + (f" in round {run.round}" if run.round else "")
                echo(f"{run.name}: {counted}, {figures}{trained}", err=True)
            self._say_trouble()

    def _figures(self, run: Run) -> list[str]:
        """Pairs, money, rate and time left, as far as they are known: with the bar 80 columns at most."""
        money = f"{run.spent_cost / 1e6:.4f}" + (f" of {run.max_cost / 1e6:.2f}" if run.max_cost else "")
        rate, left = self._pace["per_second"], self._pace["seconds_left"]
        said = [f"{self._pairs:,} pairs", *([money] if run.spent_cost else [])]
        said += [] if rate is None else [f"{rate:.1f} calls/s"]
        return said + ([] if left is None else [f"{seconds(left)} left"])

    def _say_trouble(self) -> None:
        """Errors and re-asks, when there are others than were said last."""
        trouble = {name: self._pace[name] for name in ("errors", "reasks", "resent")}
        if any(trouble.values()) and trouble != self._trouble:
            self.say(pace_lines(self._pace)[-1])
        self._trouble = trouble

    def _say_waiting(self, ledger: Ledger) -> None:
        said = [str(one["note"]["waiting for"]) for one in process_facts(ledger) if "waiting for" in one["note"]]
        waits = {text.partition(": ")[0]: text for text in said}
        for lane in self._lanes | waits.keys():
            self.say_while(lane, f"waiting for {waits[lane]}" if lane in waits else "")
        self._lanes = set(waits)

    def say(self, text: str) -> None:
        """Print a line above the bars."""
        self._console.print(text, soft_wrap=True, highlight=False)

    def say_while(self, about: str, text: str) -> None:
        """Print a line above the bars once for as long as there is a text about this matter."""
        if text and about not in self._said:
            self.say(text)
        (self._said.add if text else self._said.discard)(about)

    def _bar(self, name: str, done: int, total: int, said: str) -> None:
        if name not in self._tasks:
            self._tasks[name] = self._progress.add_task(name, total=total, said=said)
        self._progress.update(self._tasks[name], completed=done, total=total, said=said)


def _print_results(ledger: Ledger, settings: Settings, run: Run, as_json: bool) -> None:
    """Write the result files, print what came out and where it lies."""
    facts = run_facts(ledger, run)
    written = write_results(ledger, settings, run)
    if as_json:
        echo_json(facts | {"files": [str(path) for path in written]})
        return
    out = console()
    for part in run_tables(facts):
        out.print(part)
    mean = facts["rewards"]["mean"]
    out.print(
        f"{sum(facts['items'].values())} items, {facts['responses']['count']} responses, mean reward "
        f"{'–' if mean is None else mean}, {facts['pairs']} pairs"
    )
    models = [training["model"] for training in facts["trainings"] if training["model"]]
    for path in (*map(str, written), *models):
        out.print(path, soft_wrap=True)
