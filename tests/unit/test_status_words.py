"""What status and the end of a run say."""

import io
from typing import Any

import pytest
from rich.console import Console, Group

from lrq.cli.status import _runs_table, pace_lines, run_tables
from lrq.cli.terminal import figure
from lrq.reports.outcome import because, missing_results, shortfalls

PACE = {
    "calls": 2000,
    "per_second": 12.34,
    "seconds_left": 3723.0,
    "latency_p50": 1.5,
    "latency_p95": 12.0,
    "errors": {"refused (HTTP 400)": 3, "unknown": 1},
    "reasks": 41,
    "resent": 7,
}
SCORE = {"mean": 7.25, "value": 123_456, "not_applicable": 12_345, "unscored": 5}
USAGE = {
    "kind": "extraction",
    "step": "completeness",
    "calls": 123_456,
    "reused": 12_345,
    "failed": 1234,
    "prompt_tokens": 98_765_432_100,
    "cached_tokens": 87_654_321_000,
    "completion_tokens": 1_234_567_890,
    "unpriced": 0,
    "cost": 12_345.6789,
}


def facts(**other: Any) -> dict[str, Any]:
    made: dict[str, Any] = {
        "run": "a-run-with-a-rather-long-name-of-its-own",
        "state": "stopped",
        "items": {"done": 12_340, "failed": 5, "judging": 90_000},
        "set_aside": 2,
        "rejected": {"context is missing": 2},
        "responses": {"count": 480, "cut": 3, "without_text": {"empty": 4}},
        "scores": {"faithfulness": SCORE},
        "unscored": {"unreadable": 5},
        "failed": {"KeyError": 5},
        "pairs": 12_000,
        "rounds": [],
        "no_pair": {"best and worst have the same reward, 7": 300},
        "calls": {"calls": 1_234_567, "cached_tokens": 0, "unknown": 0},
        "money": {"spent": 12_345.6789, "max_cost": 20_000.0, "unpriced_calls": 0, "unknown_outcome": 0.0},
        "usage": [USAGE],
        "pace": PACE,
        "trainings": [],
    }
    return made | other


def test_80_columns_hold_every_figure():
    """Names are folded, figures are not cut."""
    out = io.StringIO()
    Console(file=out, width=80).print(Group(_runs_table([facts()]), *run_tables(facts())))
    text = out.getvalue()
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= 80
    for shown in ("12,345 of 102,345", "12,000", "1,234,567", "12345.6789 of 20000.00", "98,765.4M", "123,456", "7.25"):
        assert shown in text


@pytest.mark.parametrize(("number", "text"), [(0, "0"), (999_999, "999,999"), (1_250_000, "1.2M")])
def test_large_figures_are_millions(number: int, text: str):
    """From seven digits on."""
    assert figure(number) == text


def test_pace_is_said_in_two_lines():
    """Rate, time left and latency; errors by class, re-asks and what was sent again."""
    assert pace_lines(PACE) == [
        "12.3 calls/s, about 1h 02m left, latency p50 1.50 s, p95 12.00 s",
        "of the last 2,000 calls: 3 refused (HTTP 400), 1 unknown, 41 re-asks, 7 sent again",
    ]
    assert pace_lines({"calls": 0}) == []


def test_shortfalls_come_with_their_commonest_reasons():
    """Lines, items, responses and scores; nothing where nothing lacks."""
    assert shortfalls(facts()) == [
        "2 lines rejected: 2 × context is missing",
        "5 items failed: 5 × KeyError",
        "4 responses have no text: 4 × empty",
        "5 scores missing: 5 × unreadable",
    ]
    scored = {"faithfulness": SCORE | {"unscored": 0}}
    well = facts(items={"done": 1}, set_aside=0, responses={"without_text": {}}, scores=scored)
    assert shortfalls(well) == []


def test_of_many_reasons_the_commonest_are_shown():
    """And how many others there are."""
    assert because({"a": 1, "b": 5, "c": 2, "d": 3, "": 1}) == ": 5 × b; 3 × d; 2 × c and 2 other reasons"


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({}, []),
        ({"items": {}}, ["no line could be read"]),
        ({"scores": {}}, ["no score was made"]),
        ({"scores": {"faithfulness": SCORE | {"value": 0}}}, ["no score was made"]),
        ({"pairs": 0}, ["no pair was made: 300 × best and worst have the same reward, 7"]),
    ],
)
def test_a_result_of_which_there_is_none_is_named(other: dict[str, Any], said: list[str]):
    """Pairs and scores only where they are wanted."""
    assert missing_results(facts(**other), wants_pairs=True, wants_scores=True) == said
    assert missing_results(facts(pairs=0), wants_pairs=False, wants_scores=True) == []
    assert missing_results(facts(scores={}), wants_pairs=True, wants_scores=False) == []
