"""Group commit: one thread per process writes what many coroutines ask for, several in one transaction.

A commit with full sync costs some hundred microseconds whatever it holds, so writes that arrive within a few
milliseconds share one (SQLite, 50 calls a commit: about 20 µs of CPU each).
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any, Generic, Protocol, TypeVar

import sqlalchemy as sa

from lrq.ledger.engine import Ledger, explain
from lrq.ledger.transaction import SETTLING, Transaction

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

_BATCH_WINDOW = 0.003  # seconds in which writes are gathered …
_BUSY = 16  # … and where so many have come by then
_BUSY_WINDOW = 0.017  # … so many seconds more: all far below any judge's latency
_MAX_BATCH = 500
_TRIES = 5  # a transaction that met a deadlock or a lost connection is tried again
_LONGEST_PAUSE = 5.0  # seconds between two tries of what must be written, while the database is away

# The database did not take the transaction, whatever was in it: away, full, busy, a deadlock, read-only for a while.
AWAY = (sa.exc.OperationalError, sa.exc.InterfaceError, sa.exc.InternalError, sa.exc.TimeoutError)

log = logging.getLogger(__name__)


class Write(Protocol[T_co]):
    """One thing to write. Equal kinds are applied together, in the order they came.

    What needs the transaction to be alone sees to it (`Transaction.alone`, SETTLING), as late as it can: others wait
    for its end. Kinds that do work before that have `before_alone = True`, and go first; those that need not be alone
    have `is_free = True`, and wait for nobody.
    """

    @classmethod
    def apply(cls, tx: Transaction, writes: Sequence[Any]) -> Sequence[Any]:
        """Write them all; one result for each, an exception instance for one that is to be raised."""
        ...


@dataclass(frozen=True)
class InTransaction(Generic[T]):
    """Any function of a transaction as a write of its own."""

    function: Callable[[Transaction], T]

    @classmethod
    def apply(cls, tx: Transaction, writes: Sequence[Any]) -> Sequence[Any]:
        tx.alone(SETTLING)  # whatever it is
        return [write.function(tx) for write in writes]


@dataclass(frozen=True)
class _Waiting:
    write: Write[Any]
    future: asyncio.Future[Any]


class Writer:
    """Writes for a process, in threads of its own. `write` from the event loop; `close` when it has ended.

    Where the database has many writers, what need not be alone has a thread for itself: a permit grows old while its
    call waits to be marked as sent.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._line = _Line(ledger)
        self._free = self._line if ledger.is_sqlite else _Line(ledger)

    async def write(self, write: Write[T]) -> T:
        """Commit this write; returns when it is on disk. A cancelled wait does not undo it."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        line = self._free if getattr(write, "is_free", False) else self._line
        line.put(_Waiting(write, future))
        return await future

    async def write_until_committed(self, write: Write[T]) -> T:
        """Commit what must not be lost, for as long as it takes: it was paid for, or others wait for it."""
        pause = 0.1
        while True:
            try:
                return await self.write(write)
            except AWAY:
                await asyncio.sleep(pause)
                pause = min(_LONGEST_PAUSE, 2 * pause)

    def close(self) -> None:
        """Write what is waiting, then end the threads."""
        for line in {self._line, self._free}:
            line.close()


class _Line:
    """A thread that writes what is put into its queue."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._queue: SimpleQueue[_Waiting | None] = SimpleQueue()
        self.put = self._queue.put
        self._thread = threading.Thread(target=self._work, name="ledger-writer", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Write what is waiting, then end the thread."""
        self._queue.put(None)
        self._thread.join()

    def _work(self) -> None:
        last = False
        while not last:
            batch: list[_Waiting] = []
            first = self._queue.get()
            if first is None:
                return
            batch.append(first)
            last = self._gather(batch)
            self._commit(batch)

    def _gather(self, batch: list[_Waiting]) -> bool:
        """Take what comes within the window; True when the writer is to end.

        It sleeps through it: a thread that waits at the queue is woken by every write, and takes the event loop's turn.
        """
        time.sleep(_BATCH_WINDOW)
        if self._queue.qsize() >= _BUSY:
            time.sleep(_BUSY_WINDOW)
        while len(batch) < _MAX_BATCH:
            try:
                following = self._queue.get_nowait()
            except Empty:
                return False
            if following is None:
                return True
            batch.append(following)
        return False

    def _commit(self, batch: Sequence[_Waiting]) -> None:
        try:
            results = self._transaction(batch)
        except AWAY as error:
            log.warning("the ledger does not take %d writes: %s", len(batch), explain(error))
            results = [error] * len(batch)
        except Exception as error:  # one bad write must not fail the others: each once more on its own
            results = [error] if len(batch) == 1 else [self._alone(waiting) for waiting in batch]
        by_loop: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[Any], Any]]] = {}
        for waiting, result in zip(batch, results, strict=True):
            by_loop.setdefault(waiting.future.get_loop(), []).append((waiting.future, result))
        for loop, ended in by_loop.items():
            with suppress(RuntimeError):  # the loop is closed, and nobody waits any more
                loop.call_soon_threadsafe(_resolve, ended)

    def _alone(self, waiting: _Waiting) -> Any:
        try:
            return self._transaction([waiting])[0]
        except Exception as error:
            return error

    def _transaction(self, batch: Sequence[_Waiting]) -> list[Any]:
        for trial in range(_TRIES):
            try:
                return self._apply(batch)
            except AWAY:
                if trial == _TRIES - 1:
                    raise
                time.sleep(0.05 * 2**trial)
        raise AssertionError("unreachable")

    def _apply(self, batch: Sequence[_Waiting]) -> list[Any]:
        groups: dict[type[Any], list[int]] = {}
        for index, waiting in enumerate(batch):
            groups.setdefault(type(waiting.write), []).append(index)
        results: list[Any] = [None] * len(batch)
        with self._ledger.write() as tx:
            for kind, places in sorted(groups.items(), key=_runs_last):
                ended = kind.apply(tx, [batch[index].write for index in places])
                for index, result in zip(places, ended, strict=True):
                    results[index] = result
        return results


def _runs_last(group: tuple[type[Any], list[int]]) -> bool:
    """Tell whether a kind has nothing to do before it is alone: the others go first."""
    return not getattr(group[0], "before_alone", False)


def _resolve(ended: Sequence[tuple[asyncio.Future[Any], Any]]) -> None:
    for future, result in ended:
        if future.done():
            continue
        if isinstance(result, Exception):
            future.set_exception(result)
        else:
            future.set_result(result)
