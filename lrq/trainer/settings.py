"""A job in the words of TRL and DeepSpeed."""

from collections.abc import Mapping
from typing import Any

from trl import DPOConfig

from lrq.trainer.job import TrainJob
from lrq.trainer.job_folder import JobFolder
from lrq.trainer.loss_names import trl_beta

NEVER = 1 << 30  # steps
CHECKPOINTS_KEPT = 2  # the one before stays until the newer one is complete


def dpo_config(
    job: TrainJob, folder: JobFolder, *, gpu: bool, bf16: bool, processes: int, fresh: bool = True
) -> DPOConfig:
    """Return the settings for TRL's DPOTrainer; `fresh` unless it goes on from a checkpoint."""
    return DPOConfig(
        output_dir=str(folder.checkpoints),
        loss_type=list(job.loss_type),
        loss_weights=list(job.loss_weights),
        beta=trl_beta(job.loss_type, job.loss_betas, job.beta),
        optim=job.optim,
        learning_rate=job.learning_rate,
        per_device_train_batch_size=job.micro_batch,
        per_device_eval_batch_size=job.micro_batch,
        eval_strategy="steps" if job.held_out else "no",
        eval_steps=NEVER,  # the callback asks for it after the last step
        eval_on_start=bool(job.held_out) and fresh,
        gradient_accumulation_steps=job.accumulation(processes),
        num_train_epochs=job.epochs,
        max_steps=job.max_steps or -1,
        warmup_steps=job.warmup,
        lr_scheduler_type=job.scheduler,
        weight_decay=job.weight_decay,
        max_grad_norm=job.max_grad_norm,
        seed=job.seed,
        max_length=None,  # rows were cut before, and TRL would drop the long ones
        precompute_ref_log_probs=True,
        gradient_checkpointing=job.gradient_checkpointing,
        bf16=bf16,
        use_cpu=not gpu,
        dataloader_pin_memory=gpu,
        ddp_backend="nccl" if gpu else "gloo",
        deepspeed=deepspeed_config(job, bf16=bf16, gpu=gpu) if job.zero_stage else None,
        save_strategy="steps",
        save_steps=job.save_steps,
        save_total_limit=CHECKPOINTS_KEPT,
        logging_steps=1,
        logging_nan_inf_filter=False,  # a loss that is no number ends the training instead
        disable_tqdm=True,
        report_to=list(job.report_to) or "none",
        run_name=job.output.name,
    )


def deepspeed_config(job: TrainJob, *, bf16: bool, gpu: bool) -> dict[str, Any]:
    """Return ZeRO-2 or ZeRO-3 with the job's `deepspeed` laid over; `auto` is filled in from the trainer's settings.

    The optimizer is torch's, by the name of the job: DeepSpeed's own and every offload compile an extension first.
    """
    zero: dict[str, Any] = {"stage": job.zero_stage, "overlap_comm": gpu}
    if job.zero_stage == 3:
        zero["stage3_gather_16bit_weights_on_model_save"] = True  # or there is no model to load afterwards
    defaults = {
        "zero_optimization": zero,
        "bf16": {"enabled": bf16},
        "train_batch_size": "auto",
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": "auto",
        "gradient_clipping": "auto",
        "zero_allow_untested_optimizer": True,
        "steps_per_print": 1 << 30,
    }
    return _overlay(defaults, job.deepspeed)


def _overlay(defaults: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(defaults)
    for name, value in settings.items():
        are_mappings = isinstance(value, Mapping) and isinstance(merged.get(name), Mapping)
        merged[name] = _overlay(merged[name], value) if are_mappings else value
    return merged
