"""Calls of one process that wait at one lane: by run, started items first, else first come, first served."""

import asyncio
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, islice

from lrq.calls.limiter.records import Permit


@dataclass(slots=True, eq=False)
class Waiter:
    """One call that waits for its permit."""

    run: int
    started: bool
    tokens: int
    future: "asyncio.Future[Permit]"
    permit: Permit | None = None


@dataclass(frozen=True, slots=True)
class Spare:
    """Calls of one run expected before the next poll, and the tokens of each."""

    calls: int
    tokens: int


NO_SPARE = Spare(0, 0)

_Line = OrderedDict[Waiter, None]  # a queue that can be left from its middle


class Waiting:
    """The waiting calls, each run in two lines: started items, and the rest."""

    def __init__(self) -> None:
        self._runs: dict[int, tuple[_Line, _Line]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, waiter: Waiter) -> None:
        lines = self._runs.setdefault(waiter.run, (OrderedDict(), OrderedDict()))
        lines[not waiter.started][waiter] = None
        self._count += 1

    def remove(self, waiter: Waiter) -> bool:
        """Remove a call; False: it no longer waits, since it has its permit or was removed before."""
        lines = self._runs.get(waiter.run)
        if lines is None or waiter not in lines[not waiter.started]:
            return False
        del lines[not waiter.started][waiter]
        self._count -= 1
        if not any(lines):
            del self._runs[waiter.run]
        return True

    def first(self, run: int) -> Waiter | None:
        """Return who of this `run` goes next; a wait that was cancelled, and has not noticed yet, is passed over."""
        return next((waiter for waiter in self._in_order(run) if not waiter.future.done()), None)

    def _in_order(self, run: int) -> Iterator[Waiter]:
        return chain(*self._runs.get(run, ()))

    def all(self) -> list[Waiter]:
        return [waiter for run in self._runs for waiter in self._in_order(run)]

    def wants(self, most: int, spare: Mapping[int, Spare]) -> list[dict[str, object]]:
        """Return of each run, as the script takes it, how many wait and how many tokens they expect.

        Args:
            most: calls of a run whose tokens are named, in the order in which they go.
            spare: run → what is expected to come before the next poll.
        """
        return [self._want(run, most, spare.get(run, NO_SPARE)) for run in self._runs.keys() | spare.keys()]

    def _want(self, run: int, most: int, spare: Spare) -> dict[str, object]:
        return {
            "run": str(run),
            "waiting": sum(map(len, self._runs.get(run, ()))),
            "costs": [waiter.tokens for waiter in islice(self._in_order(run), most)],
            "spare": spare.calls,
            "each": spare.tokens,
            "taken": 0,
            "tokens": 0,
        }
