"""kombu's Redis transport, with two changes.

It makes a client for each command, which is a third of a worker's main thread. And it takes what a server answers while
it fails over, loads or is full (READONLY, UNBLOCKED, LOADING, MISCONF, OOM) for an error of ours, which ends a worker;
here it is a lost connection, and the worker connects again until the server takes its commands.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kombu.transport import TRANSPORT_ALIASES, redis
from redis.exceptions import ResponseError

_PAUSE_SECONDS = 1.0


class Channel(redis.Channel):  # type: ignore[misc]
    """Keeps one client for as long as its pool of connections stands; both may be shared by threads."""

    _kept: Any = None

    @contextmanager
    def conn_or_acquire(self, client: Any = None) -> Iterator[Any]:
        if client is None:
            if self._kept is None or self._kept.connection_pool is not self.pool:
                self._kept = self._create_client()
            client = self._kept
        yield client


class Transport(redis.Transport):  # type: ignore[misc]
    Channel = Channel
    connection_errors = (*redis.Transport.connection_errors, ResponseError)

    def register_with_event_loop(self, connection: Any, loop: Any) -> None:
        try:
            super().register_with_event_loop(connection, loop)
        except ResponseError:
            time.sleep(_PAUSE_SECONDS)  # it let us in, so that Celery would try again at once
            raise


def register() -> None:
    """Let URLs of Redis name this transport."""
    TRANSPORT_ALIASES.update(dict.fromkeys(("redis", "rediss"), f"{__name__}:Transport"))
