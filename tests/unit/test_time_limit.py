"""Python code that does not end is stopped in whichever thread it runs."""

import threading
import time

import pytest

from lrq.domain.time_limit import Overtime, time_limit


def loop_for_ever() -> None:
    while True:
        pass


def test_a_loop_is_stopped_in_any_thread() -> None:
    """With a reason that says after how long."""
    reasons: list[str] = []

    def work() -> None:
        with pytest.raises(Overtime) as stopped, time_limit(0.05):
            loop_for_ever()
        reasons.append(str(stopped.value))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(60)
    work()
    assert reasons == ["it did not end within 0.05 s"] * 2


def test_what_ends_in_time_goes_on_undisturbed() -> None:
    """Also where the limit passes just as it ends."""
    ended = 0
    for _ in range(200):
        try:
            with time_limit(0.001):
                time.sleep(0.001)
        except Overtime:
            continue
        ended += 1
    time.sleep(0.05)
    with time_limit(60):
        ended += 1
    assert ended >= 1
