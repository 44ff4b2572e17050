"""`lrq agreement` on a run of conversations with reference scores."""

from pathlib import Path

import orjson
import pytest
from inline import Judge, World

SETTINGS = """
settings:
  rubrics:
    - {name: GV, criteria: Range and control of words and forms}
    - {name: DM, criteria: Length and order of what is said}
"""


def test_scores_are_compared_with_those_that_the_items_bring(
    lrq: World, judge: Judge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Accurate where the references are the judge's own scores, beside the judge that always says the same."""
    config = tmp_path / "lrq.yaml"
    config.write_text(SETTINGS)
    talks = [{"id": f"talk {n}", "turns": [{"speaker": "Candidate", "text": f"I have {n} cats."}]} for n in range(6)]
    lrq.run(lrq.write("blind", talks), "--recipe", "rubric", "--config", config)
    said = {line["id"]: line["scores"] for line in lrq.scores("blind")}
    none = lrq("agreement", "blind", code=2)
    assert "no item of run 'blind' has scores and reference scores" in none.err
    for talk in talks:
        scores = {name.partition("/")[2]: int(value) for name, value in said[str(talk["id"])].items()}
        talk["answer"] = orjson.dumps(scores).decode()
    talks[0]["answer"] = "{'GV': 1, 'DM': 5}"
    lrq.run(lrq.write("open", talks), "--recipe", "rubric", "--config", config)
    facts = lrq("agreement", "open", "--json").json()
    assert facts["items"] == 6
    assert facts["criteria"] == ["rubric/GV", "rubric/DM"]
    assert facts["counts"]["accurate"] >= 5
    assert facts["best_constant"]["accurate"] <= facts["accurate"]
    low, high = facts["intervals"]["accurate"]
    assert low <= facts["accurate"] <= high
    assert "always the same" in lrq("agreement", "open").out
