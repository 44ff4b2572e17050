"""Slow answers are kept while they hold."""

import threading
from collections.abc import Callable

import pytest

from lrq.view.cache import Cache


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def taking(clock: Clock, seconds: float, value: str) -> Callable[[], str]:
    """Return what answers with a value after so many seconds of the clock."""

    def make() -> str:
        clock.now += seconds
        return value

    return make


def test_a_slow_answer_is_kept_while_its_stamp_holds(clock: Clock) -> None:
    cache = Cache(clock)
    assert cache.get("charts", 1, taking(clock, 2, "first")) == "first"
    clock.now += 3600
    assert cache.get("charts", 1, taking(clock, 2, "second")) == "first"
    assert cache.get("items", 1, taking(clock, 2, "other")) == "other"


def test_a_quick_answer_is_asked_anew(clock: Clock) -> None:
    cache = Cache(clock)
    assert cache.get("charts", 1, taking(clock, 0.1, "first")) == "first"
    assert cache.get("charts", 1, taking(clock, 0.1, "second")) == "second"


def test_an_old_answer_stands_while_a_newer_is_made(clock: Clock) -> None:
    """For ten times the seconds that it took; then it is given once more, and the newer one is made beside it."""
    cache = Cache(clock)
    made = threading.Event()

    def second() -> str:
        clock.now += 2
        made.set()
        return "second"

    cache.get("charts", 1, taking(clock, 2, "first"))
    clock.now += 19
    assert cache.get("charts", 2, second) == "first"
    assert not made.is_set()
    clock.now += 2
    assert cache.get("charts", 2, second) == "first"
    assert made.wait(10)
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and thread.daemon:
            thread.join(1)
    assert cache.get("charts", 2, second) == "second"
