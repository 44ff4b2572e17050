"""Loading a policy: safetensors alone, no code from the folder, nothing from the network."""

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText
from transformers.utils import logging

from lrq.domain.errors import UsageError

_OFFLINE = {"local_files_only": True, "trust_remote_code": False}
_BROKEN = (OSError, ValueError, KeyError, RuntimeError, SafetensorError)  # transformers, for a folder it cannot use


def load_model(folder: Path, dtype: str, config: Any = None) -> Any:
    """Load the folder's language model on the CPU, or what another `config` makes of it.

    `dtype` is "auto", the weights' own, or the name of one of torch's. Raises UsageError with what to do.
    """
    torch_dtype = dtype if dtype == "auto" else getattr(torch, dtype, None)
    if torch_dtype != "auto" and not isinstance(torch_dtype, torch.dtype):
        raise UsageError(f"policy.dtype is auto, float32, bfloat16 or float16, not {dtype}")
    logging.disable_progress_bar()
    try:
        options = _OFFLINE if config is None else {**_OFFLINE, "config": config}
        return model_class(folder).from_pretrained(folder, dtype=torch_dtype, use_safetensors=True, **options).eval()
    except _BROKEN as error:
        words = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UsageError(f"{folder} holds no model that can be loaded: {words}") from None


def model_class(folder: Path) -> Any:
    """Return the auto class that loads the model: of a multimodal one the whole, of which text alone is used."""
    if not (folder / "config.json").is_file():  # an adapter: its base is read by the class for text
        return AutoModelForCausalLM
    config = AutoConfig.from_pretrained(folder, **_OFFLINE)
    text = type(config) in AutoModelForCausalLM._model_mapping
    multimodal = not text and type(config) in AutoModelForImageTextToText._model_mapping
    return AutoModelForImageTextToText if multimodal else AutoModelForCausalLM


def end_tokens(model: Any, tokenizer: Any) -> frozenset[int]:
    """Return all ids that end a response of `model`: its generation settings may name several, `tokenizer` one."""
    eos = model.generation_config.eos_token_id
    several = eos if isinstance(eos, list) else [eos]
    return frozenset(token for token in (*several, tokenizer.eos_token_id) if token is not None)
