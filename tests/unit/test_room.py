"""How many tasks a process takes: more while its calls all find leave, fewer where most wait, never beyond memory."""

from contextlib import ExitStack

import pytest

from lrq.queue.routes import MOST_TASKS
from lrq.workers.room import FIRST, Room

GB = 2**30


def filled(room: Room, stack: ExitStack, size: int = 0) -> Room:
    """As many tasks as it lets in."""
    while room.active < room.limit:
        stack.enter_context(room.take(size))
    return room


@pytest.mark.parametrize(
    ("calls", "in_flight", "limit"),
    [
        (280, 280, 2 * FIRST),  # every call has a permit
        (280, 200, 2 * FIRST),  # 80 wait: not enough to fill every slot that comes free
        (400, 200, FIRST),  # 200 wait for 200
        (9, 9, 2 * FIRST),
        (300, 4, FIRST),  # a small server: that many wait from the start
    ],
)
def test_twice_the_tasks_where_hardly_a_call_waits(calls: int, in_flight: int, limit: int) -> None:
    """Whatever holds calls up, a rate, slots, the budget or the ledger, more tasks would not help there."""
    with ExitStack() as stack:
        assert filled(Room(GB), stack).look(calls, in_flight) == limit


def test_tasks_that_are_not_there_are_not_asked_for() -> None:
    """Near its end a run has fewer than there is room for."""
    room = Room(GB)
    with room.take(0):
        assert room.look(1, 1) == FIRST


def test_it_follows_a_limit_of_two_thousand_and_back() -> None:
    """Nine calls a task: from 32 tasks to enough for 2,000 in flight; then the server takes 20, and most are let go."""
    room = Room(GB)
    for _ in range(10):
        with ExitStack() as stack:
            calls = 9 * filled(room, stack).active
            room.look(calls, min(calls, 2000))
    assert 250 <= room.limit <= 512
    for _ in range(40):
        with ExitStack() as stack:
            room.look(9 * filled(room, stack).active, 20)
    assert room.limit <= 70


def test_memory_bounds_it_and_tasks_that_end_give_it_back() -> None:
    """Documents of 20 MB: five times as much each, so ten of them in a GB; small ones are let in again."""
    room = Room(GB)
    with ExitStack() as stack:
        filled(room, stack, 20_000_000).look(10**6, 10**6)
        assert room.limit == 10
    with ExitStack() as stack:
        for _ in range(12):
            stack.enter_context(room.take(1000))
        room.look(12, 12)
        assert room.limit == 20


def test_what_was_told_stands() -> None:
    """`judge_threads: 7` is seven."""
    room = Room(GB, 7)
    with ExitStack() as stack:
        assert filled(room, stack, 10**9).look(60, 60) == 7
    assert Room(10**15, MOST_TASKS).limit == FIRST
