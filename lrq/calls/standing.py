"""How an endpoint answers others: whether what it denies to one call is that call's fault or everyone's."""

import asyncio
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Literal

RECENTLY = 60.0  # seconds for which an answer shows that the account is in order
_EVERYONE = 3  # items denied in a row, after which it is the account
_FEWEST = 10  # calls of other items that tell how likely a 429 is
_MOST_KEPT = 2_000  # of the latest calls
_LATELY = 10.0  # seconds in which a rate throttles calls of several items
_ALONE = 30  # 429s of one item, with nobody else asking, after which it is taken for a rate
# Chances that a rate, which throttles anyone, has throttled this call each time it was tried:
_UNLIKELY = 1e-3  # … so that others need not slow down
_NEVER = 1e-5  # … so that waiting does not help it
_NEVER_LIKE_ITS_ITEM = 1e-2  # … where another call of its item was found to be never taken


@dataclass
class Standing:
    """One lane's answers, as one process has seen them. Times are monotonic."""

    in_flight: int = 0
    answered_at: float = float("-inf")
    answered_begun: float = float("-inf")  # when the latest of the calls that were answered had begun
    never_taken: set[int | None] = field(default_factory=set)  # items whose calls were throttled while others passed
    latest: deque[tuple[float, int | None, bool]] = field(default_factory=lambda: deque(maxlen=_MOST_KEPT))
    denied: set[int | None] = field(default_factory=set)  # items, since the last answer
    _changed: asyncio.Event | None = None  # set when the next call ends; None while nobody waits for that

    def begin(self) -> float:
        """Note that a call goes out; returns the monotonic time, which `end` and `blame` want back."""
        self.in_flight += 1
        return time.monotonic()

    def end(self, begun: float, *, kind: str, item: int | None) -> None:
        """Note what came of a call.

        Args:
            begun: what `begin` returned.
            kind: of its outcome: "ok", "throttled", "denied" or any other, which says nothing of the endpoint.
            item: whose call it was; None: of no item.
        """
        self.in_flight -= 1
        if kind in {"ok", "throttled"}:
            self.latest.append((time.monotonic(), item, kind == "ok"))
        if kind == "ok":
            self.answered_at = time.monotonic()
            self.answered_begun = max(self.answered_begun, begun)
            self.denied.clear()
        elif kind == "denied":
            self.denied.add(item)
        if self._changed is not None:
            self._changed.set()
            self._changed = None

    async def change(self) -> bool:
        """Wait until another call has ended. Returns True, so that a condition can wait for it."""
        if self._changed is None:
            self._changed = asyncio.Event()
        return await self._changed.wait()

    def blame(self, begun: float) -> Literal["refused", "account"] | None:
        """Return whose fault a denial is, of a call that began at `begun`; None: not known yet.

        "refused" is the call's: one that began later was answered. "account" is everyone's: several items were denied
        in a row.
        """
        if self.answered_begun > begun:
            return "refused"
        return "account" if len(self.denied) >= _EVERYONE else None

    def answered_lately(self) -> bool:
        return time.monotonic() - self.answered_at < RECENTLY

    def chance(self, item: int | None, tries: int) -> float:
        """Return the chance that what throttles the calls of other items, too, has throttled this one `tries` times.

        1.0 where too few others were seen in the last minute to tell.
        """
        since = time.monotonic() - RECENTLY
        others = [passed for moment, whose, passed in self.latest if moment >= since and whose != item]
        if len(others) < _FEWEST or item is None:
            return 1.0
        return float(((others.count(False) + 1) / (len(others) + 2)) ** tries)

    def is_its_own(self, item: int | None, tries: int, *, names_wait: bool = True) -> bool:
        """Say whether a 429 tells so little of others that they need not slow down.

        Args:
            item: whose call it was.
            tries: how often the call was throttled.
            names_wait: the server said when to ask again, which speaks for a rate. Where it did not, the first item
                that is throttled may be too large: it is a rate when it throttles another item, too.
        """
        if self.chance(item, tries) < _UNLIKELY:
            return True
        if names_wait or item is None:
            return False
        since = time.monotonic() - _LATELY
        lately = [(whose, passed) for moment, whose, passed in self.latest if moment >= since]
        throttled = [whose for whose, passed in lately if not passed]
        if not self.never_taken.issuperset(whose for whose in throttled if whose != item):
            return False
        passing = {whose for whose, passed in lately if passed}
        return bool(passing - {item}) or (item not in passing and len(throttled) < _ALONE)

    def is_never_taken(self, item: int | None, tries: int) -> bool:
        """Say whether a call is throttled for what it is, such as its size: others pass, and it never does.

        `tries`: how often it was throttled. Once one call of an `item` is found out, the others need less proof.
        """
        most = _NEVER_LIKE_ITS_ITEM if item in self.never_taken else _NEVER
        if self.chance(item, tries) >= most:
            return False
        self.never_taken.add(item)
        return True
