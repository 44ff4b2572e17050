"""Answers that take long, kept while they hold: a viewer asks the same of a large run again and again."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

MOST = 64  # answers
KEEP_SECONDS = 0.3  # what takes less is asked anew
_PATIENCE = 10.0  # an old answer stands for so many times the seconds that it took


@dataclass(frozen=True, kw_only=True)
class _Answer:
    stamp: Hashable
    value: Any
    completed: float  # by the cache's clock
    seconds: float  # that it took


class Cache:
    """Keeps slow answers by key. Of a run that changes the last answer is given while a newer one is made beside it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._answers: OrderedDict[Hashable, _Answer] = OrderedDict()
        self._making: dict[Hashable, threading.Lock] = {}

    def get(self, key: Hashable, stamp: Hashable, make: Callable[[], Any]) -> Any:
        """Return the answer to `key`: the kept one while `stamp` is as it was, else what `make` returns.

        Safe to share between threads; `make` runs once at a time for each key, in the thread that asks or, where an
        older answer can stand meanwhile, in one of its own.
        """
        answer = self._known(key)
        if answer is None:
            return self._make(key, stamp, make, unless=stamp)
        is_old = answer.stamp != stamp and self._clock() - answer.completed > _PATIENCE * answer.seconds
        if is_old and not self._lock_of(key).locked():
            threading.Thread(target=self._make, args=(key, stamp, make), daemon=True).start()
        return answer.value

    def _known(self, key: Hashable) -> _Answer | None:
        with self._lock:
            if key in self._answers:
                self._answers.move_to_end(key)
            return self._answers.get(key)

    def _lock_of(self, key: Hashable) -> threading.Lock:
        with self._lock:
            return self._making.setdefault(key, threading.Lock())

    def _make(self, key: Hashable, stamp: Hashable, make: Callable[[], Any], unless: Hashable = None) -> Any:
        with self._lock_of(key):
            answer = self._known(key)
            if answer is not None and answer.stamp == unless:
                return answer.value  # made by another thread while we waited
            began = self._clock()
            value = make()
            seconds = self._clock() - began
            with self._lock:
                if seconds > KEEP_SECONDS:
                    self._answers[key] = _Answer(stamp=stamp, value=value, completed=self._clock(), seconds=seconds)
                else:
                    self._answers.pop(key, None)
                while len(self._answers) > MOST:
                    forgotten, _ = self._answers.popitem(last=False)
                    self._making.pop(forgotten, None)
            return value
