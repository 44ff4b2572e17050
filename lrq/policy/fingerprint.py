"""The fingerprint of a tokenizer: whether token ids that were drawn before still mean the same text."""

import hashlib
from typing import Any

import orjson

# Of a tokenizer's own state: what calls leave behind, and what is put around a text; neither changes what an id means.
_NO_MEANING = ("truncation", "padding", "post_processor")


def tokenizer_fingerprint(tokenizer: Any) -> str:
    """Return a SHA-256 (hex) of all that maps texts to token ids and back; a chat template is no part of it."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:  # a tokenizer in Python alone
        state = {"class": type(tokenizer).__name__, "vocabulary": tokenizer.get_vocab()}
    else:
        state = orjson.loads(backend.to_str())
        state = {name: value for name, value in state.items() if name not in _NO_MEANING}
    added = {str(id_): [str(token), token.special] for id_, token in tokenizer.added_tokens_decoder.items()}
    text = orjson.dumps({"state": state, "added": added}, option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(text).hexdigest()
