"""A file read once, before anything is paid: what its usable lines will take, and why others are rejected."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from lrq.config import Settings
from lrq.datasets.dataset import Dataset, ResponsesFile
from lrq.domain.errors import LrqError, UsageError
from lrq.domain.lines import Entry
from lrq.estimate.contexts import short_contexts
from lrq.estimate.cost import Estimate
from lrq.estimate.dry_run import DryRun, Reservoir, estimate_items
from lrq.judge.estimate import Bill
from lrq.operations.ingest import Intent, Watch, watch_nothing
from lrq.operations.pairable import count_responses
from lrq.recipes import load_recipe
from lrq.reports.pairable import responses_needed
from lrq.run_config import RunConfig

_MOST_KEPT = 1000  # reasons that are counted one by one
_MOST_CHARS = 3_000_000  # of contexts looked at closely: a document of 64k tokens takes about a second


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What a reading of the file brought."""

    estimate: Estimate  # with replies as the simulator gives them
    ids: Sequence[str]  # of the first items
    first: Bill  # of those
    set_aside: int  # lines that cannot be used
    reasons: Counter[str]  # why
    cannot_pair: int  # items with too few responses
    most_responses: int  # of an item
    are_given: bool  # all items bring their responses


def survey(
    settings: Settings,
    intent: Intent,
    frozen: RunConfig,
    make: Callable[[], DryRun],
    *,
    sample: int,
    first: int = 0,
    watch: Watch = watch_nothing,
) -> Seen:
    """Read all lines once and count the calls of a sample of them; those of the `first` items are counted apart.

    `make` gives a new dry run, `sample` is how many items are kept. Raises LrqError where no line can be used,
    UsageError for the first such line under --strict.
    """
    dry_run, reservoir = make(), Reservoir(sample)
    head: list[Entry] = []
    lines = _Lines(settings, intent, watch)
    needed, short, most = responses_needed(frozen.config), 0, 0
    for entry in lines:
        count = count_responses(entry, frozen.config)
        short, most = short + (count < needed), max(most, count)
        reservoir.add(dry_run.size(entry), entry)
        if len(head) < first:
            head.append(entry)
    if not reservoir.kept:
        if not lines.reasons:
            raise UsageError(f"{intent.file} is empty: it holds no line")
        reason, number = lines.reasons.most_common(1)[0]
        raise LrqError(f"no line of {intent.file} can be used: {reason} ({number:,} lines)")
    estimate = estimate_items(dry_run, reservoir, _MOST_CHARS)
    return Seen(
        estimate=replace(estimate, notes=[*estimate.notes, *short_contexts(settings, dry_run.longest)]),
        ids=[e.item.id for e in head],
        first=make().bill(head).bill,
        set_aside=lines.set_aside,
        reasons=lines.reasons,
        cannot_pair=short,
        most_responses=most,
        are_given=reservoir.with_responses == round(reservoir.total.items),
    )


class _Lines:
    """The usable lines of a file; after them, how many are not."""

    def __init__(self, settings: Settings, intent: Intent, watch: Watch) -> None:
        self._intent, self._watch = intent, watch
        responses_file = ResponsesFile(intent.responses) if intent.responses else None
        recipe = load_recipe(settings.recipe)
        self._dataset = Dataset(intent.file, recipe.needs, responses_file, joins_systems=recipe.joins_systems)
        self._seen: set[int] = set()  # hashes of the ids
        self.set_aside = 0
        self.reasons: Counter[str] = Counter()

    def __iter__(self) -> Iterator[Entry]:
        with self._watch(self._dataset) as advance:
            for line in self._dataset:
                reason = line.reason or self._repeated(line.value)
                if reason and self._intent.strict:
                    raise UsageError(f"{self._intent.file}, line {line.number}: {reason} (--strict)")
                if reason or line.value is None:
                    self.set_aside += 1
                    if reason in self.reasons or len(self.reasons) < _MOST_KEPT:
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
