"""A Redis client for the broker, beside Celery's own connections."""

from typing import Any

import redis

_TIMEOUT = 2.5  # seconds for one command: a quarter of the lease, so that a renewal can be tried again


def connect(app: Any) -> "redis.Redis | None":
    """A client of the app's broker, or None where the broker is no Redis. Connects at its first command."""
    url = str(app.conf.broker_url)
    if url.startswith("redis+socket://"):
        url = "unix://" + url.removeprefix("redis+socket://")
    elif not url.startswith(("redis://", "rediss://")):
        return None
    return redis.Redis.from_url(url, socket_timeout=_TIMEOUT, socket_connect_timeout=_TIMEOUT)
