"""The keys of a model's config.json, for readers of transformers 4 and of transformers 5 alike.

transformers 5 moved the rotary settings into `rope_parameters` and calls `torch_dtype` `dtype`. What reads a file by
the other name takes its default instead, without a word: base 10,000 and no scaling.
"""

from collections.abc import Mapping
from typing import Any

_SETTINGS_OF_ROPE = ("rope_theta", "partial_rotary_factor")  # transformers 4 has them beside the scaling
_LOCAL = "sliding_attention"  # the layers whose base transformers 4 calls rope_local_base_freq


def for_all_readers(base: Mapping[str, Any], saved: Mapping[str, Any]) -> dict[str, Any]:
    """Return the base's configuration, each setting under its old and its new name.

    `saved` is what the library at hand wrote; from it comes what the base leaves to a default.
    """
    rope = {"rope_parameters": saved["rope_parameters"]} if saved.get("rope_parameters") else {}
    merged = _with_both_names({**rope, **base})
    parts = {name: value for name, value in base.items() if isinstance(value, dict) and name.endswith("_config")}
    for name, part in parts.items():
        inner = saved.get(name)
        merged[name] = for_all_readers(part, inner if isinstance(inner, dict) else {})
    return merged


def with_rope_theta(base: Mapping[str, Any], theta: float | None) -> dict[str, Any]:
    """Return `base` with `theta` as the base of rotary positions, wherever it names one; None: its own."""
    if theta is None:
        return dict(base)
    changed = {name: with_rope_theta(part, theta) for name, part in base.items() if _has_rope(name, part)}
    return {**base, **({"rope_theta": theta} if "rope_theta" in base else {}), **changed}


def _has_rope(name: str, part: Any) -> bool:
    return isinstance(part, dict) and (name == "rope_parameters" or name.endswith("_config"))


def _with_both_names(config: dict[str, Any]) -> dict[str, Any]:
    dtype = config.get("dtype") or config.get("torch_dtype")
    if dtype:
        config |= {"dtype": dtype, "torch_dtype": dtype}
    rope = config.get("rope_parameters")
    if not isinstance(rope, dict) or not rope:
        return config
    return {**_old_names(rope), **config}


def _old_names(rope: Mapping[str, Any]) -> dict[str, Any]:
    """Return `rope_parameters` as transformers 4 has them; per kind of layer, full attention is the general case."""
    if any(isinstance(part, dict) for part in rope.values()):
        full = next((part for name, part in rope.items() if name != _LOCAL and isinstance(part, dict)), {})
        local = rope.get(_LOCAL) or {}
        return _old_names(full) | ({"rope_local_base_freq": local["rope_theta"]} if "rope_theta" in local else {})
    scaling = {name: value for name, value in rope.items() if name not in _SETTINGS_OF_ROPE}
    kind = scaling.pop("type", None) or scaling.get("rope_type", "default")
    old: dict[str, Any] = {name: rope[name] for name in _SETTINGS_OF_ROPE if name in rope}
    return old | {"rope_scaling": None if kind == "default" else {**scaling, "rope_type": kind, "type": kind}}
