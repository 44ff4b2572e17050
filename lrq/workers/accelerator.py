"""One accelerator for sampler and trainer: a lock per machine that the sampler gives up between items.

Samplers hold it shared, a training alone. A training that wants it says so in a file beside the lock; samplers look
there before each item, move their weights off and wait until the file is gone.
"""

import fcntl
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lrq.config import runtime_folder

_LOOK_EVERY = 0.2  # seconds


def machine_folder() -> Path:
    """Return a folder that is the same for all runs of this user on this machine."""
    folder = runtime_folder("accelerator")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


class Accelerator:
    """This process's hand on the machine's accelerator."""

    def __init__(self, folder: Path | None = None) -> None:
        folder = folder or machine_folder()
        self._wanted = folder / "wanted"
        self._handle = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        self._held = False

    def is_wanted(self) -> bool:
        """Tell whether a living training asks for it."""
        try:
            pid = int(self._wanted.read_text(encoding="ascii"))
            os.kill(pid, 0)
        except (FileNotFoundError, ValueError, ProcessLookupError):
            return False
        except PermissionError:
            return True
        return pid != os.getpid()

    def share(self, stopping: threading.Event) -> bool:
        """Hold it beside other samplers, once no training wants it; False when stopped before."""
        while not self._held:
            if stopping.is_set():
                return False
            self._held = not self.is_wanted() and self._try(fcntl.LOCK_SH)
            if not self._held:
                stopping.wait(_LOOK_EVERY)
        return True

    def give_up(self) -> None:
        fcntl.flock(self._handle, fcntl.LOCK_UN)
        self._held = False

    @contextmanager
    def alone(self, stopping: threading.Event) -> Iterator[bool]:
        """Ask for it and hold it alone; yields False when stopped before it was had."""
        self._wanted.write_text(str(os.getpid()), encoding="ascii")
        try:
            while not (had := self._try(fcntl.LOCK_EX)) and not stopping.wait(_LOOK_EVERY):
                pass
            yield had
        finally:
            self._wanted.unlink(missing_ok=True)
            self.give_up()

    def _try(self, how: int) -> bool:
        try:
            fcntl.flock(self._handle, how | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def close(self) -> None:
        os.close(self._handle)


def is_single(device: str) -> bool:
    """Tell whether sampler and trainer must share: the policy is on a GPU and the machine has one alone."""
    if device == "cpu":
        return False
    import torch  # noqa: PLC0415 - asked only by samplers and trainers

    return bool(torch.cuda.device_count() == 1)
