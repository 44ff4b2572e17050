"""Limits as a strict sliding log: no window of the given length ever holds more than the limit."""

from collections import deque
from dataclasses import dataclass, field
from typing import Literal

from lrq.sim.options import Options


@dataclass(kw_only=True)
class SlidingLog:
    """What was admitted in the last `window` seconds; times come from the caller and never fall."""

    window: float
    limit: int | None = None
    used: int = 0
    worst: int = 0  # the most that any window held
    entries: deque[tuple[float, int]] = field(default_factory=deque)

    def wait(self, now: float, amount: int) -> float:
        """Return the seconds until `amount` fits; 0 if it fits now; the window if it never will."""
        self._forget(now)
        if self.limit is None or self.used + amount <= self.limit:
            return 0.0
        over = self.used + amount - self.limit
        for when, admitted in self.entries:
            over -= admitted
            if over <= 0:
                return when + self.window - now
        return self.window

    def add(self, now: float, amount: int) -> None:
        self._forget(now)
        self.entries.append((now, amount))
        self.used += amount
        self.worst = max(self.worst, self.used)

    def reset(self, now: float) -> float:
        """Return the seconds until the log is empty."""
        return self.entries[-1][0] + self.window - now if self.entries else 0.0

    def _forget(self, now: float) -> None:
        while self.entries and self.entries[0][0] + self.window <= now:
            self.used -= self.entries.popleft()[1]


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """A request that must come again later."""

    limit: Literal["requests", "tokens", "concurrency", "quota"]
    retry_after: float  # seconds


class Limits:
    """Requests, tokens and concurrency of one server."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.requests = SlidingLog(window=options.window, limit=options.rpm)
        self.tokens = SlidingLog(window=options.window, limit=options.tpm)
        self.admitted = 0

    def admit(self, now: float, tokens: int, in_flight: int) -> Refusal | None:
        """Enter a request of so many `tokens` into the logs, or say what refuses it; a refused one uses nothing up.

        `now` is in seconds and never falls.
        """
        options = self.options
        if options.quota is not None and self.admitted >= options.quota:
            return Refusal(limit="quota", retry_after=0.0)
        if options.concurrency is not None and in_flight >= options.concurrency:
            return Refusal(limit="concurrency", retry_after=max(0.05, options.latency_ms / 1000))
        if wait := self.requests.wait(now, 1):
            return Refusal(limit="requests", retry_after=wait)
        if wait := self.tokens.wait(now, tokens):
            return Refusal(limit="tokens", retry_after=wait)
        self.admitted += 1
        self.requests.add(now, 1)
        self.tokens.add(now, tokens)
        return None

    def headers(self, now: float) -> dict[str, str]:
        """Return x-ratelimit-* for the limits that are set, as they stand at `now`, in seconds."""
        fields: dict[str, str] = {}
        if not self.options.headers:
            return fields
        for name, log in (("requests", self.requests), ("tokens", self.tokens)):
            if log.limit is not None:
                log.wait(now, 0)
                fields[f"x-ratelimit-limit-{name}"] = str(log.limit)
                fields[f"x-ratelimit-remaining-{name}"] = str(max(0, log.limit - log.used))
                fields[f"x-ratelimit-reset-{name}"] = _duration(log.reset(now))
        return fields

    def retry_after(self, refusal: Refusal) -> dict[str, str]:
        """Return Retry-After in whole seconds, rounded up, as servers send; decimals only for a `window` under 10 s."""
        if not self.options.headers or refusal.limit == "quota":
            return {}
        seconds = refusal.retry_after
        exact = self.options.window < 10
        return {"Retry-After": f"{seconds + 0.0005:.3f}" if exact else str(int(-(-seconds // 1)))}


def _duration(seconds: float) -> str:
    """Write a duration as OpenAI does: 12ms, 1.5s, 1m30s."""
    if seconds < 1:
        return f"{seconds * 1000:.0f}ms"
    minutes, remainder = divmod(seconds, 60)
    return (f"{minutes:.0f}m" if minutes else "") + f"{remainder:.3f}".rstrip("0").rstrip(".") + "s"
