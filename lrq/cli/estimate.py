"""lrq estimate: calls, tokens, money and hours before the first call."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import click
import sqlalchemy as sa

from lrq.cli import EXIT_PARTLY
from lrq.cli.bill import bill_of
from lrq.cli.common import apply_settings, console, echo, echo_json, json_option
from lrq.cli.enqueue import intent_of
from lrq.cli.follow import follow_options, work_until
from lrq.cli.foreseeing import Foreseer, Reservoir, foresee
from lrq.cli.intake import Intent, flags_of, intake_options, name_of, progress, take_in
from lrq.cli.pairable import check_pairable, count_responses, no_pair, responses_needed, some_no_pair
from lrq.cli.reading import Dataset, ResponsesFile
from lrq.cli.reckoning import Foreseen, Means, cost_of, facts_of, limit_notes, print_facts, simulated
from lrq.config import Settings, merge_flags
from lrq.domain.errors import LrqError, UsageError
from lrq.domain.lines import Entry
from lrq.judge.estimate import Bill, calibrated
from lrq.ledger import Ledger, open_ledger
from lrq.ledger import runs as runs_
from lrq.ledger.runs import Run
from lrq.ledger.schema import items
from lrq.recipes import load_recipe
from lrq.workers.frozen import Frozen, freeze, thaw

MOST_REASONS, MOST_KEPT = 20, 1000  # why lines are rejected: shown, and counted one by one
MOST_CHARS = 3_000_000  # of contexts looked at closely: a document of 64k tokens takes about a second


@click.command()
@intake_options
@click.option("--pilot", type=click.IntRange(min=1), metavar="N", help="Run N items first, as part of the run.")
@click.option("--sample", type=click.IntRange(min=2), default=30, show_default=True, help="Items to look at closely.")
@click.option("--response-tokens", type=click.IntRange(min=1), help="Of responses yet to be sampled; else as `answer`.")
@click.option("--config", type=click.Path(exists=True, dir_okay=False), help="Settings file instead of ./lrq.yaml.")
@click.option("--set", "flags", multiple=True, metavar="KEY=VALUE", help="A setting, e.g. judge.rpm=500; repeatable.")
@follow_options
@json_option
def estimate(
    config: str | None,
    flags: tuple[str, ...],
    pilot: int | None,
    sample: int,
    response_tokens: int | None,
    judges: int,
    samplers: int,
    as_json: bool,
    **options: Any,
) -> int:
    """Say what a dataset will take, from the real lengths of its lines; nothing is sent and nothing is charged.

    With --pilot the first N items are worked on in earnest, as the beginning of the run, and what they took corrects
    the estimate. `lrq run` with the same options goes on from there.

    Example: lrq estimate dataset.jsonl --price 0.15,0.6 --pilot 5
    """
    own = flags_of(options)
    settings = apply_settings(config, merge_flags(flags, own))
    intent = intent_of(options)
    if pilot and intent.file == "-":
        raise UsageError("a pilot reads the lines twice: give a file instead of standard input")
    frozen = thaw(settings.recipe, freeze(settings, train=intent.train))
    make = partial(Foreseer, frozen, response_tokens=response_tokens, simulated=simulated(settings))
    if pilot:
        check_pairable(settings, intent)
    seen = _look(settings, intent, frozen, make, sample, pilot or 0)
    if pilot:
        facts = _pilot(settings, replace(intent, limit=pilot), seen, judges=judges, samplers=samplers)
    else:
        facts = _facts(settings, seen.foreseen)
    needed, items_ = responses_needed(frozen.config), seen.foreseen.items
    notes = some_no_pair(seen.cannot_pair, items_, needed) + limit_notes(facts, intent.max_cost, intent.max_tokens)
    facts |= {"cannot_pair": seen.cannot_pair, "notes": [*facts["notes"], *notes]}
    if as_json:
        echo_json(facts | {"set_aside": seen.set_aside})
    else:
        show(facts)
        if seen.set_aside:
            echo(f"{seen.set_aside} lines would be rejected", err=True)
            for reason, number in seen.reasons.most_common(MOST_REASONS):
                echo(f"  {number:,} × {reason}", err=True)
    if seen.cannot_pair == items_ and not intent.scores_only:
        raise UsageError(no_pair(intent.file, seen.most_responses, needed))
    return EXIT_PARTLY if seen.set_aside else 0


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What a reading of the file brought."""

    foreseen: Foreseen  # with replies as the simulator gives them
    ids: Sequence[str]  # of the first items
    first: Bill  # theirs
    set_aside: int  # lines that cannot be used
    reasons: Counter[str]  # why
    cannot_pair: int  # items with too few responses
    most_responses: int  # of an item


def _look(
    settings: Settings, intent: Intent, frozen: Frozen, make: Callable[[], Foreseer], sample: int, first: int
) -> Seen:
    """Read all lines once, look at some of them closely."""
    foreseer, reservoir = make(), Reservoir(sample)
    head: list[Entry] = []
    lines = _Lines(settings, intent)
    needed, short, most = responses_needed(frozen.config), 0, 0
    for entry in lines:
        count = count_responses(entry, frozen.config)
        short, most = short + (count < needed), max(most, count)
        reservoir.add(foreseer.size(entry), entry)
        if len(head) < first:
            head.append(entry)
    if not reservoir.kept:
        reason, number = next(iter(lines.reasons.most_common(1)), ("it is empty", 0))
        raise LrqError(f"no line of {intent.file} can be used: {reason}" + (f" ({number:,} lines)" if number else ""))
    return Seen(
        foreseen=foresee(foreseer, reservoir, MOST_CHARS),
        ids=[e.item.id for e in head],
        first=make().bill(head).bill,
        set_aside=lines.set_aside,
        reasons=lines.reasons,
        cannot_pair=short,
        most_responses=most,
    )


class _Lines:
    """The usable lines of a file; after them, how many are not."""

    def __init__(self, settings: Settings, intent: Intent) -> None:
        self._intent = intent
        given = ResponsesFile(intent.responses) if intent.responses else None
        self._dataset = Dataset(intent.file, load_recipe(settings.recipe).needs, given)
        self._seen: set[int] = set()  # hashes of the ids
        self.set_aside = 0
        self.reasons: Counter[str] = Counter()

    def __iter__(self) -> Iterator[Entry]:
        with progress(self._dataset) as advance:
            for line in self._dataset:
                reason = line.reason or self._repeated(line.value)
                if reason and self._intent.strict:
                    raise UsageError(f"{self._intent.file}, line {line.number}: {reason} (--strict)")
                if reason or line.value is None:
                    self.set_aside += 1
                    if reason in self.reasons or len(self.reasons) < MOST_KEPT:
                        self.reasons[reason] += 1
                else:
                    yield line.value
                advance()

    def _repeated(self, entry: Entry | None) -> str:
        if entry is None:
            return ""
        if hash(entry.item.id) in self._seen:
            return f"its id {entry.item.id!r} stands in a line before"
        self._seen.add(hash(entry.item.id))
        return ""


def _facts(settings: Settings, foreseen: Foreseen) -> dict[str, Any]:
    ledger = _ledger_if_any(settings)
    means = Means.of(settings, ledger)
    if ledger is not None:
        ledger.close()
    return facts_of(replace(foreseen, bill=means.replied(foreseen.bill)), means)


def _ledger_if_any(settings: Settings) -> Ledger | None:
    try:
        return open_ledger(settings)
    except LrqError:
        return None  # nothing was ever counted here


# ----- the pilot


def _pilot(settings: Settings, intent: Intent, seen: Seen, **counts: int) -> dict[str, Any]:
    """Run the first items as the run's beginning; the estimate as they correct it."""
    ledger = open_ledger(settings, create=True)
    run = _begin(ledger, settings, intent, seen.ids)
    if not work_until(ledger, settings, run.name, _is_piloted, **counts):
        raise click.Abort
    with ledger.reading() as conn:
        run = runs_.get_run(conn, run.name)
        if run.state not in {"active", "done"}:
            raise LrqError(f"the pilot is {run.state}: {run.reason}")
        billed = bill_of(conn, _item_ids(conn, run, seen.ids))
    means = Means.of(settings, ledger)
    ledger.close()
    before = means.replied(seen.first)
    bill = calibrated(means.replied(seen.foreseen.bill), before, billed)
    facts = facts_of(replace(seen.foreseen, bill=bill), means)
    taken = facts_of(Foreseen(items=len(seen.ids), responses=0, looked_at=len(seen.ids), bill=billed), means)
    names = ("items", "calls", "tokens", "cost", "unpriced_calls")
    return facts | {"pilot": {"run": run.name, **{name: taken[name] for name in names}}}


def _begin(ledger: Ledger, settings: Settings, intent: Intent, ids: Sequence[str]) -> Run:
    """The run with its first items; while more lines may come it is never at its end, and nothing is trained."""
    with ledger.reading() as conn:
        run = runs_.find_run(conn, intent.name or name_of(intent.file))
        known = run is not None and len(_item_ids(conn, run, ids)) == len(ids)
    if run is None or not known:
        run = take_in(ledger, settings, intent, send=False).run
        with ledger.writing() as conn:
            runs_.set_taking_in(conn, run.id, True)
    return run


def _item_ids(conn: sa.Connection, run: Run, keys: Sequence[str]) -> list[int]:
    query = sa.select(items.c.id).where(items.c.run_id == run.id, items.c.key.in_(keys))
    return list(conn.execute(query).scalars())


def _is_piloted(run: Run) -> bool:
    return run.state != "active" or run.open_items == 0


# ----- for people


def show(facts: dict[str, Any]) -> None:
    out = console()
    print_facts(out, facts)
    if pilot := facts.get("pilot"):
        out.print(
            f"the pilot of {pilot['items']} items took {pilot['calls']:,} calls, {pilot['tokens']:,} tokens, "
            f"{cost_of(pilot)}; `lrq run` with the same options goes on with run {pilot['run']}",
            soft_wrap=True,
        )
