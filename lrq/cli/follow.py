"""Following a run to its end with the processes it needs: what `run` and `resume` do after the ledger is filled."""

import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from lrq.cli import EXIT_ACCOUNT, EXIT_BUDGET, EXIT_ERROR, EXIT_INTERRUPTED, EXIT_PARTLY
from lrq.cli.common import console, echo, echo_json, seconds
from lrq.cli.export import write_results
from lrq.cli.pairable import count_unpairable
from lrq.cli.status import because, pace_lines, run_tables, shortfalls
from lrq.config import Settings
from lrq.domain.errors import LrqError
from lrq.ledger import Ledger
from lrq.ledger import runs as runs_
from lrq.ledger.engine import explain
from lrq.ledger.items import count_rows
from lrq.ledger.runs import Run
from lrq.ledger.writer import AWAY
from lrq.queue import broker
from lrq.recipes import load_recipe
from lrq.reports.facts import pace_facts, process_facts, run_facts
from lrq.workers.frozen import schedule_of
from lrq.workers.supervisor import AlreadyUp, Supervisor, full_disk, is_up, names_up, unable

_LOOK_EVERY = 0.3  # seconds
_PACE_EVERY = 2.0  # seconds between looks at the latest calls
_STOPS = (signal.SIGINT, signal.SIGTERM)  # the first stops orderly, a second one at once
_HALTED = {"budget": EXIT_BUDGET, "account": EXIT_ACCOUNT}


def follow_options(command: Callable[..., Any]) -> Callable[..., Any]:
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
    if _run(ledger, name).state == "done":
        _print_results(ledger, settings, _run(ledger, name), as_json)
    return code


def finish(
    ledger: Ledger, settings: Settings, name: str, *, judges: int = 1, samplers: int = 1, scores_only: bool = False
) -> int:
    """Work on a run until it is at an end or halted, with the processes of a running `up`, else with its own."""
    if not work_until(ledger, settings, name, _is_over, judges=judges, samplers=samplers):
        return EXIT_INTERRUPTED
    return _exit_code(ledger, _run(ledger, name), scores_only)


def work_until(
    ledger: Ledger, settings: Settings, name: str, over: Callable[[Run], bool], *, judges: int = 1, samplers: int = 1
) -> bool:
    """Work on a run until `over` says so of it; False: interrupted before."""
    while not over(run := _run(ledger, name)):
        try:
            with _processes(ledger, settings, run, {"judge": judges, "sampler": samplers}) as poll:
                _follow(ledger, settings, name, poll, over)
        except (_Gone, AlreadyUp):
            continue
        except KeyboardInterrupt:
            echo(f"interrupted; replies in flight are kept; `lrq resume {name}` goes on", err=True)
            return False
    return True


def _is_over(run: Run) -> bool:
    return run.state != "active"


def _run(ledger: Ledger, name: str) -> Run:
    with ledger.reading() as conn:
        return runs_.get_run(conn, name)


@contextmanager
def _processes(ledger: Ledger, settings: Settings, run: Run, counts: dict[str, int]) -> Iterator[Callable[[], None]]:
    needed = _needed(ledger, settings, run)
    up = names_up(settings)
    if up is not None:
        for name in [name for name in needed if name not in up and name != "redis"]:
            echo(f"what is up has no {name}, and the run waits for one: `lrq worker {name}` adds it", err=True)
        yield lambda: _check_up(settings)
        return
    _check_able(settings, needed)
    supervisor = Supervisor(settings, needed, counts)
    supervisor.start()

    def poll() -> None:
        for said in supervisor.poll():
            echo(said, err=True)
        if supervisor.failing:
            raise LrqError(supervisor.failing)

    before = {number: signal.getsignal(number) for number in _STOPS}
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # both stop orderly
    try:
        yield poll
    finally:
        for number in _STOPS:
            signal.signal(number, lambda *_: supervisor.kill())
        supervisor.stop()
        for number, handler in before.items():
            signal.signal(number, handler)


class _Gone(Exception):
    """The processes of another command, which we used, have ended."""


def _check_up(settings: Settings) -> None:
    if not is_up(settings):
        raise _Gone


def _needed(ledger: Ledger, settings: Settings, run: Run) -> list[str]:
    """The processes this run needs, the broker first."""
    with ledger.reading() as conn:
        states = runs_.item_states(conn, run.id)
    needed = ["judge", "aggregator"] if load_recipe(run.recipe).steps else ["aggregator"]
    schedule = schedule_of(run.config["train"])
    if states.get("unsampled") or states.get("sampling") or (schedule and schedule.rounds > 1):
        needed.append("sampler")
    if run.config["train"] is not None:
        needed.append("trainer")
    if broker.is_embedded(settings):
        needed.insert(0, "redis")
    return needed


def _check_able(settings: Settings, needed: Sequence[str]) -> None:
    """Raises LrqError where one of them cannot run here."""
    missing = unable(settings)
    for name in needed:
        if name in missing:
            raise LrqError(f"this run needs a {name}, which cannot run here: {missing[name]}{_or_else(name)}")
    if "judge" in needed and not settings.endpoints("judge"):
        raise LrqError("no judge is named: set LRQ_JUDGE_URL and LRQ_JUDGE_MODEL (`lrq judge-sim` is an offline one)")


def _or_else(name: str) -> str:
    return "; or stop at the pairs with --no-train" if name == "trainer" else ""


def _follow(
    ledger: Ledger, settings: Settings, name: str, poll: Callable[[], None], over: Callable[[Run], bool]
) -> None:
    """Wait for the end, showing how far it is."""
    with _Bars() as bars:
        while True:
            poll()
            bars.say_while("disk", full_disk(settings.home))
            try:
                run = _run(ledger, name)
                bars.show(ledger, run)
            except AWAY as error:
                bars.say_while("ledger", f"the ledger does not answer: {explain(error)}; waiting for it")
            else:
                bars.say_while("ledger", "")
                if over(run):
                    return
            time.sleep(_LOOK_EVERY)


class _Bars:
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

    def __enter__(self) -> "_Bars":
        if sys.stderr.isatty():
            self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        if sys.stderr.isatty():
            self._progress.stop()

    def show(self, ledger: Ledger, run: Run) -> None:
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
            self._print(pace_lines(self._pace)[-1])
        self._trouble = trouble

    def _say_waiting(self, ledger: Ledger) -> None:
        said = [str(one["note"]["waiting for"]) for one in process_facts(ledger) if "waiting for" in one["note"]]
        waits = {text.partition(": ")[0]: text for text in said}
        for lane in self._lanes | waits.keys():
            self.say_while(lane, f"waiting for {waits[lane]}" if lane in waits else "")
        self._lanes = set(waits)

    def _print(self, text: str) -> None:
        self._console.print(text, soft_wrap=True, highlight=False)

    def say_while(self, about: str, text: str) -> None:
        """Print a line above the bars once for as long as there is a text about this matter."""
        if text and about not in self._said:
            self._print(text)
        (self._said.add if text else self._said.discard)(about)

    def _bar(self, name: str, done: int, total: int, said: str) -> None:
        if name not in self._tasks:
            self._tasks[name] = self._progress.add_task(name, total=total, said=said)
        self._progress.update(self._tasks[name], completed=done, total=total, said=said)


def _exit_code(ledger: Ledger, run: Run, scores_only: bool) -> int:
    """Return how the run ended, as an exit code; what it did not make is said."""
    if run.state != "done":
        hint = "" if "lrq " in run.reason else f"; `lrq resume {run.name}` goes on"
        echo(f"run {run.name} is {run.state}: {run.reason}{hint}", err=True)
        return _HALTED.get(run.halt, EXIT_ERROR)
    facts = run_facts(ledger, run)
    wants_pairs = not scores_only and count_unpairable(ledger, run) < sum(facts["items"].values())
    if run.reason:
        echo(f"run {run.name}: {run.reason}", err=True)
    missing = not_made(facts, wants_pairs=wants_pairs, wants_scores=bool(load_recipe(run.recipe).dimensions))
    for said in (*missing, *(shortfalls(facts) if missing else ())):
        echo(f"run {run.name}: {said}", err=True)
    if any(training["state"] == "failed" for training in facts["trainings"]):
        return EXIT_ERROR
    unscored = sum(one["unscored"] for one in facts["scores"].values())
    unsampled = sum(number for reason, number in facts["responses"]["without_text"].items() if reason != "empty")
    left = unscored + unsampled + facts["items"].get("failed", 0) + facts["set_aside"]
    return EXIT_PARTLY if left or missing else 0


def not_made(facts: dict[str, Any], *, wants_pairs: bool, wants_scores: bool) -> list[str]:
    """Say which of the wanted results a run has none of; reasons that are no shortfall of their own stand beside it."""
    if not facts["items"]:
        return ["no line could be read"]
    if wants_scores and not any(one["value"] for one in facts["scores"].values()):
        return ["no score was made"]
    if not facts["pairs"] and wants_pairs:
        return [f"no pair was made{because(facts['no_pair'])}"]
    return []


def _print_results(ledger: Ledger, settings: Settings, run: Run, as_json: bool) -> None:
    """Write the result files and say what came out and where it lies."""
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
