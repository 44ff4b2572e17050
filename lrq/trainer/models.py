"""The model that is trained: loaded as TRL loads it, with an adapter where one is asked for or is there."""

from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from lrq.domain.errors import UsageError
from lrq.policy.folder import base_of, tokenizer_folder
from lrq.trainer.job import Adapter, TrainJob

_OFFLINE = {"local_files_only": True, "trust_remote_code": False}


def load_model(job: TrainJob, *, bf16: bool, gpu: bool, config: Any = None) -> Any:
    """Load the policy on the CPU, in training form: raises UsageError where it cannot be trained.

    `config` takes the place of the folder's.

    What text never reaches, a vision tower, is frozen: it gets no gradient.
    """
    base = base_of(job.model) or job.model
    check_trainable(base)
    quantized = job.adapter is not None and job.adapter.quantize
    model = architecture(base).from_pretrained(
        base,
        dtype=torch.bfloat16 if bf16 and (job.zero_stage or job.adapter) else torch.float32,
        use_safetensors=True,
        **({"config": config} if config is not None else {}),
        **({"quantization_config": _four_bits(gpu=gpu)} if quantized else {}),
        **_OFFLINE,
    )
    freeze_what_text_never_reaches(model)
    return _with_own_adapter(model, job.model) if base != job.model else model


def load_tokenizer(folder: Path) -> Any:
    """Load the tokenizer of `folder`, of an adapter that has none its base's; raises UsageError."""
    source = tokenizer_folder(folder)
    try:
        return AutoTokenizer.from_pretrained(source, **_OFFLINE)
    except (OSError, ValueError, KeyError) as error:
        words = str(error).strip().splitlines() or [type(error).__name__]
        raise UsageError(f"{source} holds no tokenizer that can be loaded: {words[0]}") from error


def architecture(folder: Path) -> Any:
    """Return the class that the configuration in `folder` names, as TRL does; else transformers' choice for text."""
    config = AutoConfig.from_pretrained(folder, **_OFFLINE)
    class_name = (config.architectures or [""])[0]
    return getattr(transformers, class_name, None) or AutoModelForCausalLM


def check_trainable(folder: Path) -> None:
    """Raise UsageError for weights in a number format that gradients cannot move."""
    config = AutoConfig.from_pretrained(folder, **_OFFLINE)
    quantization = getattr(config, "quantization_config", None)
    if quantization:
        kind = dict(quantization).get("quant_method", "an unnamed method")
        raise UsageError(
            f"{folder} holds weights quantised by {kind}, which cannot be trained: name the model as it was"
        )


def _four_bits(*, gpu: bool) -> Any:
    if not gpu:
        raise UsageError("adapter.quantize needs a GPU: leave it out, or train where there is one")
    return transformers.BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )


def freeze_what_text_never_reaches(model: Any) -> None:
    """Take vision and audio parts out of the training: they get no gradient, which processes side by side wait for."""
    if model.config.get_text_config() is model.config:
        return
    parts = (model.get_decoder(), model.get_input_embeddings(), model.get_output_embeddings())
    reached = {id(parameter) for part in parts if part is not None for parameter in part.parameters()}
    for parameter in model.parameters():
        parameter.requires_grad_(id(parameter) in reached)


def adapter_config(job: TrainJob, model: Any) -> Any:
    """Return peft's configuration of a new adapter for `model`.

    None where all weights, or the model's own adapter, are trained.
    """
    if job.adapter is None or hasattr(model, "peft_config"):
        return None
    from peft import LoraConfig  # noqa: PLC0415 - for adapters alone

    return LoraConfig(
        r=job.adapter.r,
        lora_alpha=job.adapter.alpha,
        lora_dropout=job.adapter.dropout,
        target_modules=_targets(job.adapter, model),
        task_type="CAUSAL_LM",
    )


def _targets(adapter: Adapter, model: Any) -> str | list[str]:
    """Return the modules that get matrices; of a model with a vision tower all-linear is what text reaches."""
    if not isinstance(adapter.targets, str):
        return list(adapter.targets)
    if adapter.targets != "all-linear" or model is None or model.config.get_text_config() is model.config:
        return adapter.targets
    linear = [name for name, part in model.named_modules() if isinstance(part, torch.nn.Linear)]
    head = model.get_output_embeddings()
    return [
        name
        for name in linear
        if model.get_submodule(name) is not head and model.get_submodule(name).weight.requires_grad
    ]


def _with_own_adapter(model: Any, folder: Path) -> Any:
    from peft import PeftModel  # noqa: PLC0415 - for adapters alone

    try:
        return PeftModel.from_pretrained(model, folder, is_trainable=True, local_files_only=True)
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        words = str(error).strip().splitlines() or [type(error).__name__]
        raise UsageError(f"{folder} holds an adapter that does not fit its base: {words[0]}") from error
