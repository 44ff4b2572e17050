"""Same question, same key; any other question, another."""

from dataclasses import fields, replace
from typing import Any

import pytest

from lrq.calls.keys import call_key
from lrq.domain.records import Call

CALL = Call(
    role="judge",
    endpoint="e",
    model="m",
    messages=({"role": "user", "content": "q"},),
    temperature=0.01,
    max_tokens=512,
    extra={"a": 1, "b": {"c": 2}},
)
OTHERS: dict[str, Any] = {
    "role": "teacher",
    "endpoint": "f",
    "model": "n",
    "messages": ({"role": "user", "content": "q "},),
    "input": ("q",),
    "temperature": 0.95,
    "top_p": 0.9,
    "max_tokens": 1024,
    "n": 2,
    "seed": 1,
    "extra": {"a": 1},
    "draw": 1,
    "attempt": 1,
    "series": 1,
    "identity": "judge.example:8000/v1",
}


def test_every_field_of_a_call_is_part_of_its_key() -> None:
    """A field that is added and forgotten would let two questions share a reply."""
    assert OTHERS.keys() == {field.name for field in fields(Call)}


@pytest.mark.parametrize("name", OTHERS)
def test_another_value_is_another_key(name: str) -> None:
    """For each field alone."""
    assert call_key(replace(CALL, **{name: OTHERS[name]})) != call_key(CALL)


def test_the_order_of_a_mapping_is_not() -> None:
    """Settings and messages may be written in any order."""
    turned = replace(CALL, extra={"b": {"c": 2}, "a": 1}, messages=[{"content": "q", "role": "user"}])
    assert call_key(turned) == call_key(CALL)


def test_a_key_stays_what_it_is() -> None:
    """Ledgers outlive releases: a reply that was paid for must be found again by the next version."""
    assert call_key(CALL) == "1e46013c5510d1726e7c2e2e038561cc33d2bf13"
    assert len(call_key(CALL)) == 40


def test_texts_do_not_run_into_each_other() -> None:
    """Where a message ends is part of the question."""
    one = replace(CALL, messages=({"role": "user", "content": "ab"}, {"role": "user", "content": "c"}))
    other = replace(CALL, messages=({"role": "user", "content": "a"}, {"role": "user", "content": "bc"}))
    assert call_key(one) != call_key(other)
