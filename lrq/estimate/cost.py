"""A bill as facts: calls and tokens turned into money and hours by what the settings and the ledger know."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from lrq.calls.prices import Rates, rates_of
from lrq.config import Endpoint, Settings
from lrq.domain.records import ROLES, Usage
from lrq.judge.estimate import FIELDS, Amount, Bill, Capacity, Group, Known, duration, replied
from lrq.ledger import Ledger
from lrq.recipes import load_recipe
from lrq.reports.usage import known_usage
from lrq.sim.counting import is_simulator

SECONDS_PER_TOKEN, FIRST_SECONDS = 1 / 50, 1.0  # of a call nobody has timed yet: what hosted models do


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A bill that nobody has paid."""

    items: int
    responses: int
    looked_at: int  # items
    bill: Bill
    uncertainty: float = 0.0
    notes: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class Pricing:
    """What turns calls into money and hours: the settings, and what was counted before."""

    settings: Settings
    known: Mapping[tuple[str, str, str, str], Known] = field(default_factory=dict)
    simulated: Collection[str] = ()  # names of endpoints

    @classmethod
    def of(cls, settings: Settings, ledger: Ledger | None) -> "Pricing":
        usage = {} if ledger is None else known_usage(ledger)
        return cls(settings=settings, known=usage, simulated=simulated(settings))

    def rates(self, group: Group) -> list[Rates] | None:
        """Return the rates of each server of the pool of `group`; None: unpriced, wholly or in part."""
        by_server = [rates_of(endpoint.model_copy(update={"model": group.model})) for endpoint in self.pool(group)]
        priced = [rates for rates in by_server if rates is not None]
        return priced if priced and len(priced) == len(by_server) else None

    def pool(self, group: Group) -> tuple[Endpoint, ...]:
        return self.settings.pool(group.role, group.endpoint)  # type: ignore[arg-type]

    def caches(self, bill: Bill) -> list[str]:
        """Return the names of the endpoints in `bill` whose cached input is cheaper."""
        priced = {group.endpoint: self.rates(group) or () for group in bill}
        return [name for name, rates in priced.items() if any(rate.cached < rate.input for rate in rates)]

    def seconds(self, group: Group, amount: Amount) -> float:
        usage = self.known.get((group.role, group.endpoint, group.model, group.kind))
        if usage:
            return usage.seconds
        return FIRST_SECONDS + SECONDS_PER_TOKEN * amount.completion_tokens / max(1.0, amount.calls)

    def replied(self, bill: Bill) -> Bill:
        kinds = load_recipe(self.settings.recipe).kinds
        return replied(bill, self.known, kinds=kinds, caches=self.caches(bill), simulated=self.simulated)


def simulated(settings: Settings) -> set[str]:
    """Name the endpoints at which a simulator of this machine answers."""
    return {endpoint.name for role in ROLES for endpoint in settings.endpoints(role) if is_simulator(endpoint.url)}


def estimate_facts(estimate: Estimate, pricing: Pricing) -> dict[str, Any]:
    """Return calls, tokens, money (None: unpriced) and hours (None: no limit is known), by dimension and by kind."""
    bill = estimate.bill.items()
    kinds = [{**group._asdict(), **_numbers(amount), **_money(group, amount, pricing)} for group, amount in bill]
    dimensions: dict[str, list[dict[str, Any]]] = {}
    for kind in kinds:
        dimensions.setdefault(kind["dimension"] or kind["step"], []).append(kind)
    return {
        "items": estimate.items,
        "responses": estimate.responses,
        "looked_at": estimate.looked_at,
        **_sum(kinds),
        "uncertainty": round(estimate.uncertainty, 4),
        **_hours(estimate.bill, pricing),
        "dimensions": {name: _sum(parts) for name, parts in dimensions.items()},
        "kinds": kinds,
        "notes": list(estimate.notes),
    }


def _numbers(amount: Amount) -> dict[str, int]:
    return {name: round(getattr(amount, name)) for name in FIELDS} | {"tokens": round(amount.tokens)}


def _money(group: Group, amount: Amount, pricing: Pricing) -> dict[str, float | None]:
    rates = pricing.rates(group)
    if rates is None or not amount.calls:
        return {"cost": None, "cost_uncached": None}
    mean = Amount(**{name: getattr(amount, name) / amount.calls for name in FIELDS})
    used = Usage(**{name: round(getattr(mean, name)) for name in FIELDS if name != "calls"})
    fresh = replace(used, cached_tokens=0)
    per_call = [sum(rate.cost(usage) for rate in rates) / len(rates) for usage in (used, fresh)]
    return {"cost": amount.calls * per_call[0] / 1e6, "cost_uncached": amount.calls * per_call[1] / 1e6}


def _sum(kinds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    sums = {name: sum(kind[name] for kind in kinds) for name in (*FIELDS, "tokens")}
    priced = [kind for kind in kinds if kind["cost"] is not None]
    unpriced = sum(kind["calls"] for kind in kinds if kind["cost"] is None)
    is_priced = priced or not kinds  # no calls cost nothing
    money = {name: sum(kind[name] for kind in priced) if is_priced else None for name in ("cost", "cost_uncached")}
    return {**sums, **money, "unpriced_calls": unpriced}


def _hours(bill: Bill, pricing: Pricing) -> dict[str, Any]:
    """Return the hours of the pool that takes longest: endpoints work at the same time."""
    by_pool: dict[tuple[str, str], list[tuple[Group, Amount]]] = {}
    for group, amount in bill.items():
        by_pool.setdefault((group.role, group.endpoint), []).append((group, amount))
    longest: dict[str, Any] = {"hours": None, "limited_by": ""}
    for (role, name), amounts in by_pool.items():
        calls = sum((amount for _, amount in amounts), Amount())
        seconds = sum(pricing.seconds(group, amount) * amount.calls for group, amount in amounts)
        time = duration(calls, seconds / max(1.0, calls.calls), _capacity(pricing.pool(amounts[0][0])))
        if time is not None and time.hours > (longest["hours"] or 0.0):
            longest = {"hours": time.hours, "limited_by": f"{time.by} of {role} {name}"}
    return longest


def _capacity(pool: Sequence[Endpoint]) -> Capacity:
    def total(name: str) -> float | None:
        limits = [getattr(endpoint, name) for endpoint in pool]
        return sum(limits) if limits and None not in limits else None

    return Capacity(rpm=total("rpm"), tpm=total("tpm"), concurrency=total("concurrency"))


def limit_notes(facts: Mapping[str, Any], max_cost: int | None, max_tokens: int | None) -> list[str]:
    """Return where a bill is above a run's limits: the run would stop on the way.

    `max_cost` is in millionths of the currency, None where there is no limit.
    """
    limits = (
        ("--max-cost", None if max_cost is None else max_cost / 1e6, facts["cost"]),
        ("--max-tokens", max_tokens, facts["tokens"]),
    )
    return [
        f"{name} {limit:,.10g} is {limit / amount:.0%} of that: the run will stop there"
        for name, limit, amount in limits
        if limit is not None and amount is not None and amount > limit
    ]
