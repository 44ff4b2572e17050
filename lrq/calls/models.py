"""What a server says of the models that it serves, in its list of them."""

from collections.abc import Mapping, Sequence
from typing import Any

# Where servers say it: vLLM and SGLang, OpenRouter and LiteLLM, Groq, LM Studio and Mistral, llama.cpp.
_SERVED = ("max_model_len", "context_length", "context_window", "max_context_length", "max_input_tokens", "n_ctx")
_TRAINED = "n_ctx_train"  # a server may take more, or less
_LEAST, _MOST = 16, 2**31  # tokens: anything else is no length of a context


def context_lengths(listing: object) -> dict[str, int]:
    """Return model → tokens of prompt and reply together, of those of which the list says it.

    `listing` is what `/v1/models` returned, as JSON; of anything else nothing is read.
    """
    entries = _entries(listing)
    lengths = ((name, _length(entry, _SERVED)) for name, entry in entries.items())
    return {name: length for name, length in lengths if length is not None}


def read_context_length(listing: object, model: str) -> int | None:
    """Find the context length of a model in what `/v1/models` returned; None where it does not say so.

    An adapter has that of its parent; where one model is served, it is that one, whatever it is called.
    """
    entries = _entries(listing)
    entry = entries.get(model, next(iter(entries.values())) if len(entries) == 1 else None)
    if entry is None:
        return None
    parent = entries.get(str(entry.get("parent")), {})
    return _length(entry, (*_SERVED, _TRAINED)) or _length(parent, (*_SERVED, _TRAINED))


def _entries(listing: object) -> dict[str, Mapping[str, Any]]:
    """Models by name; the list may stand in `data`, or by itself."""
    models = listing.get("data") if isinstance(listing, Mapping) else listing
    models = models if isinstance(models, list) else []
    return {str(entry.get("id")): entry for entry in models if isinstance(entry, Mapping)}


def _length(entry: Mapping[str, Any], fields: Sequence[str]) -> int | None:
    meta = entry.get("meta")
    for part in (entry, meta if isinstance(meta, Mapping) else {}):
        for name in fields:
            value = part.get(name)
            if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 12:
                value = int(value)
            if isinstance(value, int | float) and not isinstance(value, bool) and _LEAST <= value <= _MOST:
                return int(value)
    return None
