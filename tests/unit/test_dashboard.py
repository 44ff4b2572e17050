"""What a run at work looks like on a terminal."""

import io
from datetime import UTC, datetime
from typing import Any

import pytest
from rich.console import Console

from lrq.cli.dashboard import dashboard
from lrq.cli.progress import progress_line

PACE = {
    "calls": 2000,
    "per_second": 38.25,
    "seconds_left": 250.0,
    "latency_p50": 1.5,
    "latency_p95": 12.0,
    "errors": {"refused (HTTP 400)": 3},
    "reasks": 41,
    "resent": 0,
}


def progress(**other: Any) -> dict[str, Any]:
    """Return a run of 100,000 items, a fifth of them done."""
    stage = {"ready": 120, "at_work": 64, "calls": 123_456, "failed": 1234, "cost": 1234.5678, "latency": 1.25}
    made: dict[str, Any] = {
        "run": "journals",
        "state": "active",
        "reason": "",
        "round": 1,
        "items": 100_000,
        "ended": 20_000,
        "failed": {"KeyError in faithfulness: 'a'": 5, "no response has a text": 2},
        "pairs": 19_000,
        "calls": 1_234_567,
        "money": {"spent": 1234.5678, "expected": 6172.839, "max_cost": 8000.0},
        "pace": PACE,
        "stages": [{"stage": name, **stage} for name in ("sample", "completeness", "faithfulness", "aggregate")],
        "training": None,
        "waits": ["judge.default.glm: HTTP 503"],
    }
    return made | other


def drawn(width: int = 80, **other: Any) -> str:
    stream = io.StringIO()
    at = datetime(2026, 1, 2, 18, 30, tzinfo=UTC)
    Console(file=stream, width=width).print(dashboard(progress(**other), at))
    return stream.getvalue()


def test_80_columns_hold_all_that_a_run_has_to_say() -> None:
    """How far, how fast, when done, what it cost and will cost, what fails and why, what is waited for, by stage."""
    text = drawn()
    assert max(map(len, text.splitlines())) <= 80
    words = " ".join(text.split())
    for part in (
        "journals active, round 1",
        "20,000 of 100,000 items, 20%",
        "1,234,567 calls · 19,000 pairs · 38.2 calls/s · p50 1.5 s · 4m 10s left, done at 18:34 UTC",
        "spent 1234.5678 of a budget of 8000.00 · about 6172.84 in all",
        "failing: of the last 2,000 calls 3 refused (HTTP 400), 41 re-asks",
        "failing: 7 items: 5 × KeyError in faithfulness: 'a'; 2 × no response has a text",
        "waiting for judge.default.glm: HTTP 503",
    ):
        assert part in words
    faithfulness = next(line for line in text.splitlines() if line.strip().startswith("faithfulness"))
    assert faithfulness.split() == ["faithfulness", "120", "64", "123,456", "1,234", "1234.5678", "1.2", "s"]


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"money": {"spent": None, "expected": None, "max_cost": None}}, "unpriced"),
        ({"state": "paused", "reason": "paused by ada: lunch"}, "journals paused, round 1: paused by ada: lunch"),
        ({"training": {"step": 3, "of": 40, "loss": 0.5}}, "training step 3 of 40, loss 0.5000"),
        ({"items": 0, "ended": 0}, "no items yet"),
    ],
)
def test_other_states_have_their_words(other: dict[str, Any], words: str) -> None:
    assert words in " ".join(drawn(**other).split())


def test_a_log_gets_one_line() -> None:
    assert progress_line(progress()) == (
        "journals: 20000 of 100000 items in round 1, 1,234,567 calls, 19,000 pairs, 1234.5678 of 8000.00, "
        "38.2 calls/s, 4m 10s left"
    )
