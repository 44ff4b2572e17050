"""`lrq evaluate`: by rubrics, over several runs, on long documents beside short questions."""

from typing import Any

import pytest
from inline import Judge, World
from journals import EXAMPLES, questions

pytest.importorskip("torch")

pytestmark = pytest.mark.torch

POLICY = EXAMPLES / "small_policy" / "model"
SHORT = ("--set", "sample.max_new_tokens=40", "--json")
RUBRICS = [
    {"criteria": "Is it kind?", "score_descriptions": {str(score): f"kind as {score}" for score in range(1, 6)}},
    {"criteria": "Is it brief?"},
]


@pytest.fixture(autouse=True)
def _work_inline(lrq: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lrq.cli.evaluate.finish", lambda _ledger, _settings, run, **_: lrq.work(run) or 0)


def bench(count: int) -> list[dict[str, Any]]:
    """Rows of the shape of Multifaceted Bench: no id, and a field of the older revision in every other."""
    row = {"source": "s", "system": "You are kind.", "reference_answer": "Dear, so it is."}
    return [row | {"prompt": f"Why {n}?", ("rubric" if n % 2 else "rubrics"): RUBRICS} for n in range(count)]


def test_each_rubric_is_a_call_and_runs_are_averaged(lrq: World, judge: Judge) -> None:
    """As published rows load; asked again nothing is bought again; the judge sees the system message or not."""
    file, policy = lrq.write("bench", bench(3)), f"small={POLICY}"
    before = judge.stats()["received"]
    (facts,) = lrq("evaluate", file, "--rubrics", "--runs", 2, "--policy", policy, *SHORT).json()
    assert (facts["file"], facts["policy"], facts["items"]) == ("bench.jsonl", "small", 3)
    assert facts["reward"] == pytest.approx(sum(facts["runs"]) / 2)
    assert 1 <= facts["reward"] <= 5
    lines = [*lrq.scores("bench-small"), *lrq.scores("bench-small-2")]
    assert all(line["scores"].keys() == {"rubric/1", "rubric/2"} for line in lines)
    assert all(line["reward"] == pytest.approx(sum(line["scores"].values()) / 2) for line in lines)
    answers = {(line["id"], line["answer"]) for line in lines}
    assert judge.stats()["received"] - before == 2 * len(answers)
    assert len(answers) > 3
    again = lrq("evaluate", file, "--rubrics", "--runs", 2, "--policy", policy, *SHORT).json()
    assert (again, judge.stats()["received"] - before) == ([facts], 2 * len(answers))
    hidden = ("--set", "settings.show_system=false", "--name", "hidden")
    lrq("evaluate", file, "--rubrics", "--policy", policy, *hidden, *SHORT)
    assert len(lrq.scores("hidden-small")) == 3


def test_an_item_without_system_message_is_asked_without_one(lrq: World) -> None:
    """No teacher is wanted, and the rubrics may be those of the settings."""
    file = lrq.write("plain", [{"id": "1", "question": "Why?"}])
    words = ("--set", 'settings.rubrics=["Is it kind?"]')
    (facts,) = lrq("evaluate", file, "--rubrics", "--policy", f"small={POLICY}", *words, *SHORT).json()
    assert facts["items"] == 1
    assert lrq.scores("plain-small")[0]["scores"].keys() == {"rubric/1"}


def test_short_questions_stand_beside_long_documents(lrq: World) -> None:
    """Each file has its own change with its interval; what needs a document is not applicable without one."""
    long = lrq.write("long", questions(2))
    short = lrq.write("short", [{"id": str(n), "query": f"What is {n} + {n}?"} for n in range(3)])
    policies = ("--policy", f"before={POLICY}", "--policy", f"after={POLICY}")
    facts = lrq("evaluate", long, short, *policies, "--responses", 2, *SHORT).json()
    assert [(one["file"], one["policy"], one["items"]) for one in facts] == [
        ("long.jsonl", "before", 2),
        ("long.jsonl", "after", 2),
        ("short.jsonl", "before", 3),
        ("short.jsonl", "after", 3),
    ]
    assert [(one["difference"], one["interval"]) for one in facts if one["policy"] == "after"] == [(0, [0, 0])] * 2
    line = lrq.scores("short-before")[0]
    assert line["reasons"]["faithfulness"] == line["reasons"]["completeness"] == "the item has no document"
    assert line["reward"] == pytest.approx((line["scores"]["helpfulness"] + line["scores"]["logicality"]) / 2)
    assert "the item has no document" in lrq("show", "short-before:1").out
