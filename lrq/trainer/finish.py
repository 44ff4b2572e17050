"""The finished folder: a model that loads anywhere, with a card that says how it was made."""

import shutil
from typing import Any

import torch

from lrq.trainer.card import model_card
from lrq.trainer.job import NOTE, JobFolder, Result, TrainJob, identity, write_json


def publish(trainer: Any, folder: JobFolder, job: TrainJob, result: Result) -> None:
    """Write the model beside its final place, then rename it; to be called by all processes."""
    temporary = job.output.with_name(f".{job.output.name}.part")
    if trainer.accelerator.is_main_process:
        shutil.rmtree(temporary, ignore_errors=True)
        job.output.parent.mkdir(parents=True, exist_ok=True)
    torch.distributed.barrier()
    trainer.accelerator.unwrap_model(trainer.model).config.use_cache = True  # training turned it off
    trainer.save_model(str(temporary))  # under ZeRO-3 every process brings its shards
    torch.distributed.barrier()
    if trainer.accelerator.is_main_process:
        (temporary / "training_args.bin").unlink(missing_ok=True)  # a pickle, with this machine's paths
        (temporary / "README.md").write_text(model_card(job, result), encoding="utf-8")
        write_json(
            temporary / NOTE, {"job": identity(job), "result": result.model_dump(mode="json", exclude={"model"})}
        )
        temporary.rename(job.output)
        if not job.keep_checkpoints:
            shutil.rmtree(folder.checkpoints, ignore_errors=True)
