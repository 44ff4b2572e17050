"""What a server says of the models that it serves."""

from collections.abc import Mapping
from typing import Any

import aiohttp
import orjson

from lrq.config import Endpoint

_TIMEOUT = 10.0  # seconds
_MOST = 16 << 20  # bytes of a list of models; the longest known has half a megabyte
# Where servers say it: vLLM and SGLang, OpenRouter and LiteLLM, Groq, LM Studio and Mistral, llama.cpp.
_LENGTH_FIELDS = ("max_model_len", "context_length", "context_window", "max_context_length", "n_ctx", "n_ctx_train")
_LEAST = 16  # tokens: anything below is no length of a context


async def context_length(endpoint: Endpoint) -> int | None:
    """Ask the server for the tokens that prompt and reply of the endpoint's model may have together.

    None where it does not say so, or does not answer. The request is free.
    """
    secret = (endpoint.secret() or "").strip()
    headers = {"Authorization": f"Bearer {secret}"} if secret else {}
    timeout = aiohttp.ClientTimeout(total=_TIMEOUT)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout, trust_env=True) as session,
            session.get(f"{endpoint.url}/models", headers=headers, allow_redirects=False) as response,
        ):
            raw = b""
            while len(raw) < _MOST and (more := await response.content.read(_MOST - len(raw))):
                raw += more
            return read_context_length(orjson.loads(raw), endpoint.model)
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError):
        return None


def read_context_length(listing: object, model: str) -> int | None:
    """Find the context length of a model in what `/v1/models` returned.

    An adapter has that of its parent; where one model is served, it is that one, whatever it is called.
    """
    listed = listing.get("data") if isinstance(listing, Mapping) else None
    entries = {str(one.get("id")): one for one in listed or () if isinstance(one, Mapping)}
    entry = entries.get(model, next(iter(entries.values())) if len(entries) == 1 else None)
    if entry is None:
        return None
    length = _length(entry)
    parent = entries.get(str(entry.get("parent")))
    return length if length is not None or parent is None else _length(parent)


def _length(entry: Mapping[str, Any]) -> int | None:
    meta = entry.get("meta")
    for part in (entry, meta if isinstance(meta, Mapping) else {}):
        for name in _LENGTH_FIELDS:
            value = part.get(name)
            if isinstance(value, str) and value.isascii() and value.isdigit():
                value = int(value)
            if isinstance(value, int | float) and not isinstance(value, bool) and value >= _LEAST:
                return int(value)
    return None
