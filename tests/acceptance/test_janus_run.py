"""Janus from published files to a model by one command on the small policy, without a judge; then judged by rubrics."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from running import REPOSITORY, Lrq, Sim, write_lines

pytestmark = [pytest.mark.torch, pytest.mark.timeout(900)]

MODEL = REPOSITORY / "examples" / "small_policy" / "model"
SYSTEMS = ("You answer in few words.", "You are a kind teacher.", "You doubt everything.")
QUESTIONS = ("What is the cargo of Aurora?", "What is the cargo of Boreas?")
CARGOS = ("tea", "coal", "salt")
GOOD, OTHER = (f"The cargo of Aurora is {cargo}." for cargo in CARGOS[:2])


@pytest.fixture
def small(lrq: Lrq) -> Lrq:
    lrq.configure(
        policy={"path": str(MODEL), "device": "cpu", "dtype": "float32"},
        sample={"max_new_tokens": 24},
        train={"batch_size": 2, "max_steps": 2, "learning_rate": 1e-4, "device": "cpu"},
    )
    return lrq


def collection() -> list[dict[str, Any]]:
    """Rows of the shape of Multifaceted-Collection: one for each system message, those of a question apart."""
    source = {"main_source": "m", "original_source": "o", "preference_set": []}
    return [
        source | {"system": system, "prompt": question, "output": f"The cargo is {cargo}."}
        for system, cargo in zip(SYSTEMS, CARGOS, strict=True)
        for question in QUESTIONS
    ]


def model_of(done: Any) -> Path:
    output = Path(done.stdout.splitlines()[-1])
    assert (output / "model.safetensors").exists(), done.stdout
    return output


def test_the_collection_becomes_pairs_and_a_model_without_a_judge(small: Lrq, tmp_path: Path) -> None:
    """Its answers are paired across system messages; ordinary short pairs are mixed in and stand on the card."""
    file = write_lines(tmp_path / "collection.jsonl", collection())
    short = [{"idx": n, "query": QUESTIONS[0], "win_response": GOOD, "lose_response": OTHER} for n in range(2)]
    also = write_lines(tmp_path / "short.jsonl", short)
    output = model_of(small("run", file, "--recipe", "janus", "--set", f"train.also={also.name}"))
    card = (output / "README.md").read_text()
    assert "Direct Preference Optimization" in card
    assert "| ordinary pairs mixed in, of short.jsonl | 2 (50.0%) |" in card
    pairs = [json.loads(line) for line in small("export", "collection").stdout.splitlines()]
    outputs = {(row["prompt"], row["system"]): row["output"] for row in collection()}
    assert len(pairs) == len(QUESTIONS)
    for pair in pairs:
        system, question = (message["content"] for message in pair["prompt"])
        assert pair["chosen"][0]["content"] == outputs[question, system] != pair["rejected"][0]["content"]
    orpo = model_of(small("run", file, "--recipe", "janus", "--loss", "orpo", "--name", "orpo"))
    assert "Odds Ratio Preference Optimization" in (orpo / "README.md").read_text()


@pytest.mark.parametrize("form", ["collection", "dpo", "rm"])
def test_published_rows_train_as_they_are(small: Lrq, tmp_path: Path, form: str) -> None:
    """Outputs as demonstrations, pairs of messages, and plain pairs of the reward model's set."""
    rows = collection()
    if form == "dpo":
        answers = ("chosen", GOOD), ("rejected", OTHER)
        chats = {
            side: [{"role": "user", "content": QUESTIONS[0]}, {"role": "assistant", "content": text}]
            for side, text in answers
        }
        rows = [{"system": system, "prompt": QUESTIONS[0], **chats} for system in SYSTEMS]
    elif form == "rm":
        rows = [{"input": f"{system}\n{QUESTIONS[0]}", "chosen": GOOD, "rejected": OTHER} for system in SYSTEMS]
    file, output = write_lines(tmp_path / f"{form}.jsonl", rows), tmp_path / "trained"
    loss = "sft" if form == "collection" else "dpo"
    words = ("--set", "max_steps=1", "--set", "batch_size=2", "--set", "device=cpu", "--set", "zero_stage=0")
    result = json.loads(
        small("train", file, "--model", MODEL, "--output", output, "--loss", loss, *words, "--json").stdout
    )
    assert (result["state"], result["preflight"]["kept"]) == ("done", len(rows))
    assert (output / "model.safetensors").exists()


def test_a_teacher_writes_system_messages_and_rubrics_judge_the_model(
    small: Lrq, sim: Callable[..., Sim], tmp_path: Path
) -> None:
    """Instructions alone become pairs; the model is then compared by the rubrics of bench rows."""
    server = sim()
    small.env |= {"LRQ_TEACHER_URL": server.url, "LRQ_TEACHER_MODEL": "judge-sim"}
    items = [{"instruction": f"{question} {number}"} for number, question in enumerate(QUESTIONS * 2)]
    file = write_lines(tmp_path / "instructions.jsonl", items)
    sampling = ("--set", "sample.temperature=1.0")
    output = model_of(small("run", file, "--recipe", "janus", *sampling))
    assert server.stats()["received"] == 3 * len(items)
    small.judged_by(server)
    scale = {str(score): f"as {score}" for score in range(1, 6)}
    rubrics = [{"criteria": text, "score_descriptions": scale} for text in ("Is it brief?", "Is it kind?")]
    bench = [
        {"source": "s", "system": system, "prompt": QUESTIONS[0], "reference_answer": "Tea .", "rubrics": rubrics}
        for system in SYSTEMS
    ]
    held_out = write_lines(tmp_path / "bench.jsonl", bench)
    policies = ("--policy", f"before={MODEL}", "--policy", f"after={output}")
    before, after = json.loads(small("evaluate", held_out, "--rubrics", *policies, "--json").stdout)
    assert (before["items"], after["items"]) == (3, 3)
    assert 1 <= before["reward"] <= 5
    assert after["interval"][0] <= after["difference"] <= after["interval"][1]
