"""Put a file into the ledger: what `enqueue` and `run` do first."""

import os
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

from lrq.config import Settings
from lrq.datasets.dataset import Dataset, ResponsesFile
from lrq.datasets.sources import DATA, Line
from lrq.domain.errors import UsageError
from lrq.domain.lines import Entry
from lrq.ledger import Ledger, intakes
from lrq.ledger import items as items_
from lrq.ledger import runs as runs_
from lrq.ledger.backlog import advance_run
from lrq.ledger.runs import Run
from lrq.recipes import load_recipe
from lrq.run_config import PRICED, SCHEDULE, check_rounds, load_run_config, price_name, schedule_of, snapshot_config
from lrq.workers.feeder import feed

_BATCH_ITEMS = 200
_BATCH_CHARS = 8_000_000  # of contexts in one transaction
_SHOWN_FIELDS = 8  # names of fields that nobody reads


@dataclass(frozen=True, kw_only=True)
class Ingested:
    """What became of a file's lines."""

    run: Run
    added: int
    known: int
    set_aside: int  # lines rejected
    dropped: Sequence[str] = ()  # what was left out of lines that were kept, in words
    unsent: str = ""  # why nothing went to the queues yet, where nothing could


@dataclass(frozen=True, kw_only=True)
class Intent:
    """How a file is to be worked on; money in millionths of the currency's unit."""

    file: str
    name: str | None = None
    responses: str | None = None
    strict: bool = False
    train: bool = True
    max_cost: int | None = None
    max_tokens: int | None = None
    limit: int | None = None  # items, for a pilot
    scores_only: bool = False  # go on where no item can make a pair
    optional: Collection[str] = ()  # fields that the recipe needs and an item may do without here
    anew: bool = False  # responses that lines bring are left out: the policy is to answer


Watch = Callable[[Dataset], AbstractContextManager[Callable[[], None]]]  # enters with what is called at each line


@contextmanager
def watch_nothing(_dataset: Dataset) -> Iterator[Callable[[], None]]:
    """Show nobody how far a file is read: a `Watch` that calls nothing."""
    yield lambda: None


def ingest(
    ledger: Ledger, settings: Settings, intent: Intent, *, send: bool = True, watch: Watch = watch_nothing
) -> Ingested:
    """Validate each line, write it to the ledger, hand the first work to the queues if a broker is up.

    Args:
        intent: the file, and how it is to be worked on.
        send: False where the caller starts the processes itself, and they find the work in the ledger.
        watch: shows how far the file is read.

    Raises UsageError for a file that cannot be read, and for settings that no run can begin with. Interrupted, it keeps
    the lines that were written; the same call again adds the rest.
    """
    recipe = load_recipe(settings.recipe)
    responses_file = ResponsesFile(intent.responses) if intent.responses else None
    needs = set(recipe.needs) - set(intent.optional)
    # Of a file that cannot be read no run is begun.
    dataset = Dataset(intent.file, needs, responses_file, joins_systems=recipe.joins_systems)
    lines = iter(dataset)
    first = next(lines, None)
    if first is None:
        raise UsageError(f"{intent.file} is empty: it holds no line")
    with intakes.reader(ledger) as reader:
        run = _open_run(ledger, settings, intent, reader)
        batches = _Taken(ledger, run, intent)
        try:
            with watch(dataset) as advance:
                for line in chain([first], lines):
                    if intent.limit is not None and batches.count >= intent.limit:
                        break
                    batches.take(line)
                    advance()
            for bad in responses_file.rejected() if responses_file is not None else ():
                batches.reject(Path(str(intent.responses)).name, bad.number, bad.reason)
            batches.flush()
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f"run {run.name} is kept: {intakes.advice(run.name)}") from None
        except Exception:
            _end_intake(ledger, run, reader, is_whole=False)
            raise
        _end_intake(ledger, run, reader, is_whole=True)
    unsent = _send_first(ledger, settings) if send else ""
    return replace(batches.result(_left_out(dataset)), unsent=unsent)


def _end_intake(ledger: Ledger, run: Run, reader: str, *, is_whole: bool) -> None:
    """Let the run come to its end; of a file that was refused, a run without items is taken away again."""
    with ledger.write() as tx:
        intakes.end(tx, run.id, reader)
        if is_whole or not runs_.delete_empty(tx, run.id):
            advance_run(tx, run.id, load_run_config(run.recipe, run.config).schedule)


def _left_out(dataset: Dataset) -> list[str]:
    """Say what was left out of lines that were kept."""
    lines = [
        f"{name} is left out of {number:,} lines, where nobody needs it: {dataset.why_dropped[name]}"
        for name, number in dataset.dropped.most_common()
    ]
    lines += [f"{number:,} lines have no {what}" for what, number in dataset.missing.most_common()]
    names = [f"{name} ({number:,})" for name, number in dataset.ignored.most_common(_SHOWN_FIELDS)]
    others = f" and {len(dataset.ignored) - _SHOWN_FIELDS} more" if len(dataset.ignored) > _SHOWN_FIELDS else ""
    return [*lines, f"fields that nobody reads: {', '.join(names)}{others}"] if names else lines


def _open_run(ledger: Ledger, settings: Settings, intent: Intent, reader: str) -> Run:
    name = intent.name or name_of(intent.file)
    if not re.fullmatch(r"[\w.-]{1,100}", name) or name.startswith("."):
        raise UsageError(
            f"a run's name is letters, digits, '.', '_' and '-', up to 100 of them, not {name!r}; set --name"
        )
    config = snapshot_config(settings, train=intent.train)
    _check_train(config)
    with ledger.write() as tx:
        run = runs_.create_run(tx, name, config, max_cost=intent.max_cost, max_tokens=intent.max_tokens)
        if intent.max_cost is not None:
            _check_priced(settings, load_run_config(run.recipe, run.config).prices)
        intakes.begin(tx, run.id, reader)
        return run


def name_of(file: str) -> str:
    """Return a run's name made of a file's: without folder and endings, and 100 characters at most.

    Anything but letters, digits, `.`, `_` and `-` becomes `-`. Raises UsageError for `-`: standard input has no name.
    """
    if file == "-":
        raise UsageError("give the run a name with --name; lines come from standard input")
    name = Path(file).resolve().name if os.path.isdir(file) else Path(file).name
    for end in (".zst", ".gz", ".csv", *DATA):
        name = name.removesuffix(end)
    return re.sub(r"[^\w.-]+", "-", name).strip(".-")[:100]


def _check_train(config: dict[str, Any]) -> None:
    """Refuse settings of the trainer that it would refuse after all has been paid."""
    train = config["train"]
    if train is None:
        return
    check_rounds(config)
    from lrq.trainer.job import make_job  # noqa: PLC0415

    settings = {name: value for name, value in train.items() if name not in SCHEDULE}
    make_job({"model": ".", "rows": ".", "output": ".", **settings})


def _check_priced(settings: Settings, told: Collection[str]) -> None:
    from lrq.calls.prices import rates_of  # noqa: PLC0415

    for role in PRICED:
        for endpoint in settings.endpoints(role):
            if rates_of(endpoint) is None and price_name(role, endpoint.name, endpoint.model) not in told:
                remedy = "give --price IN,OUT per million tokens"
                remedy = remedy if role == "judge" else f"set {role}.price, 0 for a server of your own"
                raise UsageError(f"the price of {endpoint.model} is unknown: {remedy}, or cap --max-tokens")


def _send_first(ledger: Ledger, settings: Settings) -> str:
    """Hand the first work to the queues; returns why none went out, where no broker is up."""
    from lrq.queue.diagnosis import broker_problem  # noqa: PLC0415
    from lrq.queue.messages import BrokerDown  # noqa: PLC0415

    try:
        feed(ledger)
    except BrokerDown:
        problem = None if settings.redis_url is settings.broker_url is None else broker_problem(settings)
        reason = f"no broker is up: {problem or 'none is started'}"
        return f"{reason}; the items are recorded and go out when one starts (`lrq up`)"
    return ""


class _Taken:
    """Lines on their way into the ledger, a batch in one transaction."""

    def __init__(self, ledger: Ledger, run: Run, intent: Intent) -> None:
        self._ledger, self._run, self._intent = ledger, run, intent
        schedule = schedule_of(run.config["train"])
        self._rounds = schedule.rounds if schedule and schedule.round_items == "split" else 1  # that items go to
        self._batch: list[tuple[int, Entry]] = []
        self._rejected: list[tuple[str, int, str]] = []
        self._source = ""
        self._chars = 0
        self.added = self.known = 0
        self.count = 0
        self._brings_responses = False

    def take(self, line: Line[Entry]) -> None:
        if line.source != self._source:
            self.flush()
            self._source = line.source
        entry = line.value
        if entry is None:
            self.reject(line.source, line.number, line.reason)
            return
        self.count += 1
        self._batch.append((line.number, replace(entry, responses=(), blank=()) if self._intent.anew else entry))
        self._chars += len(entry.item.context)
        if len(self._batch) >= _BATCH_ITEMS or self._chars >= _BATCH_CHARS:
            self.flush()

    def reject(self, source: str, number: int, reason: str) -> None:
        if self._intent.strict:
            raise UsageError(f"{source}, line {number}: {reason} (--strict)")
        self._rejected.append((source, number, reason))
        if len(self._rejected) >= _BATCH_ITEMS:
            self.flush()

    def flush(self) -> None:
        lines = [(number, entry.item, _given(entry)) for number, entry in self._batch]
        self._brings_responses |= any(has_responses for *_, has_responses in lines)
        with self._ledger.write() as tx:
            for source, number, reason in self._rejected:
                items_.add_set_aside(tx, self._run.id, source, number, reason)
            added, repeated = items_.add_items(tx, self._run.id, lines, source=self._source, rounds=self._rounds)
        self.added += added
        self.known += repeated
        self._batch, self._rejected, self._chars = [], [], 0

    def result(self, dropped: Sequence[str]) -> Ingested:
        with self._ledger.read() as tx:
            rejected = runs_.count_rejected(tx, self._run.id)
        if self._brings_responses and (self._rounds > 1 or self._run.round):
            dropped = [*dropped, "responses that items of later rounds bring are left out: their round samples its own"]
        return Ingested(run=self._run, added=self.added, known=self.known, set_aside=rejected, dropped=dropped)


def _given(entry: Entry) -> list[tuple[int, str | None]]:
    """Return the responses of an item as (k, text), those without a text too."""
    return [*((response.k, response.text) for response in entry.responses), *((k, None) for k in entry.blank)]
