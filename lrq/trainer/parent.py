"""A training must not outlive whoever started it: a kill of the parent reaches the children in their own sessions."""

import os
import threading
import time
from collections.abc import Callable

LOOK_SECONDS = 0.5


def watch_parent(pid: int, when_gone: Callable[[], None]) -> None:
    """Call `when_gone` from a thread once the process `pid` is our parent no more."""

    def watch() -> None:
        while os.getppid() == pid:
            time.sleep(LOOK_SECONDS)
        when_gone()

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()
