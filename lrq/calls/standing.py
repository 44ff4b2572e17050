"""How an endpoint answers others: whether what it denies to one call is that call's fault or everyone's."""

import asyncio
import time
from dataclasses import dataclass, field
from typing import Literal

RECENTLY = 60.0  # seconds for which an answer shows that the account is in order
_EVERYONE = 3  # items denied in a row, after which it is the account
_TOO_LARGE_TRIES = 3  # 429s of a call that is larger than all that pass


@dataclass
class Standing:
    """One lane's answers, as one process has seen them. Times are monotonic."""

    in_flight: int = 0
    answered_at: float = float("-inf")
    answered_begun: float = float("-inf")  # when the latest of the calls that were answered had begun
    largest: int = 0  # bytes of a prompt that was answered
    too_large: float = float("inf")  # bytes of a prompt that was never taken, while others were
    denied: set[int | None] = field(default_factory=set)  # items, since the last answer
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def begin(self) -> float:
        """Note that a call goes out; returns the time."""
        self.in_flight += 1
        return time.monotonic()

    def end(self, begun: float, *, kind: str, item: int | None, size: int) -> None:
        """Note what came of a call."""
        self.in_flight -= 1
        if kind == "ok":
            self.answered_at = time.monotonic()
            self.answered_begun = max(self.answered_begun, begun)
            self.largest = max(self.largest, size)
            self.denied.clear()
        elif kind == "denied":
            self.denied.add(item)
        self._changed.set()
        self._changed = asyncio.Event()

    async def change(self) -> bool:
        """Wait until another call has ended; True."""
        return await self._changed.wait()

    def blame(self, begun: float) -> Literal["refused", "account"] | None:
        """Whose fault a denial is; None: not known yet."""
        if self.answered_begun > begun:
            return "refused"
        return "account" if len(self.denied) >= _EVERYONE else None

    def answered_lately(self) -> bool:
        return time.monotonic() - self.answered_at < RECENTLY

    def is_too_large(self, size: int, tries: int, begun: float) -> bool:
        """Whether a call that is always throttled is so for its size: others pass, and none that is as large."""
        passes = self.answered_begun > begun or (tries > 1 and self.answered_lately())
        if passes and size > self.largest and (tries >= _TOO_LARGE_TRIES or size >= self.too_large):
            self.too_large = min(self.too_large, size)
            return True
        return False
