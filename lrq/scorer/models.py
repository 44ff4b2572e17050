"""Loading a preference or reward model: safetensors alone, no code from the folder, nothing from the network."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, Protocol

import orjson
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from transformers.utils import logging

from lrq.domain.control_tokens import break_control_tokens
from lrq.domain.errors import UsageError
from lrq.policy.folder import WEIGHTS, find

OFFLINE = {"local_files_only": True, "trust_remote_code": False}
_BROKEN = (OSError, ValueError, KeyError, RuntimeError, SafetensorError)  # what a folder that cannot be used raises
_NO_LIMIT = 1_000_000  # tokens: tokenizers that name no limit name one far above
_WINDOW = 512  # tokens of a classifier whose folder says nothing


class TooLong(Exception):
    """A text that the model cannot take whole."""


class Scorer(Protocol):
    """Scores the responses to a prompt."""

    kind: str  # in words

    def score(self, prompt: str, responses: Sequence[str]) -> tuple[list[list[float]], int]:
        """Return rewards, [K, 1], or logits of i beating j with i shown first, [K, K]; and the tokens of all texts.

        K is the number of `responses`. Raises TooLong.
        """
        ...


def open_scorer(spec: str, *, device: str = "auto", dtype: str = "auto") -> Scorer:
    """Load the folder `spec`: PairRM in either of its layouts, else a sequence classifier.

    `dtype` is "auto" (float32 on a CPU, else the weights' own) or one of torch's. Raises UsageError.
    """
    from lrq.scorer.pairrm import is_pairrm, load_pairrm  # noqa: PLC0415 - it needs what stands here

    folder = find(spec)
    device = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    weight_type = torch.float32 if dtype == "auto" and device == "cpu" else dtype
    if isinstance(weight_type, str) and weight_type != "auto":
        weight_type = getattr(torch, weight_type, None)
        if not isinstance(weight_type, torch.dtype):
            raise UsageError(f"judge.dtype is auto, float32, bfloat16 or float16, not {dtype}")
    logging.disable_progress_bar()
    config = read_config(folder)
    load = load_pairrm if is_pairrm(config) else load_classifier
    try:
        return load(folder, config, device, weight_type)
    except _BROKEN as error:
        line = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UsageError(f"{folder} holds no preference model that can be loaded: {line}") from None


def read_config(folder: Path) -> dict[str, Any]:
    """Return what config.json in `folder` says. Raises UsageError where it is no JSON object."""
    try:
        config = orjson.loads((folder / "config.json").read_bytes())
    except orjson.JSONDecodeError as error:
        raise UsageError(f"{folder / 'config.json'} is not JSON: {error}") from None
    if not isinstance(config, dict):
        raise UsageError(f"{folder / 'config.json'} holds no object")
    return config


def read_weights(folder: Path) -> dict[str, torch.Tensor]:
    """Return the tensors of all safetensors files of a folder by name."""
    return {name: tensor for file in sorted(folder.glob(WEIGHTS)) for name, tensor in load_file(file).items()}


def require_keys(folder: Path, missing: Collection[str], unexpected: Collection[str] = ()) -> None:
    """Refuse weights that do not fit the model: `missing` ones would be random, `unexpected` left out.

    Raises UsageError.
    """
    for names, words in ((missing, "lack"), (unexpected, "have beside it")):
        if names:
            first, count = min(names), len(names)
            others = f" and {count - 1} more" if count > 1 else ""
            raise UsageError(f"{folder} holds weights that do not fit its config.json: they {words} {first}{others}")


class Classifier:
    """A reward model: a sequence classifier with one label, whose score is a response's reward."""

    kind = "reward model"

    def __init__(self, model: Any, tokenizer: Any, window: int) -> None:
        self._model, self._tokenizer, self._window = model, tokenizer, window

    def score(self, prompt: str, responses: Sequence[str]) -> tuple[list[list[float]], int]:
        """Return one reward for each response. One at a time: a padded batch could change a figure."""
        rewards, tokens = [], 0
        for response in responses:
            ids = self._encode(prompt, response)
            if len(ids["input_ids"]) > self._window:
                raise TooLong(
                    f"prompt and response have {len(ids['input_ids'])} tokens, the model takes {self._window}"
                )
            tokens += len(ids["input_ids"])
            inputs = {name: torch.tensor([row], device=self._model.device) for name, row in ids.items()}
            with torch.inference_mode():
                rewards.append([self._model(**inputs).logits[0, 0].double().item()])
        return rewards, tokens

    def _encode(self, prompt: str, response: str) -> dict[str, list[int]]:
        """Tokenize as a chat where the tokenizer has a template, else as a pair of texts."""
        prompt, response = break_control_tokens(prompt), break_control_tokens(response)
        if not self._tokenizer.chat_template:
            return dict(self._tokenizer(prompt, response))
        chat = [{"role": "user", "content": prompt}, {"role": "assistant", "content": response}]
        ids = self._tokenizer.apply_chat_template(chat, tokenize=True, return_dict=False)
        return {"input_ids": ids, "attention_mask": [1] * len(ids)}


def load_classifier(folder: Path, config: dict[str, Any], device: str, dtype: Any) -> Classifier:
    """Load a sequence classifier. Raises UsageError where it has not one label, or weights are missing."""
    model, report = AutoModelForSequenceClassification.from_pretrained(
        folder, dtype=dtype, use_safetensors=True, output_loading_info=True, **OFFLINE
    )
    require_keys(folder, report["missing_keys"])
    if model.config.num_labels != 1:
        raise UsageError(f"{folder} is a classifier with {model.config.num_labels} labels; a reward model has one")
    tokenizer = AutoTokenizer.from_pretrained(folder, **OFFLINE)
    places = config.get("max_position_embeddings") or _WINDOW
    window = tokenizer.model_max_length if tokenizer.model_max_length < _NO_LIMIT else places
    return Classifier(model.to(device).eval(), tokenizer, window)
