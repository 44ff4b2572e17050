"""Errors of settings: where a setting was given, and which one may be meant."""

import os
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import orjson
import yaml

from lrq.domain.errors import UsageError

OVERRIDES = "LRQ_OVERRIDES"  # flags of a parent process, handed to its children as JSON


def unknown_setting(path: tuple[str, ...], known: Iterable[str], env: Mapping[str, str] = os.environ) -> UsageError:
    """Make the error for a setting that does not exist: where it stands, and the nearest names that exist.

    Args:
        path: of the setting, as ("train", "beta").
        known: the names that its last part might have been.
    """
    near = get_close_matches(path[-1], list(known), n=2, cutoff=0.5)
    meant = " or ".join(".".join((*path[:-1], name)) for name in near)
    hint = f"; do you mean {meant}?" if meant else "; `lrq settings` prints them all"
    return UsageError(f"{source_of(path, env)}setting {'.'.join(path)}: there is no such setting{hint}")


def source_of(path: Sequence[str], env: Mapping[str, str] = os.environ) -> str:
    """Say where a setting was given, as the head of an error: `lrq.yaml, line 3: `; empty for the environment."""
    if _holds(orjson.loads(env.get(OVERRIDES, "{}")), path):
        return "--set: "
    file = Path(env.get("LRQ_CONFIG") or "lrq.yaml")
    line = _line_of(file, path) if file.is_file() else 0
    return f"{file}, line {line}: " if line else ""


def _holds(content: Any, path: Sequence[str]) -> bool:
    for name in path:
        if not isinstance(content, dict) or name not in content:
            return False
        content = content[name]
    return True


def _line_of(file: Path, path: Sequence[str]) -> int:
    """Find the line of a YAML file where a setting stands; 0 if it does not."""
    node, line = yaml.compose(file.read_text(encoding="utf-8")), 0
    for name in path:
        if isinstance(node, yaml.SequenceNode) and name.isdecimal() and int(name) < len(node.value):
            node = node.value[int(name)]
            line = node.start_mark.line + 1
            continue
        pairs = node.value if isinstance(node, yaml.MappingNode) else []
        entry = next(((key, value) for key, value in pairs if key.value == name), None)
        if entry is None:
            return 0
        line, node = entry[0].start_mark.line + 1, entry[1]
    return line
