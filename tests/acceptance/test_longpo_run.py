"""LongPO from documents to a model by one command, without a judge: the small policy answers, a teacher asks."""

import json
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from running import REPOSITORY, Lrq, Sim, write_lines

pytestmark = [pytest.mark.torch, pytest.mark.timeout(600)]


def documents(count: int) -> list[dict[str, Any]]:
    """Documents of four paragraphs in the small policy's world."""
    sys.path.insert(0, str(REPOSITORY / "examples"))
    try:
        from harbour import LANGUAGES  # noqa: PLC0415
        from make_dataset import document  # noqa: PLC0415
    finally:
        sys.path.remove(str(REPOSITORY / "examples"))
    rng = random.Random(5)
    texts = ("\n\n".join(document(rng, LANGUAGES[n % 2], 16)[0] for _ in range(4)) for n in range(count))
    return [{"id": f"doc-{number}", "context": text} for number, text in enumerate(texts)]


def test_documents_become_a_model(lrq: Lrq, sim: Callable[..., Sim], tmp_path: Path) -> None:
    """Questions are paid once; rows have the long prompt, its short references and drawn tokens; it is trained."""
    teacher = sim()
    lrq.env |= {"LRQ_TEACHER_URL": teacher.url, "LRQ_TEACHER_MODEL": "judge-sim"}
    model = REPOSITORY / "examples" / "small_policy" / "model"
    lrq.configure(
        policy={"path": str(model), "device": "cpu", "dtype": "float32"},
        settings={"chunk_tokens": 250, "least_chunk_tokens": 60, "questions_by": "teacher", "answer_temperature": 1.0},
        train={"batch_size": 2, "max_steps": 2, "learning_rate": 1e-4},
    )
    file = write_lines(tmp_path / "docs.jsonl", documents(4))
    done = lrq("run", file, "--recipe", "longpo")
    output = Path(done.stdout.splitlines()[-1])
    assert (output / "model.safetensors").exists()
    assert "1 × nll + 0.01 × sigmoid" in (output / "README.md").read_text()
    job = output.parent / "training" / "round-0-window-0"
    rows = [json.loads(line) for line in (job / "pairs.jsonl").read_text().splitlines()]
    turns = [turn for row in rows for turn in row["turns"]]
    assert rows
    assert all(turn["reference_ids"] and turn["chosen_ids"] and turn["rejected_ids"] for turn in turns)
    assert all(len(row["turns"][0]["prompt_ids"]) > len(row["turns"][0]["reference_ids"]) for row in rows)
    assert all("prompt_ids" not in turn for row in rows for turn in row["turns"][1:])
    preflight = json.loads((job / "preflight.json").read_text())
    assert (preflight["kept"], preflight["notes"], preflight["shared_prefix"]) == (len(rows), [], "yes")
    assert len((job / "reference.jsonl").read_text().splitlines()) == 2 * len(turns)
    asked = teacher.stats()["received"]
    lrq("run", file, "--recipe", "longpo")
    assert teacher.stats()["received"] == asked


def test_items_that_bring_their_questions_and_the_judge_beside(
    lrq: Lrq, sim: Callable[..., Sim], tmp_path: Path
) -> None:
    """Two turns a document, no teacher; the judge says how often the short answer is better, and it is reported."""
    judge = sim()
    lrq.judged_by(judge)
    model = REPOSITORY / "examples" / "small_policy" / "model"
    lrq.configure(
        policy={"path": str(model), "device": "cpu", "dtype": "float32"},
        settings={"compare_answers": True, "answer_temperature": 1.0},
        sample={"seed": 3},
        train={"batch_size": 2, "max_steps": 1, "learning_rate": 1e-4, "zero_stage": 0},
    )
    lines = documents(4)
    for line in lines:
        parts = line["context"].split("\n\n")
        line["short_contexts"] = parts[:2]
        line["questions"] = [f"What does the text say of this: {part.split('.')[0]}?" for part in parts[:2]]
    done = lrq("run", write_lines(tmp_path / "docs.jsonl", lines), "--recipe", "longpo")
    output = Path(done.stdout.splitlines()[-1])
    assert (output / "model.safetensors").exists()
    rows = [
        json.loads(line)
        for line in (output.parent / "training" / "round-0-window-0" / "pairs.jsonl").read_text().splitlines()
    ]
    assert all(1 <= len(row["turns"]) <= 2 for row in rows)
    facts = lrq.status("docs")
    assert facts["state"] == "done"
    counted = facts["scores"]["short_wins"]
    assert counted["value"] == 2 * len(lines)
    assert 0 <= counted["mean"] <= 1
    assert "short_wins" in lrq("report", "docs").stdout
    assert judge.stats()["received"] == facts["calls"]["calls"] <= 2 * 2 * len(lines)
