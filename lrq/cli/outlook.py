"""What items just enqueued will take: a quick look at a few of them."""

import random
from typing import Any

import sqlalchemy as sa

from lrq.cli.foreseeing import Foreseer
from lrq.cli.intake import Intake
from lrq.cli.pairable import count_unpairable, responses_needed, some_no_pair
from lrq.cli.reckoning import Foreseen, Means, facts_of, limit_notes
from lrq.cli.terminal import echo
from lrq.config import Settings
from lrq.domain.lines import Entry
from lrq.judge.estimate import Size
from lrq.ledger import Ledger
from lrq.ledger import items as items_
from lrq.ledger.runs import Run
from lrq.ledger.schema import contexts, items
from lrq.workers.frozen import Frozen, thaw

MOST_ITEMS, MOST_CHARS = 6, 300_000  # looked at: a second or two


def last_item(ledger: Ledger) -> int:
    """The number of the newest item of all."""
    with ledger.reading() as conn:
        return int(conn.execute(sa.select(sa.func.max(items.c.id))).scalar() or 0)


def announce(ledger: Ledger, settings: Settings, intake: Intake, before: int) -> dict[str, Any] | None:
    """Return the estimate of the items that were added after `before`, with what is to be said of pairs and limits.

    None where none was added, or where a recipe of one's own cannot be foreseen: the lines are in all the same.
    """
    if not intake.added:
        return None
    run = intake.run
    try:
        facts = outlook(ledger, settings, run, before)
    except Exception as error:
        echo(f"no estimate: {type(error).__name__}: {str(error).splitlines()[0]}", err=True)
        return None
    short = count_unpairable(ledger, run)
    notes = some_no_pair(short, intake.added + intake.known, responses_needed(run.config))
    notes += limit_notes(facts, run.max_cost, run.max_tokens)
    return facts | {"cannot_pair": short, "notes": [*facts["notes"], *notes]}


def outlook(ledger: Ledger, settings: Settings, run: Run, after: int) -> dict[str, Any]:
    """The facts of `lrq estimate` for the run's items newer than that one; there must be some."""
    frozen = thaw(run.recipe, run.config)
    with ledger.reading() as conn:
        total = _total(conn, frozen, run, after)
        taken = [_entry(conn, id_) for id_ in _sample(conn, run, after, total)]
    means = Means.of(settings, ledger)
    foreseer = Foreseer(frozen, simulated=means.simulated)
    sizes = [_size(frozen, len(one.item.context), len(one.responses)) for one in taken]
    scaled = foreseer.bill(taken, sizes, total)
    foreseen = Foreseen(
        items=round(total.items),
        responses=round(total.responses),
        looked_at=len(taken),
        bill=means.replied(scaled.bill),
        uncertainty=scaled.uncertainty,
        notes=foreseer.notes(),
    )
    return facts_of(foreseen, means)


def _size(frozen: Frozen, chars: int, given: int) -> Size:
    """By what the ledger knows of every item without reading its texts."""
    responses = given or int(frozen.config["sample"]["responses"])
    return Size(responses=responses, context_chars=chars, read_chars=responses * chars)


def _total(conn: sa.Connection, frozen: Frozen, run: Run, after: int) -> Size:
    sampled = int(frozen.config["sample"]["responses"])
    responses = sa.case((items.c.given > 0, items.c.given), else_=sampled)
    chars = sa.func.coalesce(contexts.c.chars, 0)
    sums = [sa.func.sum(one) for one in (responses, chars, responses * chars)]
    query = sa.select(sa.func.count(), *sums).select_from(items)
    query = query.outerjoin(contexts, contexts.c.hash == items.c.context_hash)
    count, *held = conn.execute(query.where(items.c.run_id == run.id, items.c.id > after)).one()
    found = dict(zip(("responses", "context_chars", "read_chars"), map(float, held), strict=True))
    return Size(items=count, **found)


def _sample(conn: sa.Connection, run: Run, after: int, total: Size) -> list[int]:
    query = sa.select(items.c.id).where(items.c.run_id == run.id, items.c.id > after).order_by(items.c.id)
    ids = list(conn.execute(query).scalars())
    mean = max(1.0, total.context_chars / total.items)
    count = max(2, min(MOST_ITEMS, int(MOST_CHARS / mean)))
    return random.Random(0).sample(ids, min(count, len(ids)))


def _entry(conn: sa.Connection, id_: int) -> Entry:
    row, item = items_.load_item(conn, id_)
    return Entry(item=item, responses=tuple(items_.load_responses(conn, id_, row.round)))
