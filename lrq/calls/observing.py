"""What a process tells of its calls while it makes them: for rates, curves and traces. The ledger has the sums."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from lrq.domain.records import Call, Purpose, Usage


@dataclass(frozen=True, kw_only=True)
class CallEvent:
    """One answer of an endpoint, or a reply that was had without asking."""

    call: Call
    purpose: Purpose
    outcome: Literal["bought", "reused", "throttled", "failed"]
    usage: Usage = field(default_factory=Usage)
    cost_micros: int | None = None  # None: unpriced, or nothing was bought
    latency: float = 0.0  # seconds from the request to the end of the answer
    reason: str = ""  # the server's words, of what failed


Observer = Callable[[CallEvent], None]
"""Is called on the event loop: it may not wait, and may not raise."""
