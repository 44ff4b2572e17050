"""What a shared prefix saves: TRL's DPO as it is, beside ours, in one run.

    python benchmarks/training.py                  # prompts of 4,096 tokens; about two minutes on one core
    python benchmarks/training.py --prompt 8192

Both sides train the same small random Llama (4 layers, hidden size 256, 64 words) in fp32 on one thread, on pairs with
one long prompt, reference log-probabilities computed beforehand. Counted are the CPU-seconds of reference and steps,
and the peak memory of each process; what the shared prefix is compared with once a training stands by itself. The
losses must agree.

Responses of one length (`--rejected 128`) leave what the prefix alone saves. Of different lengths, stock TRL pads the
shorter one and attends through a mask, which costs it the kernel that skips what is masked; ours needs no padding.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

from datasets import Dataset, load_dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils.logging import disable_progress_bar
from trl import DPOConfig, DPOTrainer

from lrq.trainer.job import Adapter, TrainJob
from lrq.trainer.job_folder import JobFolder
from lrq.trainer.models import adapter_config
from lrq.trainer.preference import PreferenceTrainer
from lrq.trainer.prefix_check import PrefixCheck
from lrq.trainer.progress import Progress
from lrq.trainer.reference import ReferenceStore
from lrq.trainer.rows import read_rows
from lrq.trainer.tiny import make_policy, make_rows
from lrq.trainer.tokens import tokenize

os.environ["DS_ACCELERATOR"] = "cpu"
disable_progress_bar()
LEARNING_RATE = 1e-4
AGREE = 1e-4  # losses, in fp32


def main() -> None:
    parser = argparse.ArgumentParser(description="A shared prefix against stock TRL.")
    parser.add_argument("--prompt", type=int, default=4096, help="tokens of each prompt")
    parser.add_argument("--rejected", type=int, default=64, help="tokens of each rejected response; the chosen has 128")
    parser.add_argument("--pairs", type=int, default=2, help="pairs, one step each")
    parser.add_argument("--hidden", type=int, default=256, help="hidden size; 1,024: weights outweigh the rest")
    parser.add_argument("--side", choices=["stock", "shared", "lora"], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.side:
        print(json.dumps(measure(given.folder, given.side)))
        return
    with tempfile.TemporaryDirectory() as folder:
        make_files(Path(folder), given)
        report(given, *(in_own_process(side, folder) for side in ("stock", "shared", "lora")))


def make_files(folder: Path, given: argparse.Namespace) -> None:
    make_policy(folder / "policy", hidden=given.hidden, layers=4, positions=given.prompt + 512)
    make_rows(folder / "rows.jsonl", rows=given.pairs, prompt=given.prompt, chosen=128, rejected=given.rejected)


def in_own_process(side: str, folder: str) -> dict[str, Any]:
    """Peaks of memory do not mix."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    command = [sys.executable, __file__, "--side", side, "--folder", folder]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def measure(folder: Path, side: str) -> dict[str, Any]:
    """CPU-seconds from the reference's first row to the last step, peak memory in MB, loss of each step."""
    checks: list[float] = []
    prepare = stock if side == "stock" else partial(ours, checks=checks, lora=side == "lora")
    arguments = prepare(folder)
    before = memory()
    began = time.process_time()
    trainer = arguments.pop("kind", DPOTrainer)(**arguments)
    trainer.train()
    seconds = time.process_time() - began
    losses = [line["loss"] for line in trainer.state.log_history if "loss" in line]
    check = sum(checks)
    return {"seconds": seconds - check, "check": check, "peak": memory(), "before": before, "losses": losses}


def memory() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # kB to MB


def settings(folder: Path) -> Any:
    return DPOConfig(
        output_dir=str(folder / "out"),
        loss_type=["sigmoid", "sft"],
        loss_weights=[1.0, 0.1],
        beta=0.15,
        learning_rate=LEARNING_RATE,
        per_device_train_batch_size=1,
        num_train_epochs=1,
        max_length=None,
        precompute_ref_log_probs=True,
        gradient_checkpointing=True,
        bf16=False,
        use_cpu=True,
        save_strategy="no",
        logging_steps=1,
        disable_tqdm=True,
        report_to="none",
    )


def stock(folder: Path) -> dict[str, Any]:
    rows = load_dataset("json", data_files=str(folder / "rows.jsonl"), cache_dir=str(folder / "cache"))["train"]
    return {"model": model(folder), "args": settings(folder), "train_dataset": rows, **tokenizer(folder)}


def timed(checks: list[float]) -> type[PreferenceTrainer]:
    """Return our trainer, which tells how many CPU-seconds its comparison with the plain pass took."""

    class Timed(PreferenceTrainer):
        def _try_prefix(self, dataset: Dataset) -> PrefixCheck:
            began = time.process_time()
            check = super()._try_prefix(dataset)
            checks.append(time.process_time() - began)
            return check

    return Timed


def ours(folder: Path, checks: list[float], *, lora: bool) -> dict[str, Any]:
    job = JobFolder(folder)
    wanted = TrainJob(model=folder / "policy", rows=folder / "rows.jsonl", output=folder / "trained")
    chat = tokenizer(folder)
    tokenize(read_rows(wanted.rows), chat["processing_class"], wanted, model="this", target=job.rows)
    return {
        "kind": timed(checks),
        "job": wanted,
        "folder": job,
        "store": ReferenceStore(job.reference),
        "progress": Progress(job, speaks=False),
        "shared_prefix": True,
        "model": model(folder),
        "args": settings(folder),
        "train_dataset": Dataset.from_file(str(job.rows)),
        "peft_config": adapter_config(wanted.model_copy(update={"adapter": Adapter()}), None) if lora else None,
        **chat,
    }


def model(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder / "policy")


def tokenizer(folder: Path) -> dict[str, Any]:
    return {"processing_class": AutoTokenizer.from_pretrained(folder / "policy")}


def report(given: argparse.Namespace, stock: dict[str, Any], shared: dict[str, Any], lora: dict[str, Any]) -> None:
    apart = max(abs(a - b) for a, b in zip(stock["losses"], shared["losses"], strict=True))
    print(f"Prompts of {given.prompt} tokens, responses of 128 and {given.rejected}; {given.pairs} steps of one pair\n")
    print(f"{'':24}{'stock TRL':>12}{'shared':>12}{'ratio':>8}")
    for name, unit, old, new in (
        ("CPU-seconds", "s", stock["seconds"], shared["seconds"]),
        ("peak memory", "MB", stock["peak"], shared["peak"]),
        ("of it for training", "MB", stock["peak"] - stock["before"], shared["peak"] - shared["before"]),
    ):
        print(f"{name + ', ' + unit:24}{old:12.1f}{new:12.1f}{old / new:8.2f}")
    above = lora["peak"] - lora["before"]
    print(f"{'the same with LoRA':24}{'':12}{lora['seconds']:10.1f} s, {above:.1f} MB for training")
    print(f"{'check, once a training, s':24}{'':12}{shared['check']:12.1f}")
    print(f"\nlargest difference of a loss: {apart:.1e}")
    if apart > AGREE:
        sys.exit("the losses do not agree")


if __name__ == "__main__":
    main()
