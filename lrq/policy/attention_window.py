"""Attention windows of a loaded model, made short for a while: a short prompt then reaches beyond them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

# As configurations and attention modules name the tokens that a layer sees.
_NAMES = ("sliding_window", "attention_chunk_size")


def windows(config: Any) -> dict[str, int]:
    """Return the windows of a text configuration that its positions reach beyond, in tokens, by their names."""
    positions = getattr(config, "max_position_embeddings", None)
    sizes = {name: getattr(config, name, None) for name in _NAMES}
    return {name: size for name, size in sizes.items() if size and (positions is None or size < positions)}


@contextmanager
def narrowed(model: Any, tokens: int) -> Iterator[None]:
    """Make the windows of a model no longer than `tokens`, in configurations and modules; afterwards as they were."""
    sizes = {name: size for name, size in windows(model.config.get_text_config()).items() if size > tokens}
    owners = {id(owner): owner for part in model.modules() for owner in (part, getattr(part, "config", None))}
    changed = [
        (owner, name, size)
        for owner in owners.values()
        for name, size in sizes.items()
        if getattr(owner, name, None) == size
    ]
    for owner, name, _ in changed:
        setattr(owner, name, tokens)
    try:
        yield
    finally:
        for owner, name, size in changed:
            setattr(owner, name, size)
