"""`lrq train` on a file of pairs: from rows to a model that answers."""

import json
import os
import subprocess
import sys
import warnings
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner

torch = pytest.importorskip("torch")

with warnings.catch_warnings():  # the libraries warn about each other when imported
    warnings.simplefilter("ignore")
    from datasets import Dataset
    from transformers import AutoTokenizer
    from trl import DPOTrainer

    from lrq.cli.train import read_settings, train
    from lrq.domain.errors import UsageError
    from lrq.trainer.launch import environment
    from lrq.trainer.rows import read_rows
    from lrq.trainer.tiny import make_policy, make_rows
    from lrq.trainer.tokens import encode, render
    from lrq.trainer.worker import _padding

pytestmark = [pytest.mark.torch, pytest.mark.slow]

ANSWER = """
import sys
from transformers import AutoModelForCausalLM, AutoTokenizer
model, tokenizer = (auto.from_pretrained(sys.argv[1]) for auto in (AutoModelForCausalLM, AutoTokenizer))
prompt = tokenizer.apply_chat_template(
    [{"role": "user", "content": "w1 w2"}], add_generation_prompt=True, return_dict=True, return_tensors="pt"
)
tokens = model.generate(**prompt, max_new_tokens=6, min_new_tokens=6, do_sample=False)
print("ANSWER", model.config._attn_implementation, tokenizer.decode(tokens[0, prompt["input_ids"].shape[1] :]))
"""


def test_a_file_of_pairs_becomes_a_model_that_answers(tmp_path: Path) -> None:
    """A bad line costs one row and exit status 3; the folder holds model, tokenizer and card; once is enough."""
    rows = make_rows(tmp_path / "rows.jsonl", rows=24)
    with rows.open("a") as stream:
        stream.write('{"prompt": "torn\n')
    policy = make_policy(tmp_path / "policy")
    settings = ("batch_size=8", "learning_rate=1e-2", "warmup=0", "epochs=2", "device=cpu", "save_steps=3")
    command = [str(rows), "--model", str(policy), "--output", str(tmp_path / "better"), "--json"]
    command += [part for setting in settings for part in ("--set", setting)]

    first = CliRunner().invoke(train, command, catch_exceptions=False)
    result = json.loads(first.stdout)
    assert (first.exit_code, result["state"], result["steps"]) == (3, "done", 6), result
    assert {name: result["preflight"][name] for name in ("rows", "kept", "cut", "dropped", "set_aside")} == {
        "rows": 25, "kept": 24, "cut": 0, "dropped": 0, "set_aside": 1
    }  # fmt: skip
    assert result["preflight"]["reasons"] == ["line 25 is not JSON"]

    lines = [json.loads(line) for line in (tmp_path / "better.job" / "metrics.jsonl").read_text().splitlines()]
    assert [(line["step"], line["of"]) for line in lines] == [(step, 6) for step in range(1, 7)]
    assert lines[-1]["loss"] < lines[0]["loss"] - 0.1
    assert lines[-1]["margin"] > 0.5
    assert lines[0]["learning_rate"] == pytest.approx(1e-2)

    files = {path.name for path in (tmp_path / "better").iterdir()}
    assert {"model.safetensors", "tokenizer.json", "chat_template.jinja", "README.md"} <= files
    assert not [name for name in files if name.endswith((".bin", ".pt"))], "nothing pickled"
    card = (tmp_path / "better" / "README.md").read_text()
    assert result["preflight"]["model"] in card
    config = (tmp_path / "better" / "config.json").read_text()
    assert str(tmp_path) not in card + config
    assert json.loads(config)["use_cache"], "generation from it is not slowed down by what training switched off"
    assert not list((tmp_path / "better.job").glob("checkpoints/*"))

    fresh = subprocess.run(
        [sys.executable, "-c", ANSWER, str(tmp_path / "better")],
        env=environment(os.environ),
        capture_output=True,
        text=True,
        check=True,
    )
    _, attention, *words = fresh.stdout.split()
    assert (attention, len(words)) == ("sdpa", 6)

    again = CliRunner().invoke(train, command, catch_exceptions=False)
    assert (again.exit_code, json.loads(again.stdout)) == (3, result)


def test_an_adapter_of_a_cached_model_is_trained_and_trained_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name in the hub cache, a share held out, LoRA; the adapter's folder is a policy again, and is merged."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    repository = tmp_path / "hub" / "models--acme--tiny"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    make_policy(repository / "snapshots" / ("0" * 40))
    rows = make_rows(tmp_path / "rows.jsonl", rows=10)
    settings = ("batch_size=4", "learning_rate=1e-2", "device=cpu", "zero_stage=0", "held_out=0.2")
    common = [str(rows), *(part for setting in settings for part in ("--set", setting)), "--json"]
    first = [*common, "--model", "acme/tiny", "--adapter", "lora", "--output", str(tmp_path / "adapter")]
    result = json.loads(CliRunner().invoke(train, first, catch_exceptions=False).stdout)
    assert (result["state"], result["preflight"]["held_out"], result["preflight"]["shared_prefix"]) == (
        "done",
        2,
        "yes",
    )
    assert result["held_out"]["before"]["margin"] == pytest.approx(0, abs=1e-5)
    assert result["held_out"]["after"]["loss"] != result["held_out"]["before"]["loss"]
    card = (tmp_path / "adapter" / "README.md").read_text()
    assert "LoRA, rank 16" in card
    assert f"SHA-256 `{sha256(rows.read_bytes()).hexdigest()}`" in card

    again = [*common, "--model", str(tmp_path / "adapter"), "--merge", "--output", str(tmp_path / "whole")]
    result = json.loads(CliRunner().invoke(train, again, catch_exceptions=False).stdout)
    assert result["state"] == "done", result
    assert result["held_out"]["before"]["margin"] == pytest.approx(0, abs=1e-5), "its reference is the adapter's start"
    files = {path.name for path in (tmp_path / "whole").iterdir()}
    assert "model.safetensors" in files
    assert not [name for name in files if name.startswith("adapter")]


def test_a_file_without_a_readable_row_is_an_error(tmp_path: Path) -> None:
    """Exit status 1, with the reason."""
    (tmp_path / "rows.jsonl").write_bytes(b"\x00\x01 no JSON\n")
    policy = make_policy(tmp_path / "policy")
    command = [str(tmp_path / "rows.jsonl"), "--model", str(policy), "--output", str(tmp_path / "better")]
    done = CliRunner().invoke(train, command, catch_exceptions=False)
    assert done.exit_code == 1
    assert "none of 1 rows can be read; line 1 is not JSON" in done.stdout


def test_token_ids_are_those_of_trl(tmp_path: Path) -> None:
    """Conversations and plain texts come to the token ids that TRL's own preparation makes of them."""
    tokenizer: Any = AutoTokenizer.from_pretrained(make_policy(tmp_path / "tiny"))
    chat = [json.loads(line) for line in make_rows(tmp_path / "chat.jsonl", rows=5).read_text().splitlines()]
    text = [{"prompt": f"w{n} w1 ", "chosen": "w2 w3", "rejected": f"w4 w{n}"} for n in range(5)]
    for rows in (chat, text):
        file = tmp_path / "rows.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        args = SimpleNamespace(dataset_num_proc=None, max_length=None, truncation_mode="keep_start")
        stock = SimpleNamespace(_tokenizer=tokenizer)
        expected = DPOTrainer._prepare_dataset(stock, Dataset.from_list(rows), tokenizer, args, "train")
        got = encode([render(row, tokenizer) for row in read_rows(file)], tokenizer)
        assert got == [{name: row[name] for name in got[0]} for row in expected]


@pytest.mark.parametrize(("pad", "end", "token"), [(5, 7, 5), (0, 7, 0), (None, 7, 7), (None, None, 0)])
def test_every_tokenizer_has_something_to_pad_with(pad: int | None, end: int | None, token: int) -> None:
    """Its padding, else its end, else any token: what pads is masked."""
    tokenizer: Any = SimpleNamespace(pad_token_id=pad, eos_token_id=end)
    assert _padding(tokenizer) == token


def test_settings_are_read_as_they_are_meant() -> None:
    """Numbers, lists and nothing, written as a user writes them."""
    given = ("learning_rate=5e-7", "loss_type=[sigmoid, sft]", "max_length=none", "shared_prefix=false", "device=cpu")
    assert read_settings(given) == {
        "learning_rate": "5e-7",  # a number to pydantic
        "loss_type": ["sigmoid", "sft"],
        "max_length": None,
        "shared_prefix": False,
        "device": "cpu",
    }
    with pytest.raises(UsageError, match="KEY=VALUE, not 'beta'"):
        read_settings(("beta",))
