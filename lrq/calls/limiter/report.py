"""What a process tells Redis about its calls since its last poll."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lrq.calls.limiter.headers import Seen, read_headers
from lrq.calls.limiter.records import Outcome, Permit


@dataclass(slots=True)
class Report:
    """Sums over settled calls; the script takes each report once."""

    requests: Counter[int] = field(default_factory=Counter)  # corrections to the log, by bucket
    tokens: Counter[int] = field(default_factory=Counter)
    unused: Counter[int] = field(default_factory=Counter)  # calls granted to a run and not begun
    headers: dict[str, dict[str, Any]] = field(default_factory=dict)
    headers_bucket: int = -1
    throttled: dict[str, Any] | None = None
    failures: int = 0
    failures_bucket: int = -1
    answered: int = 0
    done: int = 0
    work: int = 0  # tokens of the calls done
    time: float = 0.0  # seconds they took, added up

    @property
    def is_empty(self) -> bool:
        return not (self.requests or self.tokens or self.answered or self.failures)

    def give_back(self, run: int, bucket: int, calls: int, tokens: int) -> None:
        """Give back `calls` and `tokens` of a grant in this `bucket` that are not used."""
        self.unused[run] += calls
        self.requests[bucket] -= calls
        self.tokens[bucket] -= tokens

    def add(
        self, permit: Permit, tokens: int | None, status: Outcome, headers: Mapping[str, str], latency: float
    ) -> None:
        """Add a settled call.

        Args:
            tokens: what the server counted; None: unknown, the expected number stays charged.
            headers: of the answer, whose limits count if no later call has told them.
            latency: seconds.
        """
        if status in ("throttled", "unsent"):  # the server counted neither
            self.requests[permit.bucket] -= 1
            self.tokens[permit.bucket] -= permit.tokens
        else:
            self.requests[permit.bucket] += 0  # settled: a slot is free, which alone is worth a poll
            self.tokens[permit.bucket] += 0 if tokens is None else tokens - permit.tokens
        if status == "failed":
            self.failures += 1
            self.failures_bucket = max(self.failures_bucket, permit.bucket)
        elif status != "unsent":
            self.answered += 1
            self._learn(permit, status, read_headers(headers))
        if status == "ok":
            self.done += 1
            self.work += permit.tokens if tokens is None else tokens
            self.time += latency

    def _learn(self, permit: Permit, status: Outcome, seen: Mapping[str, Seen]) -> None:
        if seen and permit.bucket >= self.headers_bucket:
            self.headers_bucket = permit.bucket
            counts = {"requests": permit.own_requests, "tokens": permit.own_tokens}
            self.headers = {kind: _as_json(limit, counts[kind]) for kind, limit in seen.items()}
        if status == "throttled":
            before = self.throttled or {"bucket": -1}
            self.throttled = before | {"bucket": max(permit.bucket, before["bucket"])}
            self.throttled |= _blame(seen, permit.tokens)

    def wait_after_429(self, seconds: float) -> None:
        """Note the server's Retry-After, in seconds, for the 429 just added."""
        if self.throttled is not None:
            self.throttled["after"] = max(seconds, self.throttled.get("after", 0.0))

    def as_json(self) -> dict[str, Any]:
        """Return the report as the script takes it: what is zero may be left out."""
        report: dict[str, Any] = {
            "corrections": [
                {"bucket": bucket, "requests": self.requests[bucket], "tokens": self.tokens[bucket]}
                for bucket in self.requests.keys() | self.tokens.keys()
            ],
            "unused": [{"run": str(run), "calls": calls} for run, calls in self.unused.items()],
            "headers": self.headers,
            "answered": self.answered,
            "done": {"count": self.done, "work": self.work, "time": self.time},
        }
        if self.throttled:
            report["throttled"] = self.throttled
        if self.failures:
            report["failed"] = {"count": self.failures, "bucket": self.failures_bucket}
        return report


def _as_json(seen: Seen, own: int) -> dict[str, Any]:
    fields = {"limit": seen.limit, "remaining": seen.remaining, "reset": seen.reset, "own": own}
    return {name: value for name, value in fields.items() if value is not None}


def _blame(seen: Mapping[str, Seen], tokens: int) -> dict[str, Any]:
    """Return which limit a 429 speaks of, if its headers tell, and whether what remains of it explains the 429."""
    left = {
        kind: seen_limit.remaining / seen_limit.limit
        for kind, seen_limit in seen.items()
        if seen_limit.remaining is not None
    }
    kind = min(left, key=left.__getitem__, default=None)
    if kind is None or left[kind] >= 0.5:
        return {}
    needed = tokens if kind == "tokens" else 1
    return {"name": kind, "explained": left[kind] * seen[kind].limit < max(needed, 0.02 * seen[kind].limit)}
