"""How many calls are in flight: what is allowed, whatever the latency, with the defaults of everything else."""

import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from running import Lrq, Sim, until, write_lines


def items(count: int) -> list[Mapping[str, Any]]:
    """Short documents with ten responses each, of which no two are alike."""
    rng = random.Random("in flight")
    words = [f"word{n}" for n in range(500)]

    def text(length: int) -> str:
        return " ".join(rng.choices(words, k=length))

    return [
        {"id": str(n), "context": text(200), "question": text(8), "responses": [text(20) for _ in range(10)]}
        for n in range(count)
    ]


def test_one_judge_has_what_is_allowed_in_flight(lrq: Lrq, sim: Callable[..., Sim], tmp_path: Path) -> None:
    """400 at ten seconds of latency: thirty-two tasks would hold 300 at most; and never one more than allowed."""
    judge = sim("--latency", "10000", "--canned")
    lrq.judged_by(judge)
    file = write_lines(tmp_path / "items.jsonl", items(60))
    run = lrq.start("run", file, "--no-train", "--concurrency", "400")
    until(lambda: judge.stats()["in_flight"] >= 380, "380 in flight", 120)
    run.terminate()
    lrq.ended(run)
    assert judge.stats()["peak_in_flight"] <= 400
