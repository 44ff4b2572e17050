"""LongPO's rows of several turns against plain forward passes: policy on the long prompt, reference on the short."""

import json
import random
import warnings
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

with warnings.catch_warnings():  # the libraries warn about each other when imported
    warnings.simplefilter("ignore")
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    from lrq.trainer.job import TrainJob
    from lrq.trainer.job_folder import prepare
    from lrq.trainer.launch import run
    from lrq.trainer.tiny import WORDS, make_policy

pytestmark = [pytest.mark.torch, pytest.mark.timeout(600)]

ROWS, TURNS, BETA, WEIGHT, RATE = 8, 3, 0.1, 0.5, 2e-3


def said(draw: random.Random, count: int) -> str:
    return " ".join(draw.choices(WORDS, k=count))


def make_long_rows(file: Path) -> list[dict[str, Any]]:
    """Rows of one to three turns; a turn's reference sees a short prompt of its own."""
    draw, rows = random.Random(3), []
    for number in range(ROWS):
        turns = []
        for turn in range(1 + number % TURNS):
            texts = {"prompt": said(draw, 6 if turn else 40), "reference": said(draw, 12)}
            sides = {"chosen": said(draw, 5 + number), "rejected": said(draw, 9 - turn)}
            roles = dict.fromkeys(texts, "user") | dict.fromkeys(sides, "assistant")
            turns.append({name: [{"role": roles[name], "content": text}] for name, text in (texts | sides).items()})
        rows.append({"turns": turns})
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return rows


class Plain:
    """LongPO's loss by two forward passes over sequences put together by hand, and AdamW."""

    def __init__(self, policy: Path) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(policy)
        self.model, self.reference = (AutoModelForCausalLM.from_pretrained(policy) for _ in range(2))

    def ids(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def sequence(self, turns: list[tuple[str, str]]) -> tuple[list[int], list[int]]:
        """Token ids of a conversation in the template of lrq.trainer.tiny, and 1 for each that is of an answer."""
        ids, mask = self.ids("<bos>"), [0]
        for asked, answer in turns:
            question, reply = self.ids(f"<user> {asked} <eos> <assistant>"), self.ids(f"{answer} <eos>")
            ids += question + reply
            mask += [0] * len(question) + [1] * len(reply)
        return ids, mask

    def log_probs(self, model: Any, ids: list[int]) -> Any:
        logits = model(torch.tensor([ids])).logits[0, :-1].float().log_softmax(-1)
        return logits.gather(1, torch.tensor(ids[1:])[:, None])[:, 0]

    def row(self, row: dict[str, Any]) -> tuple[Any, Any]:
        """NLL of the whole chosen sequence, and β times the margin."""
        deltas, whole = [], None
        for side in ("chosen", "rejected"):
            text = [{name: part[0]["content"] for name, part in turn.items()} for turn in row["turns"]]
            ids, mask = self.sequence([(turn["prompt"], turn[side]) for turn in text])
            each = self.log_probs(self.model, ids)
            whole = -each.mean() if whole is None else whole
            seen = [self.sequence([(turn["reference"], turn[side])]) for turn in text]
            with torch.no_grad():
                base = sum((self.log_probs(self.reference, short) * torch.tensor(own[1:])).sum() for short, own in seen)
            deltas.append((each * torch.tensor(mask[1:])).sum() - base)
        return whole, BETA * (deltas[0] - deltas[1])


def course(policy: Path, rows: list[dict[str, Any]], steps: int, theta: float | None) -> list[list[float]]:
    """Loss and margin of each step over all rows."""
    plain = Plain(policy)
    if theta:
        config = AutoConfig.from_pretrained(policy)
        config.rope_parameters = {**config.rope_parameters, "rope_theta": theta}
        plain.model = AutoModelForCausalLM.from_pretrained(policy, config=config)
    optimizer = torch.optim.AdamW(plain.model.parameters(), lr=RATE, weight_decay=0)
    lines = []
    for _ in range(steps):
        figures = [plain.row(row) for row in rows]
        losses = [whole - WEIGHT * torch.nn.functional.logsigmoid(margin) for whole, margin in figures]
        loss = torch.stack(losses).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(plain.model.parameters(), 1.0)
        optimizer.step()
        lines.append([loss.item(), torch.stack([margin for _, margin in figures]).mean().item()])
    return lines


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("shared", {"zero_stage": 0}),
        ("plain", {"zero_stage": 2, "shared_prefix": False, "micro_batch": 1}),
        ("theta", {"zero_stage": 0, "rope_theta": 1e6}),
        ("ranks", {"zero_stage": 3, "processes": 2}),
    ],
)
def test_a_row_of_several_turns_is_trained_as_by_hand(tmp_path: Path, name: str, settings: dict[str, Any]) -> None:
    """In fp32 loss and margin of three steps agree to 1e-5, and reference log-probabilities are computed once."""
    policy = make_policy(tmp_path / "policy")
    rows = make_long_rows(tmp_path / "rows.jsonl")
    files = {"model": policy, "rows": tmp_path / "rows.jsonl", "output": tmp_path / name}
    method = {"loss_type": ("nll", "sigmoid"), "loss_weights": (1.0, WEIGHT), "beta": BETA, "batch_size": ROWS}
    steps = {"epochs": 3, "learning_rate": RATE, "warmup": 0, "scheduler": "constant", "device": "cpu"}
    store = {"reference": tmp_path / "reference.jsonl"}
    job = TrainJob.model_validate({**files, **method, **steps, **store, **settings})
    folder = prepare(tmp_path / f"{name}.job", job)
    result = run(folder)
    assert result.state == "done", result
    assert result.preflight
    assert result.preflight.shared_prefix == ("not asked for" if name == "plain" else "yes")
    got = [[line["loss"], line["margin"]] for line in folder.load_metrics()]
    expected = course(policy, rows, 3, settings.get("rope_theta"))
    assert abs(expected[2][1] - expected[0][1]) > 1e-2, "a training in which nothing moves would show nothing"
    assert got == [pytest.approx(line, abs=1e-5) for line in expected]
    turns = sum(len(row["turns"]) for row in rows)
    kept = store["reference"].read_text()
    assert len(kept.splitlines()) == 2 * turns
    again = prepare(tmp_path / "again.job", job.model_copy(update={"output": tmp_path / "again"}))
    assert run(again).state == "done"
    assert store["reference"].read_text() == kept
    config = json.loads((tmp_path / name / "config.json").read_text())
    base = json.loads((policy / "config.json").read_text())
    assert config["rope_theta"] == settings.get("rope_theta", base["rope_parameters"]["rope_theta"])
