"""The context length that servers tell."""

import pytest

from lrq.calls.models import read_context_length


@pytest.mark.parametrize(
    ("entry", "length"),
    [
        ({"max_model_len": 4096}, 4096),
        ({"context_length": 131072, "top_provider": {}}, 131072),
        ({"context_window": "8192"}, 8192),
        ({"meta": {"n_ctx_train": 32768}}, 32768),
        ({"max_model_len": None, "parent": "base"}, 2048),
        ({"max_model_len": -1}, None),
        ({"max_model_len": True}, None),
        ({"max_model_len": "long"}, None),
        ({"max_model_len": float("nan")}, None),
        ({}, None),
    ],
)
def test_the_length_is_found_under_any_servers_name(entry: dict[str, object], length: int | None):
    """Of the model that is asked for; an adapter has that of its parent."""
    listing = {"data": [{"id": "base", "max_model_len": 2048}, {"id": "m"} | entry, "odd", None]}
    assert read_context_length(listing, "m") == length


@pytest.mark.parametrize(
    "listing", [None, [], {"data": None}, {"data": []}, {"data": [{"id": "x", "n_ctx": 99}, {"id": "y"}]}, "no"]
)
def test_what_says_nothing_of_the_model_is_no_length(listing: object):
    """Whatever a server returns there."""
    assert read_context_length(listing, "m") is None


def test_one_model_is_the_one_that_is_served():
    """Settings may leave its name out."""
    assert read_context_length({"data": [{"id": "x", "n_ctx": 99}]}, "default") == 99
