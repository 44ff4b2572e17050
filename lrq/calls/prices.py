"""Money in integer micro-units; an unknown price is unpriced, never 0."""

from dataclasses import dataclass
from functools import cache
from math import ceil

from lrq.config import Endpoint
from lrq.domain.records import Usage


@dataclass(frozen=True, kw_only=True)
class Rates:
    """Money per million tokens, which is micro-units per token."""

    input: float
    output: float
    cached: float

    def cost(self, usage: Usage) -> int:
        """Micro-units of a call, rounded up so that sums never fall below the bill."""
        fresh = usage.prompt_tokens - usage.cached_tokens
        return ceil(fresh * self.input + usage.cached_tokens * self.cached + usage.completion_tokens * self.output)

    def bound(self, prompt_tokens: int, completion_tokens: int) -> int:
        """The most such a call can cost."""
        return ceil(prompt_tokens * max(self.input, self.cached) + completion_tokens * self.output)


def rates_of(endpoint: Endpoint) -> Rates | None:
    """The settings' price, else the published one of the model at that host, else None: unpriced."""
    price = endpoint.price
    if price is not None:
        return Rates(
            input=price.input, output=price.output, cached=price.input if price.cached is None else price.cached
        )
    return _published(endpoint.model, endpoint.url)


@cache
def _published(model: str, url: str) -> Rates | None:
    """From the price table that ships with genai-prices; nothing is fetched.

    A host that is not a known provider has no price: the same model costs something else, or nothing, elsewhere.
    """
    from genai_prices import Usage as Counted  # noqa: PLC0415 - a table of 1 MB that most processes never need
    from genai_prices import calc_price  # noqa: PLC0415

    million = 1_000_000

    def price(**tokens: int) -> float:
        found = calc_price(Counted(**tokens), model_ref=model, provider_api_url=url)
        return float(found.total_price)

    try:
        fresh = price(input_tokens=million)
        cached = price(input_tokens=million, cache_read_tokens=million)
        return Rates(input=fresh, output=price(output_tokens=million), cached=cached)
    except LookupError:
        return None
