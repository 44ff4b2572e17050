"""A model that was trained under transformers 5 is the same model to what still reads with transformers 4."""

import json
import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

pytest.importorskip("torch")

from lrq.trainer.job import TrainJob
from lrq.trainer.job_folder import prepare
from lrq.trainer.launch import environment, run
from lrq.trainer.tiny import make_rows

pytestmark = [pytest.mark.torch, pytest.mark.timeout(600)]

OLDER = ("transformers==4.57.*", "tokenizers==0.22.*", "huggingface_hub==0.36.*")
HUB_NEEDS = ("requests", "urllib3", "charset_normalizer", "certifi", "idna")  # of that huggingface_hub alone
SCALING = {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}  # fmt: skip

# As published: by transformers 4, in bfloat16, with tied weights and a fast tokenizer.
MAKE = """
import json, sys
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

folder, scaling = sys.argv[1], json.loads(sys.argv[2])
words = ["<pad>", "<unk>", "<bos>", "<eos>", "<user>", "<assistant>", *(f"w{n}" for n in range(58))]
raw = Tokenizer(models.WordLevel({word: n for n, word in enumerate(words)}, unk_token="<unk>"))
raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
named = {"pad_token": "<pad>", "unk_token": "<unk>", "bos_token": "<bos>", "eos_token": "<eos>"}
tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, **named)
tokenizer.chat_template = (
    "{{ bos_token }}{% for m in messages %} <{{ m.role }}> {{ m.content }} {{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %} <assistant>{% endif %}"
)
torch.manual_seed(0)
model = LlamaForCausalLM(LlamaConfig(
    vocab_size=64, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=512, rope_theta=500_000.0, rope_scaling=scaling,
    initializer_range=0.1, tie_word_embeddings=True, pad_token_id=0, bos_token_id=2, eos_token_id=3,
))
model.generation_config.temperature, model.generation_config.do_sample = 0.6, True
model.to(torch.bfloat16).save_pretrained(folder)
tokenizer.save_pretrained(folder)
"""

READ = """
import json, sys
import torch, transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], torch_dtype=torch.float32)
ids = tokenizer(" ".join(f"w{n % 58}" for n in range(200)), return_tensors="pt")["input_ids"]
logits = model(input_ids=ids).logits[0, ::20].flatten().tolist()
print("READ", json.dumps([transformers.__version__, ids[0].tolist(), logits]))
"""


@pytest.fixture(scope="module")
def older(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make an environment with transformers 4 and, for all else, the packages of this one."""
    folder = tmp_path_factory.mktemp("older")
    venv.create(folder, with_pip=True)
    install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", *OLDER, *HUB_NEEDS]
    done = subprocess.run([folder / "bin" / "python", *install], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"the package index does not give transformers 4.57: {done.stderr.strip().splitlines()[-1]}")
    [packages] = (folder / "lib").glob("python*/site-packages")
    shared = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
    (packages / "shared.pth").write_text("\n".join(shared))  # behind its own
    return folder / "bin" / "python"


def python(interpreter: Path | str, script: str, *arguments: object) -> str:
    command = [interpreter, "-c", script, *map(str, arguments)]
    done = subprocess.run(command, env=environment(os.environ), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def read(interpreter: Path | str, folder: Path) -> list:
    """Version of transformers, token ids of a long text, some of its logits."""
    return json.loads(python(interpreter, READ, folder).split("READ")[1])


def test_both_generations_compute_the_same(tmp_path: Path, older: Path) -> None:
    """RoPE with base 500,000 and scaling: the logits agree to 1e-4, and all files but three are the base's."""
    base, rows = tmp_path / "base", make_rows(tmp_path / "rows.jsonl", rows=8, prompt=100)
    python(older, MAKE, base, json.dumps(SCALING))
    settings = {"batch_size": 4, "learning_rate": 1e-2, "warmup": 0, "device": "cpu", "zero_stage": 0}
    job = TrainJob(model=base, rows=rows, output=tmp_path / "better", **settings)
    result = run(prepare(tmp_path / "job", job))
    assert result.state == "done", result

    before, after = ({path.name: path.read_bytes() for path in folder.iterdir()} for folder in (base, job.output))
    assert {name for name in before if before[name] != after[name]} == {"config.json", "model.safetensors"}
    assert after.keys() - before.keys() == {"README.md", "training.json"}
    assert len(after["model.safetensors"]) == pytest.approx(len(before["model.safetensors"]), abs=200)

    (version, ids, logits), (new_version, new_ids, new_logits) = (read(p, job.output) for p in (older, sys.executable))
    assert (version[:4], new_version[:2]) == ("4.57", "5.")
    assert ids == new_ids
    assert max(abs(old - new) for old, new in zip(logits, new_logits, strict=True)) < 1e-4
    moved = read(older, base)[2]
    assert max(abs(old - new) for old, new in zip(logits, moved, strict=True)) > 1e-2, "the training moved the weights"
