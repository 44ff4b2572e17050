"""The finished folder: the base's own files with the trained weights, and a card that says how they were made."""

import os
import shutil
from collections.abc import Collection
from pathlib import Path
from typing import Any

import orjson
import torch

from lrq.policy.folder import ADAPTER, base_of
from lrq.trainer.card import model_card
from lrq.trainer.config_keys import for_all_readers, with_rope_theta
from lrq.trainer.job_folder import NOTE, JobFolder, PreparedJob, Result, identity, write_json
from lrq.trainer.models import architecture
from lrq.trainer.weights import write_as_base

# What the base has of these is taken byte for byte: tokenizer, templates, generation settings, processors.
_TEXTS = (".json", ".jinja", ".model", ".txt", ".tiktoken")
_WRITTEN_ANEW = {"config.json", "model.safetensors.index.json", NOTE}


def publish(trainer: Any, folder: JobFolder, job: PreparedJob, result: Result) -> None:
    """Write the model beside its final place, `job.output`, then rename it; to be called by all processes.

    An adapter that is to be merged is left in the job's folder: that takes the base anew, in another process.
    """
    model = trainer.accelerator.unwrap_model(trainer.model)
    is_adapter = hasattr(model, "peft_config")
    temporary = folder.adapter if is_adapter and job.merge else beside(job.output)
    if trainer.accelerator.is_main_process:
        shutil.rmtree(temporary, ignore_errors=True)
        job.output.parent.mkdir(parents=True, exist_ok=True)
    torch.distributed.barrier()
    trainer.save_model(str(temporary))  # under ZeRO-3 every process brings its shards
    torch.distributed.barrier()
    if not trainer.accelerator.is_main_process:
        return
    if is_adapter:
        restore_adapter(job.model, temporary)
    else:
        restore_base(job.model, temporary, tied=tied_weights(model), rope_theta=job.rope_theta)
    if temporary != folder.adapter:
        seal(temporary, folder, job, result)


def merge(folder: JobFolder, job: PreparedJob, result: Result) -> None:
    """Add the trained adapter to its base, and publish the whole; where no other process holds the model."""
    from peft import PeftModel  # noqa: PLC0415 - for adapters alone

    base = base_of(job.model) or job.model
    temporary = beside(job.output)
    shutil.rmtree(temporary, ignore_errors=True)
    model = architecture(base).from_pretrained(base, dtype=torch.float32, local_files_only=True, use_safetensors=True)
    merged = PeftModel.from_pretrained(model, folder.adapter).merge_and_unload()
    merged.save_pretrained(temporary)
    restore_base(base, temporary, tied=tied_weights(merged), rope_theta=job.rope_theta)
    seal(temporary, folder, job, result)


def beside(output: Path) -> Path:
    return output.with_name(f".{output.name}.part")


def tied_weights(model: Any) -> Collection[str]:
    """Return the names of weights that are another's, which a folder holds once."""
    return set(getattr(model, "all_tied_weights_keys", None) or ())


def restore_base(base: Path, saved: Path, tied: Collection[str] = (), rope_theta: float | None = None) -> None:
    """Make the model in `saved` the `base`'s folder but for the values of its weights.

    `tied` names weights that are another's; `rope_theta`, where it is set, replaces the base of rotary positions.
    """
    texts = {path.name for path in base.iterdir() if path.suffix in _TEXTS} - _WRITTEN_ANEW
    for path in saved.iterdir():  # what the library wrote in its own words, and a pickle of this machine's settings
        if path.is_file() and path.suffix in (*_TEXTS, ".bin") and path.name not in _WRITTEN_ANEW:
            path.unlink()
    for name in texts:
        shutil.copyfile(base / name, saved / name)
    configs = [orjson.loads((folder / "config.json").read_bytes()) for folder in (base, saved)]
    configs[0] = with_rope_theta(configs[0], rope_theta)
    (saved / "config.json").write_bytes(orjson.dumps(for_all_readers(*configs), option=orjson.OPT_INDENT_2) + b"\n")
    write_as_base(base, saved, tied)


def restore_adapter(model: Path, saved: Path) -> None:
    """Make the adapter in `saved` a folder that loads by itself: tokenizer of its base `model`, base by its path."""
    base = base_of(model) or model
    shutil.rmtree(saved / "ref", ignore_errors=True)  # the adapter at the start, TRL's reference
    for path in saved.iterdir():
        if path.is_file() and not path.name.startswith("adapter_"):
            path.unlink()
    for path in base.iterdir():
        if path.suffix in _TEXTS and path.name not in {*_WRITTEN_ANEW, "generation_config.json"}:
            shutil.copyfile(path, saved / path.name)
    config = orjson.loads((saved / ADAPTER).read_bytes())
    config["base_model_name_or_path"] = str(base)
    (saved / ADAPTER).write_bytes(orjson.dumps(config, option=orjson.OPT_INDENT_2) + b"\n")


def seal(temporary: Path, folder: JobFolder, job: PreparedJob, result: Result) -> None:
    """Add card and note, open the files to whom the umask allows, and rename `temporary` to `job.output`."""
    (temporary / "README.md").write_text(model_card(job, result), encoding="utf-8")
    write_json(temporary / NOTE, {"job": identity(job), "result": result.model_dump(mode="json", exclude={"model"})})
    open_by_umask(temporary)
    temporary.rename(job.output)
    if not job.keep_checkpoints:
        shutil.rmtree(folder.checkpoints, ignore_errors=True)


def open_by_umask(folder: Path) -> None:
    """Give folder and files the modes of newly made ones: some writers leave files that only their owner can read."""
    os.umask(mask := os.umask(0o022))
    for path in (folder, *folder.rglob("*")):
        path.chmod((0o777 if path.is_dir() else 0o666) & ~mask)
