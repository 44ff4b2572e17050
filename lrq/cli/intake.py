"""A file into the ledger: what `enqueue` and `run` do first."""

import math
import re
import sys
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click

from lrq.cli import EXIT_PARTLY
from lrq.cli.reading import Dataset, ResponsesFile
from lrq.config import Settings
from lrq.domain.errors import UsageError
from lrq.domain.lines import Entry
from lrq.ledger import Ledger
from lrq.ledger import items as items_
from lrq.ledger import runs as runs_
from lrq.ledger.backlog import settle_run
from lrq.ledger.runs import Run
from lrq.recipes import load_recipe
from lrq.trainer.loss_names import loss_settings
from lrq.workers.feeder import feed
from lrq.workers.frozen import PRICED, freeze, price_name, thaw
from lrq.workers.trainer import OWN_SETTINGS

_BATCH_ITEMS = 200
_BATCH_CHARS = 8_000_000  # of contexts in one transaction


@dataclass(frozen=True, kw_only=True)
class Intake:
    """What became of a file's lines."""

    run: Run
    added: int
    known: int
    set_aside: int


@dataclass(frozen=True, kw_only=True)
class Intent:
    """How a file is to be worked on."""

    file: str
    name: str | None = None
    responses: str | None = None
    strict: bool = False
    train: bool = True
    max_cost: int | None = None
    max_tokens: int | None = None
    limit: int | None = None  # items, for a pilot
    anew: bool = False  # responses that lines bring are left out: the policy is to answer


def intake_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of every command that takes a file in."""
    for option in (
        click.option("--max-tokens", type=click.IntRange(min=1), help="Stop at this many tokens."),
        click.option("--max-cost", metavar="MONEY", help="Stop at this amount, e.g. 12.50; needs a known price."),
        click.option("--price", metavar="IN,OUT[,CACHED]", help="The judge's price per million tokens."),
        click.option("--no-train", is_flag=True, help="Stop at the pairs."),
        click.option("--strict", is_flag=True, help="Stop at the first line that cannot be used."),
        click.option("--loss", metavar="NAME", help="Train with this loss and its defaults, e.g. sppo."),
        click.option("--recipe", metavar="NAME", help="longreward (default), or my_recipe.py:NAME."),
        click.option(
            "--responses", type=click.Path(exists=True, dir_okay=False), help="A second file, of sampled responses."
        ),
        click.option("--name", metavar="RUN", help="The run's name; by default the file's."),
        click.argument("file", type=click.Path(exists=True, dir_okay=False, allow_dash=True)),
    ):
        command = option(command)
    return command


def flags_of(recipe: str | None, loss: str | None, price: str | None) -> dict[str, Any]:
    """These options as settings."""
    flags: dict[str, Any] = {}
    if recipe:
        flags["recipe"] = recipe
    if loss:
        flags["train"] = loss_settings(loss)
    if price is not None:
        flags["judge"] = {"price": _price(price)}
    return flags


def _price(text: str) -> dict[str, float]:
    try:
        numbers = [float(number) for number in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) not in {2, 3} or not all(map(math.isfinite, numbers)):
        raise UsageError(
            f"--price wants IN,OUT or IN,OUT,CACHED per million tokens, for example 0.15,0.6, not {text!r}"
        )
    return dict(zip(("input", "output", "cached"), numbers, strict=False))


def take_in(ledger: Ledger, settings: Settings, intent: Intent, *, send: bool = True) -> Intake:
    """Validate each line, write it to the ledger, hand the first work to the queues if a broker is up."""
    recipe = load_recipe(settings.recipe)
    given = ResponsesFile(intent.responses) if intent.responses else None
    dataset = Dataset(intent.file, recipe.needs, given)  # of a file that cannot be read no run is begun
    run = _open_run(ledger, settings, intent)
    taken = _Taken(ledger, run, intent)
    with progress(dataset) as advance:
        for line in dataset:
            if intent.limit is not None and taken.count >= intent.limit:
                break
            taken.take(line.number, line.value, line.reason)
            advance()
    if given is not None:
        for bad in given.set_aside():
            taken.put_aside(str(intent.responses), bad.number, bad.reason)
    taken.flush()
    with ledger.writing() as conn:
        runs_.set_taking_in(conn, run.id, False)
        settle_run(ledger, conn, run.id, thaw(run.recipe, run.config).train_every)
    if send:
        _send_first(ledger)
    return taken.result()


def _open_run(ledger: Ledger, settings: Settings, intent: Intent) -> Run:
    name = intent.name or name_of(intent.file)
    if not re.fullmatch(r"[\w.-]{1,100}", name) or name.startswith("."):
        raise UsageError(
            f"a run's name is letters, digits, '.', '_' and '-', up to 100 of them, not {name!r}; set --name"
        )
    config = freeze(settings, train=intent.train)
    _check_train(config)
    with ledger.writing() as conn:
        run = runs_.create_run(ledger, conn, name, config, max_cost=intent.max_cost, max_tokens=intent.max_tokens)
        if intent.max_cost is not None:
            _check_priced(settings, thaw(run.recipe, run.config).prices)
        runs_.set_taking_in(conn, run.id, True)
        return run


def name_of(file: str) -> str:
    if file == "-":
        raise UsageError("give the run a name with --name; lines come from standard input")
    stem = Path(file).name.removesuffix(".zst")
    return re.sub(r"[^\w.-]+", "-", Path(stem).stem).strip(".-")[:100]


def _check_train(config: dict[str, Any]) -> None:
    """The trainer's settings are looked at before the first call, not after the last."""
    train = config["train"]
    if train is None:
        return
    from lrq.trainer.job import make_job  # noqa: PLC0415

    asked = {name: value for name, value in train.items() if name not in OWN_SETTINGS}
    make_job({"model": ".", "rows": ".", "output": ".", **asked})


def _check_priced(settings: Settings, told: Collection[str]) -> None:
    from lrq.calls.prices import rates_of  # noqa: PLC0415

    for role in PRICED:
        for endpoint in settings.endpoints(role):
            if rates_of(endpoint) is None and price_name(role, endpoint.name, endpoint.model) not in told:
                how = "give --price IN,OUT per million tokens"
                how = how if role == "judge" else f"set {role}.price, 0 for a server of your own"
                raise UsageError(f"the price of {endpoint.model} is unknown: {how}, or cap --max-tokens")


def _send_first(ledger: Ledger) -> None:
    from lrq.queue.messages import BrokerDown  # noqa: PLC0415

    try:
        feed(ledger)
    except BrokerDown:
        click.echo("no broker is up: the items are recorded and go out when one starts (`lrq up`)", err=True)


class _Taken:
    """Lines on their way into the ledger, a batch in one transaction."""

    def __init__(self, ledger: Ledger, run: Run, intent: Intent) -> None:
        self._ledger, self._run, self._intent = ledger, run, intent
        self._batch: list[tuple[int, Entry]] = []
        self._aside: list[tuple[str, int, str]] = []
        self._chars = 0
        self.added = self.known = 0
        self.count = 0

    def take(self, number: int, entry: Entry | None, reason: str) -> None:
        if entry is None:
            self.put_aside(self._intent.file, number, reason)
            return
        self.count += 1
        self._batch.append((number, replace(entry, responses=()) if self._intent.anew else entry))
        self._chars += len(entry.item.context)
        if len(self._batch) >= _BATCH_ITEMS or self._chars >= _BATCH_CHARS:
            self.flush()

    def put_aside(self, source: str, number: int, reason: str) -> None:
        if self._intent.strict:
            raise UsageError(f"{source}, line {number}: {reason} (--strict)")
        self._aside.append((source, number, reason))

    def flush(self) -> None:
        lines = [(number, entry.item, [(one.k, one.text) for one in entry.responses]) for number, entry in self._batch]
        source = Path(self._intent.file).name
        with self._ledger.writing() as conn:
            for name, number, reason in self._aside:
                items_.add_set_aside(self._ledger, conn, self._run.id, Path(name).name, number, reason)
            added, known = items_.add_items(self._ledger, conn, self._run.id, lines, source=source)
        self.added += added
        self.known += known
        self._batch, self._aside, self._chars = [], [], 0

    def result(self) -> Intake:
        with self._ledger.reading() as conn:
            aside = len(runs_.lines_set_aside(conn, self._run.id))
        return Intake(run=self._run, added=self.added, known=self.known, set_aside=aside)


class progress:  # noqa: N801 - reads as the function it stands for
    """A bar over the file's bytes; silent where the output is no terminal or the size is unknown."""

    def __init__(self, dataset: Dataset) -> None:
        total = dataset.source.total
        self._source = dataset.source
        self._shown = bool(total) and sys.stderr.isatty()
        self._bar = click.progressbar(length=total or 1, label="reading", file=sys.stderr) if self._shown else None
        self._last = 0

    def __enter__(self) -> Callable[[], None]:
        if self._bar is not None:
            self._bar.__enter__()
        return self._advance

    def _advance(self) -> None:
        if self._bar is not None:
            self._bar.update(self._source.position - self._last)
            self._last = self._source.position

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.render_finish()


def report(intake: Intake) -> dict[str, Any]:
    return {"run": intake.run.name, "added": intake.added, "known": intake.known, "set_aside": intake.set_aside}


def exit_code(intake: Intake) -> int:
    return EXIT_PARTLY if intake.set_aside else 0
