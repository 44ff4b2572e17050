"""lrq from Python: a dataset is worked on by a call, and what it made is there to be read."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from running import Lrq, Sim, write_lines

PROGRAM = """
import json, sys
import lrq

file, url = sys.argv[1:]
run = lrq.run(file, judge={"url": url, "model": "judge-sim"}, train=False)
again = lrq.open_run(run.name)
try:
    lrq.open_run("nobody")
except Exception as error:
    missing = str(error)
print(json.dumps({
    "end": run.outcome.end,
    "pairs": run.status()["pairs"],
    "rows": [row["id"] for row in again.pairs()],
    "scores": [line["reward"] for line in again.scores()],
    "missing": missing,
}))
"""


def test_a_dataset_is_worked_on_from_python(
    lrq: Lrq, sim: Callable[..., Sim], journal_items: Callable[[int, int], list[dict[str, Any]]], tmp_path: Path
):
    """As `lrq run` would: the same results in Python and in files, and nothing is bought again."""
    judge = sim()
    file = write_lines(tmp_path / "items.jsonl", journal_items(2, 5))
    (tmp_path / "programs").mkdir()
    program = tmp_path / "programs" / "program.py"  # beside it lies no folder named lrq
    program.write_text(PROGRAM)

    def call() -> dict[str, Any]:
        process = lrq.start(argv=[sys.executable, str(program), str(file), judge.url])
        lrq.ended(process, 0)
        return dict(json.loads(lrq.said().splitlines()[-1]))

    facts = call()
    assert facts["end"] == "done"
    assert facts["pairs"] == len(facts["rows"]) == 2
    assert len(facts["scores"]) == 10
    assert all(reward is not None for reward in facts["scores"])
    assert "nobody" in facts["missing"]
    assert len((lrq.home / "runs" / "items" / "pairs.jsonl").read_text().splitlines()) == 2
    bought = judge.stats()["received"]
    assert call() == facts
    assert judge.stats()["received"] == bought
