"""kombu's Redis transport, but for the clients: it makes one for each command, a third of a worker's main thread."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kombu.transport import TRANSPORT_ALIASES, redis


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


def register() -> None:
    """Let URLs of Redis name this transport."""
    TRANSPORT_ALIASES.update(dict.fromkeys(("redis", "rediss"), f"{__name__}:Transport"))
