"""Prompt texts: files beside the recipes, frozen with a run, filled in a single pass."""

import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

_PLACEHOLDER = re.compile(r"\{\{(\w+)\}\}")


def load_prompts(folder: Path) -> dict[str, str]:
    """Return the texts of `folder` by name: `en/helpfulness` for the file `en/helpfulness.txt`."""
    texts = {path: path.read_text(encoding="utf-8").rstrip("\n") for path in sorted(folder.rglob("*.txt"))}
    return {path.relative_to(folder).with_suffix("").as_posix(): text for path, text in texts.items()}


def fill(template: str, values: Mapping[str, str]) -> str:
    """Put each of `values` in place of its `{{name}}`; what is put in is never filled again.

    Raises ValueError if a placeholder has no value or a value no placeholder. Untrusted values come fenced.
    """
    texts, names = _parts(template)
    if values.keys() != set(names):
        differing = ", ".join(sorted(set(names) ^ values.keys()))
        raise ValueError(f"placeholders and values of the prompt differ: {differing}")
    filled = [part for text, name in zip(texts, names, strict=False) for part in (text, values[name])]
    return "".join((*filled, texts[-1]))


def placeholders(template: str) -> frozenset[str]:
    """Return the names that `template` has a place for."""
    return frozenset(_parts(template)[1])


@lru_cache(maxsize=256)
def _parts(template: str) -> tuple[list[str], list[str]]:
    """Return the texts between placeholders, one more than there are of these, and the placeholders' names."""
    parts = _PLACEHOLDER.split(template)
    return parts[::2], parts[1::2]
