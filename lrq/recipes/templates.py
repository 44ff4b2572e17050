"""Prompt texts: files beside the recipes, frozen with a run, filled in a single pass."""

import re
from collections.abc import Mapping
from pathlib import Path

_PLACEHOLDER = re.compile(r"\{\{(\w+)\}\}")


def load_prompts(folder: Path) -> dict[str, str]:
    """Return the texts of `folder` by name: `en/helpfulness` for the file `en/helpfulness.txt`."""
    files = sorted(folder.rglob("*.txt"))
    return {path.relative_to(folder).with_suffix("").as_posix(): _text(path) for path in files}


def fill(template: str, values: Mapping[str, str]) -> str:
    """Put each value in place of its `{{name}}`; what is put in is never filled again.

    Raises ValueError if a placeholder has no value or a value no placeholder. Untrusted values come fenced.
    """
    names = set(_PLACEHOLDER.findall(template))
    if names != values.keys():
        differing = ", ".join(sorted(names ^ values.keys()))
        raise ValueError(f"placeholders and values of the prompt differ: {differing}")
    return _PLACEHOLDER.sub(lambda placeholder: values[placeholder[1]], template)


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8").rstrip("\n")
