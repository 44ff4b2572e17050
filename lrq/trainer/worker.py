"""One process of a training: rows to tokens, reference, steps, and the finished folder."""

import gc
import logging
import os
import sys
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from lrq.domain.errors import LrqError, Stopping, UsageError
from lrq.domain.logs import format_logs
from lrq.policy.folder import fingerprint
from lrq.trainer.checkpoints import checkpoint_step, last_complete, remove_torn, rewind_metrics
from lrq.trainer.finish import publish
from lrq.trainer.held_out import measurements, split
from lrq.trainer.job_folder import JobFolder, Preflight, PreparedJob, Result, write_json
from lrq.trainer.models import adapter_config, load_model, load_tokenizer
from lrq.trainer.prefix_check import PrefixCheck
from lrq.trainer.progress import Progress, StepCallback, stop_on_signals
from lrq.trainer.reference import ReferenceStore
from lrq.trainer.rows import read_rows
from lrq.trainer.tally import check_dropped
from lrq.trainer.tokens import tokenize
from lrq.trainer.turns import end_tokens_of

log = logging.getLogger("lrq.trainer")

# The first process tokenizes while the others wait; a process that died is noticed by torchrun, not by this.
WAIT = timedelta(days=2)


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where this process runs."""

    rank: int
    processes: int
    gpu: bool
    bf16: bool

    @property
    def first(self) -> bool:
        """Tell whether it is the process that writes files."""
        return self.rank == 0


def main(folder: JobFolder) -> int:
    """Run this process's part of the job in `folder`, and leave result or failure there; return the exit status."""
    stop_on_signals()
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    format_logs(logging.getLogger(), as_json=os.environ.get("LRQ_LOG") == "json")
    try:
        job = folder.load()
        place = _join(job)
        result = run(folder, job, place)
    except Exception as error:
        log.exception("The training failed")
        _leave_failure(folder, reason_of(error))
        return 1
    if place.first:
        write_json(folder.result, result)
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
    return 0


def _join(job: PreparedJob) -> Place:
    """Meet the other processes; must come before any configuration or model, or ZeRO-3 believes itself alone."""
    gpu = job.device != "cpu" and torch.cuda.is_available()
    if job.device == "gpu" and not gpu:
        raise UsageError(
            "device=gpu was asked for and torch sees no GPU: set device=cpu, or install a torch for this GPU"
        )
    backend = "nccl" if gpu else "gloo"
    if gpu:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    if job.zero_stage:
        _join_deepspeed(backend, gpu=gpu)
    else:
        torch.distributed.init_process_group(backend, timeout=WAIT)
    return Place(
        rank=torch.distributed.get_rank(),
        processes=torch.distributed.get_world_size(),
        gpu=gpu,
        bf16=job.bf16 if job.bf16 is not None else gpu and torch.cuda.is_bf16_supported(),
    )


def _join_deepspeed(backend: str, *, gpu: bool) -> None:
    if not gpu:
        os.environ["DS_ACCELERATOR"] = "cpu"
    import deepspeed  # noqa: PLC0415 - chooses its accelerator when imported

    if not gpu:  # its helper for gloo would want a compiler
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.init_distributed(dist_backend=backend, auto_mpi_discovery=False, timeout=WAIT)


def run(folder: JobFolder, job: PreparedJob, place: Place) -> Result:
    """Run the training, or what is left of it."""
    progress = Progress(folder, speaks=place.first)
    tokenizer = load_tokenizer(job.model)
    preflight = make_rows(folder, job, place, tokenizer, progress)
    if not preflight.kept:
        reason = "the file holds no rows"
        if preflight.rows:
            reason = f"none of {preflight.rows} rows can be trained on; {preflight.reasons[0]}"
        return Result(state="nothing", reason=reason, preflight=preflight)
    checkpoint = _last_checkpoint(folder, place, progress)
    try:
        if job.reference_model and job.reads_reference:
            fill_reference(folder, job, place, tokenizer, preflight, progress)
        trainer = make_trainer(folder, job, place, tokenizer, preflight, progress, fresh=checkpoint is None)
    except Stopping:
        return Result(state="stopped", reason="stopped before the first step", preflight=preflight)
    preflight = _with_prefix(folder, preflight, trainer.prefix, place)
    return _train(trainer, folder, job, preflight, progress, checkpoint)


def make_rows(
    folder: JobFolder, job: PreparedJob, place: Place, tokenizer: PreTrainedTokenizerBase, progress: Progress
) -> Preflight:
    """Make the rows in the first process, and return in all what came of them.

    Raises UsageError where more are too long than `job.max_dropped` allows.
    """
    if place.first and not folder.preflight.exists():
        progress.stage("rows")
        model = fingerprint(job.model)
        reference = fingerprint(job.reference_model) if job.reference_model else model
        reference = f"{reference}:{'bf16' if place.bf16 else 'fp32'}"
        ends = end_tokens_of(job.model, tokenizer)
        tally = tokenize(
            read_rows(job.rows, job.also), tokenizer, job, model=reference, target=folder.rows, ends=ends,
            overtime=folder.overtime,
        )  # fmt: skip
        # Why prefixes are not shared before anything is tried; empty: the model is asked.
        reason = "" if job.shared_prefix or job.is_one_sided else "not asked for"
        write_json(folder.preflight, tally.preflight(model=model, shared_prefix=reason))
    torch.distributed.barrier()
    preflight = Preflight.model_validate_json(folder.preflight.read_bytes())
    check_dropped(preflight, job)
    return preflight


def _with_prefix(folder: JobFolder, preflight: Preflight, check: PrefixCheck | None, place: Place) -> Preflight:
    """Keep what came of the comparison, for those who look and for a restart."""
    if check is None:
        return preflight
    if check.reason:
        log.warning("Prompts are encoded twice, not shared: %s", check.reason)
    outcome = {"shared_prefix": check.reason or "yes", "prefix_apart": check.log_probs}
    preflight = preflight.model_copy(update=outcome)
    if place.first:
        write_json(folder.preflight, preflight)
    return preflight


def _last_checkpoint(folder: JobFolder, place: Place, progress: Progress) -> Path | None:
    """Return the checkpoint to go on from; the metrics go back to the same step."""
    if place.first:
        remove_torn(folder.checkpoints)
        checkpoint = last_complete(folder.checkpoints)
        rewind_metrics(folder.metrics, checkpoint_step(checkpoint) if checkpoint else 0)
        progress.recall()
    torch.distributed.barrier()
    return last_complete(folder.checkpoints)


def make_trainer(
    folder: JobFolder,
    job: PreparedJob,
    place: Place,
    tokenizer: PreTrainedTokenizerBase,
    preflight: Preflight,
    progress: Progress,
    *,
    fresh: bool,
    config: Any = None,
) -> Any:
    """Load the model and make TRL's trainer of it, reference log-probabilities included; may raise Stopping.

    `config` takes the place of the model's own.
    """
    # imports DeepSpeed, which must have chosen its accelerator
    from lrq.trainer.preference import PreferenceCollator, PreferenceTrainer  # noqa: PLC0415
    from lrq.trainer.settings import dpo_config  # noqa: PLC0415

    progress.stage("model")
    os.environ.setdefault("TENSORBOARD_LOGGING_DIR", str(folder.path / "tensorboard"))
    args = dpo_config(job, folder, gpu=place.gpu, bf16=place.bf16, processes=place.processes, fresh=fresh)
    # After the configuration: ZeRO-3 shards the model as it loads.
    model = load_model(job, bf16=place.bf16, gpu=place.gpu, config=config)
    rows, held_out = split(Dataset.from_file(str(folder.rows)), job.held_out)
    return PreferenceTrainer(
        job=job,
        folder=folder,
        store=_store(folder, job),
        progress=progress,
        # A restart asks again only where it was not refused before.
        shared_prefix=preflight.shared_prefix in {"", "yes"},
        model=model,
        args=args,
        train_dataset=rows,
        eval_dataset=held_out,
        processing_class=tokenizer,
        data_collator=PreferenceCollator(pad_token_id=_padding(tokenizer)),
        peft_config=adapter_config(job, model),
    )


def _store(folder: JobFolder, job: PreparedJob) -> ReferenceStore:
    return ReferenceStore(job.reference or folder.reference)


def fill_reference(
    folder: JobFolder,
    job: PreparedJob,
    place: Place,
    tokenizer: PreTrainedTokenizerBase,
    preflight: Preflight,
    progress: Progress,
) -> None:
    """Compute the log-probabilities under the reference model that are not kept yet, and let go of it.

    The training itself then has them all in its store. May raise Stopping.
    """
    is_complete = [True]
    if place.first:
        rows = Dataset.from_file(str(folder.rows))
        columns = (rows["chosen_keys"], rows["rejected_keys"])
        keys = {key for column in columns for turns in column for key in turns}
        is_complete = [keys <= _store(folder, job).load().keys()]
    torch.distributed.broadcast_object_list(is_complete)
    if is_complete[0]:
        return
    of_reference = job.model_copy(update={"model": job.reference_model, "report_to": ()})
    trainer = make_trainer(folder, of_reference, place, tokenizer, preflight, progress, fresh=True)
    del trainer
    gc.collect()  # of cycles between the trainer and its callbacks
    if place.gpu:
        torch.cuda.empty_cache()


def _padding(tokenizer: PreTrainedTokenizerBase) -> int:
    """Any token will do: what pads is masked."""
    candidates = (tokenizer.pad_token_id, tokenizer.eos_token_id, 0)
    return next(int(token) for token in candidates if token is not None)


def _train(
    trainer: Any, folder: JobFolder, job: PreparedJob, preflight: Preflight, progress: Progress, checkpoint: Path | None
) -> Result:
    steps = StepCallback(folder, progress)
    trainer.add_callback(steps)
    progress.stage("train")
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    steps_taken = trainer.state.global_step
    result = Result(
        state="stopped",
        reason=f"stopped after step {steps_taken}, with a checkpoint",
        steps=steps_taken,
        seconds=round(progress.seconds, 1),
        tokens=progress.tokens,
        preflight=preflight.model_copy(update={"held_out": len(trainer.eval_dataset or ())}),
        first=progress.first,
        metrics=progress.last,
        held_out=measurements(folder.held_out),
    )
    if steps.stopped:
        return result
    progress.stage("save")
    result = result.model_copy(update={"state": "done", "reason": "", "model": job.output})
    publish(trainer, folder, job, result)
    return result


def reason_of(error: Exception) -> str:
    if isinstance(error, LrqError):
        return str(error)
    if isinstance(error, torch.OutOfMemoryError):
        return "the GPU's memory ran out: set zero_stage=3, a smaller max_length, or more processes"
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0] if text else 'no message'}"


def _leave_failure(folder: JobFolder, reason: str) -> None:
    """Keep the reason of the process that failed first: what the others say afterwards follows from it."""
    try:
        with folder.failure.open("x") as stream:
            stream.write(reason)
    except FileExistsError:
        pass
