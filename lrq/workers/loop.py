"""One asyncio event loop per process, in a thread of its own: pool threads hand it coroutines and wait.

Dozens of calls of many tasks then share one loop and its connections, where a loop per task would cost several times
the CPU per call.
"""

import asyncio
import os
import signal
import threading
from collections.abc import Awaitable, Callable, Coroutine
from types import FrameType
from typing import Any, NoReturn, TypeVar

from celery import bootsteps, signals

from lrq.domain.errors import Stopping

T = TypeVar("T")

stopping = threading.Event()  # set once, by the first SIGTERM or Ctrl-C: begin no further call


class _Loop:
    def __init__(self) -> None:
        self.pid = os.getpid()
        self.loop = asyncio.new_event_loop()
        self.stopping = asyncio.Event()
        self.thread = threading.Thread(target=self.loop.run_forever, name="asyncio", daemon=True)
        self.thread.start()

    def stop(self) -> None:
        """Wake who waits until stopping; call it from any thread."""
        self.loop.call_soon_threadsafe(self.stopping.set)


_lock = threading.Lock()
_current: _Loop | None = None
_closers: list[Callable[[], Awaitable[None]]] = []


def _loop() -> _Loop:
    """Return this process's loop, started when it is first needed: a fork has none yet."""
    global _current
    with _lock:
        if _current is None or _current.pid != os.getpid():
            _current = _Loop()
            if stopping.is_set():  # asked after the loop is known, so that no stop falls in between
                _current.stop()
        return _current


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on the process's loop and wait for its result; call it from any thread but the loop's own."""
    return asyncio.run_coroutine_threadsafe(coroutine, _loop().loop).result()


def check() -> None:
    """Raise Stopping when this process is being stopped; call it before each paid call."""
    if stopping.is_set():
        raise Stopping


async def until_stopping() -> None:
    """Wait, on the process's loop, until it is being stopped: to cut waits short."""
    await _loop().stopping.wait()


def stop() -> None:
    """Let no further call begin; what is in flight goes on."""
    stopping.set()
    current = _current
    if current is not None and not current.loop.is_closed():
        current.stop()


def at_close(closer: Callable[[], Awaitable[None]]) -> None:
    """Have this awaited on the loop before it ends, last added first: closing of HTTP sessions and the like."""
    _closers.append(closer)


def close() -> None:
    """End the loop: run the closers, cancel what is left, stop the thread."""
    global _current
    current = _current
    if current is None or current.pid != os.getpid():
        return
    try:
        asyncio.run_coroutine_threadsafe(_wind_up(), current.loop).result()
    finally:
        _current = None
        current.loop.call_soon_threadsafe(current.loop.stop)
        current.thread.join()
        current.loop.close()


async def _wind_up() -> None:
    while _closers:
        await _closers.pop()()
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)
    loop = asyncio.get_running_loop()
    await loop.shutdown_asyncgens()
    await loop.shutdown_default_executor()


interrupted = False  # whether it was Ctrl-C that stopped this worker


class StopSignals(bootsteps.StartStopStep):  # type: ignore[misc]
    """Ties `stopping` to the worker: its first signal stops it orderly, a second one at once."""

    def start(self, _worker: Any) -> None:
        signal.signal(signal.SIGQUIT, _at_once)
        signals.worker_shutting_down.connect(_on_first_signal)
        signals.worker_shutdown.connect(_on_shutdown)

    def close(self, _worker: Any) -> None:
        stop()  # also when told by remote control, where no signal is sent

    def stop(self, _worker: Any) -> None:
        """Do nothing: Celery waits for the tasks."""


def _on_first_signal(sig: str, **_: object) -> None:
    global interrupted
    interrupted = sig == "SIGINT"
    stop()
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, _at_once)


def _at_once(number: int, _frame: FrameType | None) -> NoReturn:
    os._exit(128 + number)


def _on_shutdown(**_: object) -> None:
    close()
