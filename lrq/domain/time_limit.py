"""A limit on the time of Python code that may not end, such as a chat template: it is a program of anyone's."""

import ctypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Overtime(Exception):
    """It took longer than it may, and was stopped."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise Overtime in this thread, whichever it is, once the block has taken longer than `seconds`.

    Python code alone is stopped: a call into a library is let end first.
    """
    thread, lock = threading.get_ident(), threading.Lock()
    state = {"is_over": False, "is_stopped": False}

    def stop() -> None:
        with lock:
            if not state["is_over"]:
                state["is_stopped"] = True
                _raise_in(thread, Overtime)

    timer = threading.Timer(seconds, stop)
    timer.daemon = True
    try:
        timer.start()
        yield
    except Overtime:
        state["is_stopped"] = False
        raise Overtime(f"it did not end within {seconds:g} s") from None
    finally:
        timer.cancel()
        with lock:
            state["is_over"] = True
        if state["is_stopped"]:
            _raise_in(thread, None)  # it came too late: nothing is to be stopped any more


def _raise_in(thread: int, error: type[BaseException] | None) -> None:
    """Let a thread meet an exception at its next line of Python; None takes back one that it has not met yet."""
    raised = None if error is None else ctypes.py_object(error)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), raised)
