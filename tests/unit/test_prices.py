"""Money: whole millionths, bounds that hold, prices from the settings or the packaged table."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrq.calls.prices import Rates, rates_of
from lrq.config import Endpoint, Price
from lrq.domain.records import Usage

RATES = Rates(input=2.5, output=10.0, cached=1.25)
OPENAI = "https://api.openai.com/v1"
GOOGLE = "https://generativelanguage.googleapis.com/v1beta/openai"


def endpoint(url: str = "http://localhost:8000/v1", model: str = "m", **fields: Any) -> Endpoint:
    return Endpoint(url=url, model=model, **fields)


@pytest.mark.parametrize(
    ("usage", "cost"),
    [
        (Usage(prompt_tokens=100, completion_tokens=10), 350),  # 100 × 2.5 + 10 × 10
        (Usage(prompt_tokens=100, cached_tokens=60, completion_tokens=10), 275),  # 40 × 2.5 + 60 × 1.25 + 100
        (Usage(prompt_tokens=1), 3),  # 2.5, rounded up
        (Usage(), 0),
    ],
)
def test_a_call_costs_what_its_tokens_cost(usage: Usage, cost: int) -> None:
    """Money per million tokens is millionths per token."""
    assert RATES.cost(usage) == cost


def test_above_a_threshold_the_whole_call_has_the_higher_price() -> None:
    """As providers bill it: one token more than 200,000 makes all of them dearer."""
    rates = Rates(input=1.0, output=5.0, cached=0.5, longer=Rates(input=2.0, output=8.0, cached=1.0, start=200_000))
    assert rates.cost(Usage(prompt_tokens=200_000, completion_tokens=10)) == 200_050
    assert rates.cost(Usage(prompt_tokens=200_001, completion_tokens=10)) == 400_082
    assert rates.bound(200_000, 10) == 200_050
    assert rates.bound(200_001, 10) == 400_082


TOKENS = st.integers(0, 10**6)
PRICES = st.floats(0, 100, allow_nan=False)


@given(PRICES, PRICES, PRICES, PRICES, TOKENS, TOKENS, st.data())
def test_no_call_costs_more_than_its_bound(
    input_: float, output: float, cached: float, longer: float, prompt: int, completion: int, data: st.DataObject
) -> None:
    """Whatever the prices, and however many of the tokens it takes in the end."""
    above = Rates(input=longer, output=longer, cached=longer, start=200_000)
    rates = Rates(input=input_, output=output, cached=cached, longer=above)
    used = data.draw(st.integers(0, prompt))
    usage = Usage(
        prompt_tokens=used,
        cached_tokens=data.draw(st.integers(0, used)),
        completion_tokens=data.draw(st.integers(0, completion)),
    )
    assert rates.cost(usage) <= rates.bound(prompt, completion)


def test_the_settings_price_goes_before_the_table() -> None:
    """Without a price of its own, cached input costs what input costs."""
    price = Price(input=3.0, output=6.0)
    assert rates_of(endpoint(OPENAI, "gpt-4o-mini", price=price)) == Rates(input=3.0, output=6.0, cached=3.0)
    cached = Price(input=3.0, cached=0.0)
    assert rates_of(endpoint(price=cached)) == Rates(input=3.0, output=0.0, cached=0.0)


def test_a_known_model_at_its_own_host_has_its_published_price() -> None:
    """Tiers and cached input included; nothing is fetched."""
    rates = rates_of(endpoint(OPENAI, "gpt-4o-mini"))
    assert rates is not None
    assert 0 < rates.cached < rates.input < rates.output
    tiered = rates_of(endpoint(GOOGLE, "gemini-2.5-pro"))
    assert tiered is not None
    assert tiered.longer is not None
    assert tiered.longer.start == 200_000
    assert tiered.longer.input > tiered.input


@pytest.mark.parametrize(
    ("url", "model"),
    [("http://localhost:8000/v1", "gpt-4o-mini"), (OPENAI, "no-such-model"), ("https://proxy.example/v1", "gpt-4o")],
)
def test_an_unknown_price_is_none(url: str, model: str) -> None:
    """The same model elsewhere costs something else, or nothing: it is unpriced, not free."""
    assert rates_of(endpoint(url, model)) is None
