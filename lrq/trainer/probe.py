"""Whether a policy can be trained: one step on two rows, before anything is paid for its responses."""

import json
import logging
import math
import os
import socket
import sys
import tempfile
from pathlib import Path
from typing import Any

import orjson
import torch

from lrq.domain.errors import LrqError
from lrq.domain.printable import printable
from lrq.policy.folder import tokenizer_folder
from lrq.policy.shallow import shallow_config
from lrq.trainer.job import make_job
from lrq.trainer.job_folder import JobFolder, PreparedJob, prepare
from lrq.trainer.launch import OFFLINE

_PAIR = {"chosen": "It is seven.", "rejected": "It may be eight, or so they say."}
_QUESTIONS = ("How many?", "How many are there in all, by the last count?")


def main(model: Path, settings: str) -> int:
    """Print why one step cannot be taken, or nothing."""
    os.environ.update(OFFLINE, RANK="0", LOCAL_RANK="0", WORLD_SIZE="1", MASTER_ADDR="127.0.0.1")
    os.environ["MASTER_PORT"] = str(_free_port())
    logging.disable(logging.WARNING)
    out, sys.stdout = sys.stdout, sys.stderr  # the libraries print there too
    with tempfile.TemporaryDirectory(prefix="lrq-probe-") as folder:
        reason = probe(model, orjson.loads(settings), Path(folder))
    print(printable(reason), file=out)
    return 0


def probe(model: Path, settings: dict[str, Any], folder: Path) -> str:
    """Return why `model` cannot take a step with these `settings` of a training; empty: it can.

    Files are made in `folder`. Takes over the process group of torch in this process.
    """
    from lrq.trainer.worker import Place, reason_of  # noqa: PLC0415 - with torch's process group in place

    torch.distributed.init_process_group("gloo")
    try:
        files = {"model": model, "rows": _write_rows(model, folder / "rows.jsonl"), "output": folder / "output"}
        job = make_job({**probe_settings(settings, has_gpu=torch.cuda.is_available()), **files})
        where = prepare(folder / "job", job)
        loss = _take_step(where, where.load(), Place(rank=0, processes=1, gpu=False, bf16=False))
    except Exception as error:  # whatever an architecture raises is the answer
        return reason_of(error)
    finally:
        torch.distributed.destroy_process_group()
    return "" if math.isfinite(loss) else "its loss is no number"


# The step itself; the rest is as in the training to come.
_STEP: dict[str, Any] = {
    "device": "cpu",
    "processes": 1,
    "zero_stage": 0,
    "bf16": False,
    "batch_size": 2,
    "micro_batch": 2,
    "max_steps": 1,
    "max_length": None,
    "held_out": 0.0,
    "report_to": (),
    "reference": None,
    "also": None,
    "save_steps": 1 << 30,
}


def probe_settings(settings: dict[str, Any], *, has_gpu: bool) -> dict[str, Any]:
    """Return the settings of one step on the CPU that stands for a training with these.

    Weights in 4 bits need a GPU: where there is one the step is taken without them, else they are refused.
    """
    adapter = settings.get("adapter")
    if has_gpu and isinstance(adapter, dict) and adapter.get("quantize"):
        settings = {**settings, "adapter": {**adapter, "quantize": False}}
    return {**settings, **_STEP}


def _take_step(folder: JobFolder, job: PreparedJob, place: Any) -> float:
    from lrq.trainer.models import load_tokenizer  # noqa: PLC0415
    from lrq.trainer.progress import Progress  # noqa: PLC0415
    from lrq.trainer.worker import make_rows, make_trainer  # noqa: PLC0415

    tokenizer = load_tokenizer(job.model)
    progress = Progress(folder, speaks=False)
    preflight = make_rows(folder, job, place, tokenizer, progress)
    if not preflight.kept:
        raise LrqError(f"its tokenizer makes no rows: {preflight.reasons[0]}")
    config = shallow_config(job.model)  # of a large model the first layers
    trainer = make_trainer(folder, job, place, tokenizer, preflight, progress, fresh=True, config=config)
    trainer.train()
    [line] = [line for line in trainer.state.log_history if "loss" in line]
    return float(line["loss"]) + float(line["grad_norm"])


def _write_rows(model: Path, path: Path) -> Path:
    rates = {"p_w": 0.7, "p_l": 0.3}  # for the loss that reads them
    chat = has_template(tokenizer_folder(model))
    with path.open("w") as stream:
        for question in _QUESTIONS:
            row: dict[str, Any] = {"prompt": question, **_PAIR}
            if chat:
                row = {name: [{"role": _ROLES[name], "content": text}] for name, text in row.items()}
            stream.write(json.dumps({**row, **rates}) + "\n")
    return path


_ROLES = {"prompt": "user", "chosen": "assistant", "rejected": "assistant"}


def has_template(folder: Path) -> bool:
    config = folder / "tokenizer_config.json"
    return (folder / "chat_template.jinja").exists() or (
        config.exists() and bool(orjson.loads(config.read_bytes()).get("chat_template"))
    )


def _free_port() -> int:
    with socket.socket() as probe_socket:
        probe_socket.bind(("127.0.0.1", 0))
        port: int = probe_socket.getsockname()[1]
        return port
