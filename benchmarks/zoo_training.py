"""Train one architecture of the zoo with stock TRL and with ours, on the same token ids, and tell the difference."""

import os
import random
import tempfile
from pathlib import Path
from typing import Any

from datasets import Dataset
from datasets.utils.logging import disable_progress_bar
from transformers import PrinterCallback
from transformers.utils import logging as transformers_logging
from trl import DPOConfig, DPOTrainer
from trl.trainer.utils import create_model_from_path
from zoo import VOCABULARY, build

from lrq.trainer.job import TrainJob
from lrq.trainer.job_folder import JobFolder
from lrq.trainer.models import load_model, load_tokenizer
from lrq.trainer.preference import PreferenceCollator, PreferenceTrainer
from lrq.trainer.progress import Progress
from lrq.trainer.reference import ReferenceStore
from lrq.trainer.tiny import make_tokenizer

STEPS, PAIRS = 4, 2
PROMPT, CHOSEN, REJECTED = 40, 9, 5  # tokens: the windows of the zoo are shorter, and so is its longrope switch
LEARNING_RATE = 1e-3
EXACT = 1e-4


def training(name: str) -> dict[str, str]:
    """Return the largest difference of any step's loss or margin, and the path of our forward pass, as text."""
    with tempfile.TemporaryDirectory() as folder:
        policy = Path(folder) / "policy"
        build(name).save_pretrained(policy)
        make_tokenizer().save_pretrained(policy)
        try:
            theirs, _ = figures(policy, ours=False)
        except Exception as error:  # what stock TRL cannot train is no one's reference
            return {"training Δ": "–", "path": f"stock TRL: {first_line(error)}"}
        try:
            own, path = figures(policy, ours=True)
        except Exception as error:
            return {"training Δ": "**fails**", "path": first_line(error)}
    apart = max(abs(a - b) for left, right in zip(theirs, own, strict=True) for a, b in zip(left, right, strict=True))
    return {"training Δ": f"{apart:.0e}{'' if apart <= EXACT else ' **not exact**'}", "path": path}


def first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def rows() -> list[dict[str, Any]]:
    draw = random.Random(0)
    sides = (("prompt", PROMPT), ("chosen", CHOSEN), ("rejected", REJECTED))
    made = [
        {f"{side}_ids": [draw.randrange(6, VOCABULARY) for _ in range(length)] for side, length in sides}
        for _ in range(STEPS * PAIRS)
    ]
    return [{**row, "chosen_keys": [f"c{n}"], "rejected_keys": [f"r{n}"]} for n, row in enumerate(made)]


class StockTrainer(DPOTrainer):  # type: ignore[misc]
    """TRL's, over rows that are token ids already."""

    def _prepare_dataset(self, dataset: Dataset, *_: Any) -> Dataset:
        return dataset


def figures(policy: Path, *, ours: bool) -> tuple[list[list[float]], str]:
    """Return loss and margin of each step, and how prompts were encoded."""
    disable_progress_bar()
    transformers_logging.disable_progress_bar()
    os.environ["TQDM_DISABLE"] = "1"
    job = TrainJob(model=policy, rows=policy, output=policy / "out", device="cpu", zero_stage=0)
    known = {
        "args": settings(policy),
        "train_dataset": Dataset.from_list(rows()),
        "processing_class": load_tokenizer(policy),
    }
    if not ours:
        trainer: Any = StockTrainer(model=create_model_from_path(str(policy)), **known)
    else:
        folder = JobFolder(policy)
        trainer = PreferenceTrainer(
            job=job,
            folder=folder,
            store=ReferenceStore(folder.reference),
            progress=Progress(folder, speaks=False),
            shared_prefix=True,
            model=load_model(job, bf16=False, gpu=False),
            data_collator=PreferenceCollator(pad_token_id=0),
            **known,
        )
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    steps = [[line["loss"], line["rewards/margins"]] for line in trainer.state.log_history if "loss" in line]
    return steps, (trainer.prefix.reason or "shared") if ours else ""


def settings(policy: Path) -> DPOConfig:
    return DPOConfig(
        output_dir=str(policy / "trained"),
        loss_type=["sigmoid", "sft"],
        loss_weights=[1.0, 0.1],
        beta=0.15,
        learning_rate=LEARNING_RATE,
        per_device_train_batch_size=PAIRS,
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
