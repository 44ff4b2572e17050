"""What a dataset will cost, from a few of its items: sums per kind of call, scaled to all of them. No I/O."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from math import sqrt
from typing import NamedTuple

from lrq.recipes import Kind

Z95 = 1.96  # standard errors to either side of a 95 % interval
ENOUGH = 50  # calls after which what an endpoint has counted is believed


class Group(NamedTuple):
    """Calls that are summed: those of one endpoint, model, step, dimension and kind of prompt."""

    role: str
    endpoint: str
    model: str
    step: str
    dimension: str
    kind: str


@dataclass(frozen=True, kw_only=True)
class Amount:
    """Calls and their tokens; fractions, once they are scaled."""

    calls: float = 0.0
    prompt_tokens: float = 0.0
    cached_tokens: float = 0.0  # of the prompt's
    completion_tokens: float = 0.0

    def __add__(self, other: "Amount") -> "Amount":
        return Amount(**{name: getattr(self, name) + getattr(other, name) for name in FIELDS})

    @property
    def tokens(self) -> float:
        return self.prompt_tokens + self.completion_tokens


FIELDS = tuple(Amount.__dataclass_fields__)
Bill = Mapping[Group, Amount]


def merged(bills: Iterable[Bill]) -> dict[Group, Amount]:
    """Return one bill of all `bills`."""
    total: dict[Group, Amount] = {}
    for bill in bills:
        for group, amount in bill.items():
            total[group] = total.get(group, Amount()) + amount
    return total


def less_cached(bill: Bill, missed: Mapping[Group, float]) -> dict[Group, Amount]:
    """Return the bill with the tokens of `missed` fewer found in prompt caches."""
    return {
        group: replace(amount, cached_tokens=max(0.0, amount.cached_tokens - missed.get(group, 0.0)))
        for group, amount in bill.items()
    }


@dataclass(frozen=True, kw_only=True)
class Size:
    """What an item's calls may grow with; summed over items it says by how much."""

    items: float = 1.0
    responses: float = 0.0  # distinct texts, or as many as are sampled
    response_chars: float = 0.0
    context_chars: float = 0.0
    read_chars: float = 0.0  # context characters times responses

    def __add__(self, other: "Size") -> "Size":
        return Size(**{name: getattr(self, name) + getattr(other, name) for name in Size.__dataclass_fields__})


@dataclass(frozen=True, kw_only=True)
class Scaled:
    """The bill of all items, by a sample of them."""

    bill: Bill
    uncertainty: float  # half a 95 % interval of the tokens, as a share of them; 0 where every item was looked at


def scale(sample: Sequence[tuple[Size, Bill]], total: Size) -> Scaled:
    """Return the bill of all items, of the size `total`, from a random `sample`: a ratio estimate for each figure.

    Each grows with the one measure of size that explains the sample best (least squares through the origin), so that
    no one need know what a recipe's calls depend on. The error is that of a ratio estimate without replacement.
    """
    groups = list(dict.fromkeys(group for _, bill in sample for group in bill))
    sizes = [astuple(size) for size, _ in sample]
    bill: dict[Group, Amount] = {}
    residual = [0.0] * len(sample)
    for group in groups:
        fields = {}
        for name in FIELDS:
            values = [getattr(counts.get(group, Amount()), name) for _, counts in sample]
            column, ratio = _best_ratio(sizes, values, astuple(total))
            fields[name] = ratio * astuple(total)[column]
            if name in ("prompt_tokens", "completion_tokens"):
                errors = (value - ratio * size[column] for value, size in zip(values, sizes, strict=True))
                residual = [sum(pair) for pair in zip(residual, errors, strict=True)]
        bill[group] = Amount(**fields)
    tokens = sum(amount.tokens for amount in bill.values())
    return Scaled(bill=bill, uncertainty=_uncertainty(residual, total.items, tokens))


def _best_ratio(sizes: Sequence[Sequence[float]], values: Sequence[float], total: Sequence[float]) -> tuple[int, float]:
    """Return the measure that explains the values best, and values per unit of it."""
    candidates = []
    for column in range(len(total)):
        size_total = sum(size[column] for size in sizes)
        if size_total and total[column]:
            ratio = sum(values) / size_total
            squares = sum((value - ratio * size[column]) ** 2 for value, size in zip(values, sizes, strict=True))
            candidates.append((squares, column, ratio))
    _, column, ratio = min(candidates)
    return column, ratio


def _uncertainty(residual: Sequence[float], items: float, tokens: float) -> float:
    n = len(residual)
    if n < 2 or n >= items or not tokens:
        return 0.0
    variance = sum(error**2 for error in residual) / (n - 1)
    return float(Z95 * items * sqrt((1 - n / items) * variance / n) / tokens)


# ----- how long replies are


@dataclass(frozen=True, kw_only=True)
class Known:
    """What an endpoint has counted so far for a kind of prompt, per call."""

    completion_tokens: float
    cached_share: float  # of its prompts' tokens
    seconds: float


def replied(
    bill: Bill,
    known: Mapping[tuple[str, str, str, str], Known],
    *,
    kinds: Mapping[str, Kind],
    caches: Collection[str],
    simulated: Collection[str],
) -> dict[Group, Amount]:
    """Return the bill with replies as long and prompts as cached as they are likely to be.

    Args:
        kinds: the recipe's kinds of prompt, by name. What is of no kind (samples, embeddings) stays as it was counted.
        known: by role, endpoint, model and kind.
        caches: endpoints whose cached input is cheaper; of others nothing is taken for cached until they say so.
        simulated: endpoints whose replies need no guess.
    """
    amounts = {}
    for group, amount in bill.items():
        usual = known.get((group.role, group.endpoint, group.model, group.kind))
        guess = amount.completion_tokens if group.endpoint in simulated else _typical(kinds.get(group.kind), amount)
        completion = amount.calls * usual.completion_tokens if usual else guess
        cached = amount.cached_tokens if group.endpoint in caches else 0.0
        if usual:
            cached = amount.prompt_tokens * usual.cached_share
        amounts[group] = Amount(
            calls=amount.calls,
            prompt_tokens=amount.prompt_tokens,
            cached_tokens=cached,
            completion_tokens=completion,
        )
    return amounts


def _typical(kind: Kind | None, amount: Amount) -> float:
    """Completion tokens of these calls: assessments have a typical length, material is as long as what it carries."""
    if kind is None:
        return amount.completion_tokens
    return amount.calls * kind.typical if kind.typical is not None else kind.times * amount.completion_tokens


# ----- what a pilot teaches


def calibrated(bill: Bill, foreseen: Bill, billed: Bill) -> dict[Group, Amount]:
    """Return the bill corrected by what a pilot's items were `foreseen` to take and what was `billed`, kind by kind."""
    before, after = _by_kind(foreseen), _by_kind(billed)
    amounts = {}
    for group, amount in bill.items():
        kind = group[3:]
        factors = _factors(before.get(kind, Amount()), after.get(kind, Amount()))
        amounts[group] = Amount(**{name: getattr(amount, name) * factors[name] for name in FIELDS})
    return amounts


def _by_kind(bill: Bill) -> dict[tuple[str, ...], Amount]:
    sums: dict[tuple[str, ...], Amount] = {}
    for group, amount in bill.items():
        sums[group[3:]] = sums.get(group[3:], Amount()) + amount
    return sums


def _factors(before: Amount, after: Amount) -> dict[str, float]:
    if not before.calls or not after.calls:
        return dict.fromkeys(FIELDS, 1.0)  # nothing to learn from
    return {name: getattr(after, name) / foreseen if (foreseen := getattr(before, name)) else 1.0 for name in FIELDS}


# ----- how long it takes


@dataclass(frozen=True, kw_only=True)
class Capacity:
    """What a pool of servers takes, over all its servers; None: no limit is known."""

    rpm: float | None = None
    tpm: float | None = None
    concurrency: float | None = None


@dataclass(frozen=True, kw_only=True)
class Duration:
    hours: float
    by: str  # requests, tokens or concurrency


def duration(amount: Amount, seconds: float, capacity: Capacity) -> Duration | None:
    """Return how long an endpoint's calls take at best, and which limit says so; None where none is known.

    `seconds` are those of one call, on average.
    """
    minutes = {
        "requests": capacity.rpm and amount.calls / capacity.rpm,
        "tokens": capacity.tpm and amount.tokens / capacity.tpm,
        "concurrency": capacity.concurrency and amount.calls * seconds / 60 / capacity.concurrency,
    }
    limits = {name: value for name, value in minutes.items() if value is not None}
    if not limits:
        return None
    by = max(limits, key=limits.__getitem__)
    return Duration(hours=limits[by] / 60, by=by)
