"""The limiter's words: lanes with their limits, permits, and how a lane stands."""

from dataclasses import dataclass
from typing import Any, Literal

Outcome = Literal["ok", "throttled", "failed", "other", "unsent"]
"""What came of a permit: a reply; 429; no reply (5xx, reset, timeout); refused for itself (4xx); never sent."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What the user told us; None: nothing."""

    rpm: int | None = None  # requests a minute
    tpm: int | None = None  # tokens a minute, prompt and completion
    concurrency: int | None = None  # calls in flight


@dataclass(frozen=True, kw_only=True)
class Lane:
    """One endpoint, account and model: what a server's limits hold for."""

    name: str  # stands in Redis keys and in `lrq status`: no secret
    limits: Limits = Limits()


@dataclass(slots=True, eq=False)
class Permit:
    """Leave to send one call now; to be settled exactly once."""

    lane: str
    run: int
    tokens: int  # expected, and charged until settled
    bucket: int  # where the lane's log holds it
    own_requests: int  # in that log at the grant, this one included
    own_tokens: int
    settled: bool = False


@dataclass(frozen=True, kw_only=True)
class Rate:
    """One of a lane's two rates."""

    limit: float | None  # a minute, as it holds now; None: none known
    used: int  # in the last minute
    learnt: bool  # lowered by what 429s taught


@dataclass(frozen=True, kw_only=True)
class LaneView:
    """How a lane stands, over all processes."""

    name: str
    requests: Rate
    tokens: Rate
    concurrency: int | None  # calls that may be in flight; None: as many as the rates allow
    in_flight: int
    waiting: int
    paused: float  # seconds until anything is granted again
    probing: bool  # it only fails: one call at a time is tried


def read_view(name: str, raw: dict[str, Any]) -> LaneView:
    """Return a view of the lane `name` from `raw`, the script's own words."""
    rates = {
        kind: Rate(limit=raw[kind].get("limit"), used=int(raw[kind]["used"]), learnt=raw[kind].get("learnt", False))
        for kind in ("requests", "tokens")
    }
    concurrency = raw.get("concurrency")
    return LaneView(
        name=name,
        requests=rates["requests"],
        tokens=rates["tokens"],
        concurrency=None if concurrency is None else int(concurrency),
        in_flight=int(raw["in_flight"]),
        waiting=int(raw["waiting"]),
        paused=max(float(raw["paused"]), float(raw.get("probing", 0.0))),
        probing="probing" in raw,
    )
