"""Money in integer micro-units; an unknown price is unpriced, never 0."""

from dataclasses import dataclass, replace
from functools import cache
from math import ceil
from typing import Any

from lrq.config import Endpoint
from lrq.domain.records import Usage


@dataclass(frozen=True, kw_only=True)
class Rates:
    """Money per million tokens, which is micro-units per token."""

    input: float
    output: float
    cached: float
    start: int = 0  # prompt tokens above which these rates hold, for the whole call
    longer: "Rates | None" = None  # what holds above its own start

    def cost(self, usage: Usage) -> int:
        """Return the micro-units of a call, rounded up so that sums never fall below the bill.

        `usage` counts cached tokens among those of the prompt.
        """
        if self.longer is not None and usage.prompt_tokens > self.longer.start:
            return self.longer.cost(usage)
        fresh = usage.prompt_tokens - usage.cached_tokens
        return ceil(fresh * self.input + usage.cached_tokens * self.cached + usage.completion_tokens * self.output)

    def saved(self, usage: Usage) -> int:
        """Return the micro-units that the prompt cache has saved of a call; negative where `cached` is the higher."""
        return self.cost(replace(usage, cached_tokens=0)) - self.cost(usage)

    def bound(self, prompt_tokens: int, completion_tokens: int) -> int:
        """Return the most, in micro-units, that a call of so many tokens, or of fewer, can `cost`."""
        most = ceil(prompt_tokens * max(self.input, self.cached) + completion_tokens * self.output)
        if self.longer is not None and prompt_tokens > self.longer.start:
            return max(most, self.longer.bound(prompt_tokens, completion_tokens))
        return most


def rates_of(endpoint: Endpoint) -> Rates | None:
    """Return the price of the settings, else the published one of the model at that host; None: unpriced.

    A `cached` price that the settings leave out is that of fresh tokens.
    """
    price = endpoint.price
    if price is not None:
        return Rates(
            input=price.input, output=price.output, cached=price.input if price.cached is None else price.cached
        )
    return _published(endpoint.model, endpoint.url)


@cache
def _published(model: str, url: str) -> Rates | None:
    """Look the price up in the table that ships with genai-prices; nothing is fetched.

    A host that is not a known provider has no price: the same model costs something else, or nothing, elsewhere.
    """
    from genai_prices import Usage as Counted  # noqa: PLC0415 - a table of 1 MB that most processes never need
    from genai_prices import calc_price  # noqa: PLC0415

    try:
        table = calc_price(Counted(input_tokens=1), model_ref=model, provider_api_url=url).model_price
    except LookupError:
        return None
    fresh, output, cached = table.input_mtok, table.output_mtok, table.cache_read_mtok
    if fresh is None:
        return None
    rates: Rates | None = None
    for start in sorted({0, *_starts(fresh), *_starts(output), *_starts(cached)}, reverse=True):
        fresh_rate = _at(fresh, start) or 0.0
        of_cached = _at(cached, start)
        rates = Rates(
            input=fresh_rate,
            output=_at(output, start) or 0.0,
            cached=fresh_rate if of_cached is None else of_cached,
            start=start,
            longer=rates,
        )
    return rates


def _starts(price: Any) -> list[int]:
    """Prompt tokens above which another price holds."""
    return [tier.start for tier in getattr(price, "tiers", ())]


def _at(price: Any, start: int) -> float | None:
    """Return the price per million for prompts just above `start`."""
    if price is None:
        return None
    tiers = [tier.price for tier in getattr(price, "tiers", ()) if tier.start <= start]
    return float(tiers[-1] if tiers else getattr(price, "base", price))
