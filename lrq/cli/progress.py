"""Working on a run as a command: its progress on the terminal, its end as an exit code, its results in files."""

import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import click
from rich.live import Live

from lrq.cli import EXIT_ACCOUNT, EXIT_BUDGET, EXIT_ERROR, EXIT_INTERRUPTED, EXIT_PARTLY
from lrq.cli.common import seconds
from lrq.cli.dashboard import dashboard, failing
from lrq.cli.status import run_tables
from lrq.cli.terminal import console, echo, echo_json
from lrq.config import Settings
from lrq.ledger import Ledger
from lrq.ledger import runs as runs_
from lrq.ledger.runs import Run
from lrq.operations.execute import execute, is_over
from lrq.operations.results import write_results
from lrq.reports.facts import run_facts
from lrq.reports.outcome import End, outcome_of
from lrq.reports.progress import progress_of
from lrq.workers.collector import open_collector

_DRAW_EVERY = 1.0  # seconds
_LINE_EVERY = 10.0  # seconds between lines where the output is no terminal
_CODES: Mapping[End, int] = {
    "done": 0,
    "partly": EXIT_PARTLY,
    "failed": EXIT_ERROR,
    "budget": EXIT_BUDGET,
    "account": EXIT_ACCOUNT,
    "halted": EXIT_ERROR,
}


def process_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say how many processes are started: `judges` and `samplers`."""
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

    Args:
        name: of the run.
        as_json: print facts as JSON in place of tables.
        scores_only: a run without a pair has made what was wanted.
    """
    code = finish(ledger, settings, name, judges=judges, samplers=samplers, scores_only=scores_only)
    with ledger.read() as tx:
        run = runs_.get_run(tx, name)
    if run.state == "done":
        _print_results(ledger, settings, run, as_json)
    return code


def finish(
    ledger: Ledger, settings: Settings, name: str, *, judges: int = 1, samplers: int = 1, scores_only: bool = False
) -> int:
    """Work on a run as `work_on` does, and print only what it did not make; returns the exit code."""
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
    """Work on a run, showing how far it is, until `until` is true of it; None: interrupted before."""
    try:
        with Dashboard() as shown:
            return execute(ledger, settings, name, until=until, judges=judges, samplers=samplers, display=shown)
    except KeyboardInterrupt:
        echo(f"interrupted; replies in flight are kept; `lrq resume {name}` goes on", err=True)
        return None


class Dashboard:
    """The run drawn in place on a terminal; a line now and then elsewhere."""

    def __init__(self) -> None:
        self._console = console(err=True)
        self._live = Live(console=self._console, auto_refresh=False, transient=False)
        self._is_terminal = sys.stderr.isatty()
        self._draw_due = self._line_due = 0.0
        self._trouble: list[str] = []
        self._lanes: set[str] = set()  # endpoints that fail
        self._said: set[str] = set()  # what was said and lasts

    def __enter__(self) -> "Dashboard":
        if self._is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._is_terminal:
            self._live.stop()

    def show(self, ledger: Ledger, run: Run) -> None:
        """Draw the run as it is, once a second at most, or in lines every ten; its end is always drawn."""
        if time.monotonic() < self._draw_due and not is_over(run):
            return
        self._draw_due = time.monotonic() + _DRAW_EVERY
        progress = progress_of(ledger, run)
        if self._is_terminal:
            self._live.update(dashboard(progress), refresh=True)
            return
        waits = {text.partition(": ")[0]: text for text in progress["waits"]}
        for lane in self._lanes | waits.keys():
            self.say_while(lane, f"waiting for {waits[lane]}" if lane in waits else "")
        self._lanes = set(waits)
        if time.monotonic() >= self._line_due:
            self._line_due = time.monotonic() + _LINE_EVERY
            echo(progress_line(progress), err=True)
            trouble = failing(progress)
            if trouble != self._trouble:
                for text in trouble:
                    self.say(f"failing: {text}")
            self._trouble = trouble

    def say_while(self, about: str, text: str) -> None:
        """Print `text`, above the picture, once for as long as there is one; an empty `text` ends it for `about`."""
        if text and about not in self._said:
            self.say(text)
        (self._said.add if text else self._said.discard)(about)

    def say(self, text: str) -> None:
        """Print a line above the picture."""
        self._console.print(text, soft_wrap=True, highlight=False)


def progress_line(progress: Mapping[str, Any]) -> str:
    """Return how far a run is in one line, for logs; `progress` is as `progress_of` tells it."""
    money, pace, step = progress["money"], progress["pace"], progress["training"]
    round_ = f" in round {progress['round']}" if progress["round"] else ""
    words = [f"{progress['ended']} of {progress['items']} items{round_}", f"{progress['calls']:,} calls"]
    words.append(f"{progress['pairs']:,} pairs")
    if money["spent"]:
        words.append(f"{money['spent']:.4f}" + (f" of {money['max_cost']:.2f}" if money["max_cost"] else ""))
    words += [] if pace["per_second"] is None else [f"{pace['per_second']:.1f} calls/s"]
    words += [] if pace["seconds_left"] is None else [f"{seconds(pace['seconds_left'])} left"]
    words += [] if step is None else [f"training step {step['step']} of {step['of']}"]
    return f"{progress['run']}: {', '.join(words)}"


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
