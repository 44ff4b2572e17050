"""Prompt caches: of calls whose prompts begin alike, one goes ahead and the rest find what it has left.

A provider keeps what it computed for the head of a prompt and charges less for a prompt with the same head. Calls that
come all at once find nothing yet; so the first of a head goes alone, and the others wait for it a little.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable

from lrq.domain.records import Call

HEAD_BYTES = 4096  # of UTF-8: about 950 tokens, and only a fixed part of 1,024 or more makes so much of prompts alike
PATIENCE = 5.0  # seconds that others wait: by then the prompt is read, even if its reply takes longer
_KEPT = 240.0  # seconds since the last call for which a head is taken for cached: providers keep it 5 to 10 minutes
_MOST = 1000  # heads remembered: one for each kind of prompt and language, and those of long prompts of their own


class _Head:
    def __init__(self) -> None:
        self.warm_until = 0.0
        self.ahead: asyncio.Future[None] | None = None  # the call that has gone ahead, until it is back


class Turn:
    """One call's part in it: `wait` before the call, `end` after it, whatever came of it."""

    def __init__(self, head: _Head, clock: Callable[[], float], patience: float) -> None:
        self._head = head
        self._clock = clock
        self._until = clock() + patience
        self._leads = False

    async def wait(self) -> None:
        """Return when the head is warm, when nobody is ahead, or when `patience` is at its end.

        Who finds nobody ahead goes ahead, and others wait until its `end`.
        """
        head = self._head
        while head.ahead is not None and not self._is_warm() and (left := self._until - self._clock()) > 0:
            await asyncio.wait([head.ahead], timeout=left)
        if head.ahead is None and not self._is_warm():
            head.ahead = asyncio.get_running_loop().create_future()
            self._leads = True

    def end(self, *, answered: bool) -> None:
        """Let those who wait go; `answered`: the server has the head now, and nobody needs to wait for a while."""
        if answered:
            self._head.warm_until = self._clock() + _KEPT
        if self._leads and self._head.ahead is not None:
            self._head.ahead.set_result(None)
            self._head.ahead = None

    def _is_warm(self) -> bool:
        return self._head.warm_until > self._clock()


class Heads:
    """The heads that a process has sent of late. `patience`: seconds that calls wait for the one ahead."""

    def __init__(self, patience: float = PATIENCE, clock: Callable[[], float] = time.monotonic) -> None:
        self._patience = patience
        self._clock = clock
        self._heads: OrderedDict[int, _Head] = OrderedDict()

    def turn(self, call: Call) -> Turn | None:
        """Return the call's turn; None where its prompt is shorter than HEAD_BYTES, too short to be cached."""
        text = "".join(message["content"][:HEAD_BYTES] for message in call.messages)
        head = text.encode()[:HEAD_BYTES]
        if len(head) < HEAD_BYTES:
            return None
        return self.named(hash((call.endpoint, call.model, head)))

    def named(self, name: int) -> Turn:
        """Return a turn among the calls that share this `name`, a hash of whatever makes them alike."""
        head = self._heads.setdefault(name, _Head())
        self._heads.move_to_end(name)
        if len(self._heads) > _MOST:
            self._heads.popitem(last=False)
        return Turn(head, self._clock, self._patience)
