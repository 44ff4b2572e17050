"""How many tasks a process works on at once: as many as keep its calls at what the limits allow.

Latency, a rate and a concurrency, told or learned, all show in one sign: whether calls wait for a permit. Where none
do, the limits would let more in flight than there are, so the process takes twice the tasks; where far more wait than
are in flight, it takes fewer. Memory bounds it.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from celery import bootsteps

from lrq.queue.routes import MOST_TASKS

FIRST = 32  # tasks at the start, and at least where memory allows
_LOOK_EVERY = 0.5  # seconds
_COPIES = 5  # of a task's document: context, prompts made of it, an index of its passages
_OWN_BYTES = 600_000  # of a task without its document: calls in flight with their connections


class Room:
    """The tasks of a process. `take` from any thread.

    Args:
        memory: bytes that tasks may hold together.
        most: tasks at once; below MOST_TASKS it was told, and is not changed.
    """

    def __init__(self, memory: int, most: int = MOST_TASKS) -> None:
        self.limit = most if most < MOST_TASKS else FIRST
        self.active = 0
        self._is_fixed = most < MOST_TASKS
        self._memory = memory
        self._bytes = 0.0  # of documents that active tasks hold
        self._lock = threading.Lock()

    @contextmanager
    def take(self, size: int) -> Iterator[None]:
        """Work on a task whose document has so many bytes."""
        with self._lock:
            self.active += 1
            self._bytes += size
        try:
            yield
        finally:
            with self._lock:
                self.active -= 1
                self._bytes -= size

    def look(self, calls: int, in_flight: int) -> int:
        """Decide how many tasks to work on from now on.

        Args:
            calls: all that are under way in this process, in flight or not.
            in_flight: those that a server has.
        """
        if not self._is_fixed and self.active >= 0.9 * self.limit:
            idle = calls - in_flight
            if idle < in_flight / 2 + 32:
                self.limit *= 2
            elif idle > 3 * in_flight + 500 and self.active <= self.limit:
                self.limit = max(FIRST, self.limit - self.limit // 8)
        if not self._is_fixed:
            self.limit = min(self.limit, MOST_TASKS, self._bound_by_memory())
        return self.limit

    def _bound_by_memory(self) -> int:
        with self._lock:
            each = _COPIES * self._bytes / max(1, self.active) + _OWN_BYTES
        return max(1, int(self._memory / each))


class Prefetch(bootsteps.StartStopStep):  # type: ignore[misc]
    """Lets Celery work on as many messages as there is room for; the pool makes threads when they are needed.

    A subclass has `open`, which makes the room of a process with so many threads, and `load`, as `Room.look` wants it.
    """

    requires = ("celery.worker.consumer.tasks:Tasks",)
    open: Callable[[int], Room]
    load: Callable[[], tuple[int, int]]

    def __init__(self, _consumer: Any, **_: object) -> None:
        self.timer: Any = None
        self.room: Room | None = None

    def start(self, consumer: Any) -> None:
        """After each connecting, and before anything is consumed."""
        self.room = self.open(consumer.pool.limit)
        self._set(consumer, self.room.limit)
        if consumer.hub is not None:
            self.timer = consumer.timer.call_repeatedly(_LOOK_EVERY, self._look, (consumer,))

    def stop(self, _consumer: Any) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None

    def _look(self, consumer: Any) -> None:
        if self.room is not None:
            self._set(consumer, self.room.look(*self.load()))

    def _set(self, consumer: Any, limit: int) -> None:
        consumer.controller.max_concurrency = limit  # which `worker_disable_prefetch` goes by
