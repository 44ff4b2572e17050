"""Reading of rate-limit headers, OpenAI's `x-ratelimit-*` and Anthropic's `anthropic-ratelimit-*`."""

import math
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")

# Of each limit: what names its height, what remains of it and when it is whole again.
_NAMES = {
    kind: [
        [f"{begin}-{figure}{end}" for figure in ("limit", "remaining", "reset")]
        for begin, end in (("x-ratelimit", f"-{kind}"), (f"anthropic-ratelimit-{kind}", ""))
    ]
    for kind in ("requests", "tokens")
}


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What a reply's headers say of one limit."""

    limit: int
    remaining: int | None
    reset: float | None  # seconds until it is whole again


def read_headers(headers: Mapping[str, str]) -> dict[str, Seen]:
    """Return what is said of "requests" and of "tokens".

    Args:
        headers: names in any case if the mapping allows it, else in lower case.
    """
    by_kind = {}
    for kind, ways in _NAMES.items():
        for limit_, remaining, reset in ways:
            if kind not in by_kind and (limit := _count(headers.get(limit_))):
                left, reset_in = _count(headers.get(remaining)), read_duration(headers.get(reset))
                by_kind[kind] = Seen(limit=limit, remaining=left, reset=reset_in)
    return by_kind


def _count(text: str | None) -> int | None:
    """Numbers beyond any limit say nothing."""
    return int(text) if text and text.isascii() and text.isdigit() and len(text) <= 15 else None


def read_duration(text: str | None) -> float | None:
    """Return the seconds that `text` names: "6m0s", "20ms", "1.5", or a date in ISO 8601, from now.

    None if it is none of these, or no finite number.
    """
    seconds = _seconds(text) if text else None
    return seconds if seconds is not None and math.isfinite(seconds) else None


def _seconds(text: str) -> float | None:
    parts = _PART.findall(text)
    if parts and "".join(number + unit for number, unit in parts) == text:
        return sum(float(number) * _UNITS[unit] for number, unit in parts)
    try:
        return float(text)
    except ValueError:
        pass
    try:
        return datetime.fromisoformat(text).timestamp() - time.time()
    except ValueError:
        return None
