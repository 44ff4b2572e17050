"""What items just enqueued will take: a quick look at a few of them."""

from typing import Any

from lrq.config import Settings
from lrq.domain.errors import LrqError
from lrq.domain.lines import Entry
from lrq.estimate.contexts import short_contexts
from lrq.estimate.cost import Estimate, Pricing, estimate_facts, limit_notes
from lrq.estimate.dry_run import DryRun
from lrq.judge.estimate import Size
from lrq.ledger import Ledger, Transaction
from lrq.ledger import items as items_
from lrq.ledger.runs import Run
from lrq.operations.ingest import Ingested
from lrq.operations.pairable import some_no_pair
from lrq.reports.pairable import count_unpairable, responses_needed
from lrq.reports.sizes import sample_items, total_size
from lrq.run_config import RunConfig, load_run_config

_MOST_ITEMS, _MOST_CHARS = 6, 300_000  # looked at: a second or two


def preview(ledger: Ledger, settings: Settings, ingested: Ingested, after: int) -> dict[str, Any] | None:
    """Return the estimate of the items newer than `after`, with notes on pairs and limits; None where none was added.

    Raises LrqError where a user's own recipe fails in the dry run; the lines are in all the same.
    """
    if not ingested.added:
        return None
    run = ingested.run
    try:
        facts = preview_items(ledger, settings, run, after)
    except Exception as error:
        raise LrqError(f"no estimate: {type(error).__name__}: {str(error).splitlines()[0]}") from error
    short = count_unpairable(ledger, run)
    notes = some_no_pair(short, ingested.added + ingested.known, responses_needed(run.config))
    notes += limit_notes(facts, run.max_cost, run.max_tokens)
    return facts | {"cannot_pair": short, "notes": [*facts["notes"], *notes]}


def preview_items(ledger: Ledger, settings: Settings, run: Run, after: int) -> dict[str, Any]:
    """Return the facts of `lrq estimate` for the run's items newer than `after`; there must be some."""
    frozen = load_run_config(run.recipe, run.config)
    with ledger.read() as tx:
        total = total_size(tx, run, after)
        count = max(2, min(_MOST_ITEMS, int(_MOST_CHARS / max(1.0, total.context_chars / total.items))))
        entries = [_entry(tx, id_) for id_ in sample_items(tx, run, after, count)]
    pricing = Pricing.of(settings, ledger)
    dry_run = DryRun(frozen, simulated=pricing.simulated)
    sizes = [_size(frozen, len(entry.item.context), len(entry.responses)) for entry in entries]
    scaled = dry_run.bill(entries, sizes, total)
    estimate = Estimate(
        items=round(total.items),
        responses=round(total.responses),
        looked_at=len(entries),
        bill=pricing.replied(scaled.bill),
        uncertainty=scaled.uncertainty,
        notes=[*dry_run.notes(), *short_contexts(settings, dry_run.longest)],
    )
    return estimate_facts(estimate, pricing)


def _size(frozen: RunConfig, chars: int, given: int) -> Size:
    responses = given or int(frozen.config["sample"]["responses"])
    return Size(responses=responses, context_chars=chars, read_chars=responses * chars)


def _entry(tx: Transaction, id_: int) -> Entry:
    row, item = items_.load_item(tx, id_)
    return Entry(item=item, responses=tuple(items_.load_responses(tx, id_, row.round)))
