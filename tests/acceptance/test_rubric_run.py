"""Rubric scoring from a published CSV to a judge of one's own by one command, and how far it agrees."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("torch")

from running import REPOSITORY, Lrq, Sim

pytestmark = [pytest.mark.torch, pytest.mark.timeout(900)]

MODEL = REPOSITORY / "examples" / "small_policy" / "model"


def part(path: Path) -> Path:
    """Transcripts in the form of EvalYaks: a gap in the JSON, one without its scores, one without the candidate."""
    head = "<s>[INST] Score the conversation.\n\nConversation:\n\n"
    turns = [f'{{"Examiner": "Go?", "Candidate": "Yes, I go {number}."}},, "Examiner": "Why?"}}' for number in range(5)]
    scores = [f"{{'GRAMMAR_AND_VOCABULARY': {1 + n % 5}, 'DISCOURSE_MANAGEMENT': {1 + n % 3}}}" for n in range(5)]
    prompts = [f"{head}[{turn}] [/INST]{score} </s>" for turn, score in zip(turns, scores, strict=True)]
    prompts += [f"{head}[{turns[0]}] [/INST] </s>", f'{head}[{{"Examiner": "Go?"}}] [/INST]{scores[0]} </s>']
    with path.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream, quoting=csv.QUOTE_ALL).writerows([["PROMPT"], *([prompt] for prompt in prompts)])
    return path


def test_a_published_part_becomes_a_judge(lrq: Lrq, sim: Callable[..., Sim], tmp_path: Path) -> None:
    """Scored by the endpoint, trained as LoRA on the reference scores; what is missing is named, no score guessed."""
    lrq.judged_by(sim())
    lrq.configure(
        policy={"path": str(MODEL), "device": "cpu", "dtype": "float32"},
        train={"batch_size": 2, "max_steps": 2, "device": "cpu"},
    )
    file = part(tmp_path / "Part1.csv")
    done = lrq("run", file, "--recipe", "evalyaks-1", code=3)
    assert "1 lines have no scores" in done.stderr
    assert "PROMPT holds no turn of a candidate" in lrq("status", "Part1", "--failed").stdout
    output = Path(done.stdout.splitlines()[-1])
    assert json.loads((output / "adapter_config.json").read_text())["r"] == 256
    assert "LoRA, rank 256, alpha 128" in (output / "README.md").read_text()
    rows = [json.loads(line) for line in lrq("export", "Part1").stdout.splitlines()]
    assert len(rows) == 5
    assert all(row["completion"][0]["content"].startswith("[RESULT] GRAMMAR_AND_VOCABULARY: ") for row in rows)
    facts = json.loads(lrq("agreement", "Part1", "--json").stdout)
    assert (facts["items"], facts["unscored"]) == (5, 0)
    assert facts["criteria"] == ["rubric/GRAMMAR_AND_VOCABULARY", "rubric/DISCOURSE_MANAGEMENT"]
    assert facts["best_constant"]["acceptable"] >= facts["best_constant"]["accurate"] > 0


def test_the_policy_scores_without_an_endpoint(lrq: Lrq, tmp_path: Path) -> None:
    """The small policy knows no scores: each conversation is asked about five times, then unscored with its reason."""
    lrq.configure(policy={"path": str(MODEL), "device": "cpu", "dtype": "float32"})
    words = ("--set", "settings.scored_by=policy", "--no-train", "--scores-only")
    lrq("run", part(tmp_path / "Part1.csv"), "--recipe", "evalyaks-1", *words, code=3)
    scores = lrq.scores("Part1")
    assert {line["id"] for line in scores} == {"1", "2", "3", "4", "5", "6"}
    last = [line for line in scores if "rubric/DISCOURSE_MANAGEMENT" in line["reasons"]]
    assert {line["reasons"]["rubric/DISCOURSE_MANAGEMENT"] for line in last} == {
        "the reply has no score for DISCOURSE_MANAGEMENT"
    }
