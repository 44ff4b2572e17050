"""One accelerator for sampler and trainer: whoever does not use it lets the other have it."""

import fcntl
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from lrq.workers import loop, sampler
from lrq.workers.accelerator import Accelerator


class Weights:
    """A policy that knows where its weights are."""

    def __init__(self) -> None:
        self.released = threading.Event()

    def release(self) -> None:
        self.released.set()

    def restore(self) -> None:
        self.released.clear()


@pytest.fixture
def held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Accelerator, Weights]]:
    """An accelerator that a sampler's weights lie on, and the sampler's look at who waits for it."""
    weights, stopping = Weights(), threading.Event()
    accelerator = Accelerator(tmp_path)
    monkeypatch.setattr(loop, "stopping", stopping)
    monkeypatch.setattr(sampler, "_LOOK_EVERY", 0.01)
    monkeypatch.setattr(sampler, "_policies", {b"": weights})
    monkeypatch.setattr(sampler, "_accelerator", accelerator)
    with sampler._at_accelerator(weights):  # type: ignore[arg-type]
        pass  # a sample
    looking = threading.Thread(target=sampler._yield_when_idle, args=(accelerator,))
    looking.start()
    yield accelerator, weights
    stopping.set()
    looking.join()
    accelerator.close()


def can_train(folder: Path) -> bool:
    """Whether a training could have the accelerator alone."""
    handle = os.open(folder / "lock", os.O_RDWR)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(handle)
    return True


def ask(folder: Path) -> None:
    """Say that a training of another living process waits."""
    (folder / "wanted").write_text(str(os.getppid()))


def test_an_idle_sampler_makes_room_for_a_training_that_waits(
    held: tuple[Accelerator, Weights], tmp_path: Path
) -> None:
    """At a round's end no prompt comes by at which it would be given up."""
    _, weights = held
    assert not can_train(tmp_path)
    assert not weights.released.wait(0.1), "nobody asks for it"
    ask(tmp_path)
    assert weights.released.wait(20)
    for _ in range(1000):
        if can_train(tmp_path):
            break
        threading.Event().wait(0.01)
    assert can_train(tmp_path)


def test_a_sampler_at_work_is_not_disturbed(held: tuple[Accelerator, Weights], tmp_path: Path) -> None:
    """Its prompt is answered first."""
    _, weights = held
    with sampler._at_accelerator(weights):  # type: ignore[arg-type]
        ask(tmp_path)
        assert not weights.released.wait(0.1)
        assert not can_train(tmp_path)
    assert weights.released.wait(20)
