"""What a server counted: requests, complete replies, tokens, and what was sent more than once."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from lrq.sim.limits import Limits


@dataclass(kw_only=True)
class Stats:
    """Counts since the start or the last reset.

    A reply is complete when its last byte has left this process for a connection that was still open; a client
    that died an instant before, unnoticed by the kernel, still counts as served.
    """

    received: int = 0  # requests of the paid endpoints, refused ones too
    seen: Counter[bytes] = field(default_factory=Counter)  # admitted deliveries per body
    served: Counter[bytes] = field(default_factory=Counter)  # complete replies per identity, see `sent`
    replies: Counter[tuple[str, int]] = field(default_factory=Counter)  # complete, by kind and status
    faults: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)  # by the limit that refused
    tokens: Counter[str] = field(default_factory=Counter)  # of complete replies
    aborted: int = 0  # the client was gone before its reply was complete
    in_flight: int = 0
    peak: int = 0

    def begin(self, body: bytes) -> int:
        """Count an admitted request with the hash `body`; return how often its body came before."""
        before = self.seen[body]
        self.seen[body] += 1
        self.in_flight += 1
        self.peak = max(self.peak, self.in_flight)
        return before

    def sent(self, kind: str, status: int, identity: bytes | None = None) -> None:
        """Count a complete reply; `identity` is the hash of a request that was answered with 200."""
        self.replies[kind, status] += 1
        if identity is not None:
            self.served[identity] += 1

    def snapshot(self, limits: Limits) -> dict[str, Any]:
        """Return the counts as /stats shows them."""
        by_kind: dict[str, dict[str, int]] = {}
        for (kind, status), count in self.replies.items():
            by_kind.setdefault(kind, {})[str(status)] = count
        complete = self.served.total()
        return {
            "notice": "lrq judge-sim, not a language model",
            "received": self.received,
            "complete": complete,
            "distinct": len(self.seen),
            "duplicates": complete - len(self.served),
            "replies": by_kind,
            "refused": dict(self.refused),
            "faults": dict(self.faults),
            "aborted": self.aborted,
            "tokens": {name: self.tokens[name] for name in ("prompt", "completion", "cached")},
            "in_flight": self.in_flight,
            "peak_in_flight": self.peak,
            "worst_window": {"requests": limits.requests.worst, "tokens": limits.tokens.worst},
        }
