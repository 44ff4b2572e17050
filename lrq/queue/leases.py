"""Leases: the messages a living worker holds stay its own, however long their tasks take and whatever the broker does.

Over Redis, kombu keeps delivered messages in a hash `unacked` with their times in the sorted set `unacked_index`, and
any worker puts back those older than the visibility timeout. So a worker renews the times of what it holds.
"""

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

import redis
from celery import bootsteps, signals
from kombu.utils.json import dumps

from lrq.queue.connection import connect

logger = logging.getLogger(__name__)

_MANY = 1000  # requests remembered before the ended ones are forgotten
_SKEW_SECONDS = 2.0  # what a lease of ten can bear, beside a late renewal


class Leases(bootsteps.StartStopStep):  # type: ignore[misc]
    """Renews this worker's leases from a thread of its own, and carries them over a lost connection."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, consumer: Any, **_: object) -> None:
        self.qos: Any = None  # kombu's record of what was delivered over the present connection
        self.requests: dict[str, Any] = {}  # delivery tag -> Celery's request
        self.client = connect(consumer.app)
        self.ended = threading.Event()
        self.thread: threading.Thread | None = None

    def include_if(self, _consumer: Any) -> bool:
        return self.client is not None

    def start(self, consumer: Any) -> None:
        """After each connecting."""
        qos = consumer.task_consumer.channel.qos
        qos.restore_at_shutdown = False  # closing a broken connection must not put back what is still worked on
        if self.qos is not None:
            self._carry_over(self.qos, qos)
        self.qos = qos
        if self.thread is None:
            signals.task_received.connect(self._remember)
            self.thread = threading.Thread(target=self._work, name="leases", daemon=True)
            self.thread.start()

    def stop(self, _consumer: Any) -> None:
        """Nothing: at an orderly stop running tasks need their leases until the last is acknowledged."""

    def shutdown(self, _consumer: Any) -> None:
        """All tasks have ended; what was delivered and not begun goes back at once."""
        if self.qos is not None:
            self.qos.restore_at_shutdown = True
        signals.task_received.disconnect(self._remember)
        self.ended.set()

    def _remember(self, request: Any, **_: object) -> None:
        self.requests[request.message.delivery_tag] = request
        if len(self.requests) > _MANY:
            self.requests = {tag: request for tag, request in self.requests.items() if tag in self.qos._delivered}

    def _has_ended(self, tag: str) -> bool:
        request = self.requests.get(tag)
        return request is not None and bool(request.acknowledged)

    def _carry_over(self, before: Any, after: Any) -> None:
        """Hand what was delivered over the lost connection to the new one: running tasks are acknowledged there."""
        for tag, message in before._delivered.items():
            message.channel = after.channel
            if self._has_ended(tag):
                after._remove_from_indices(tag).execute()
            elif tag in self.requests:
                after.append(message, tag)

    def _work(self) -> None:
        assert self.client is not None  # noqa: S101  # by include_if
        timeout = self.qos.visibility_timeout
        _compare_clocks(self.client)
        while not self.ended.wait(timeout / 4):
            try:
                renew(self.client, self.qos, self._has_ended)
            except redis.RedisError as error:
                logger.warning("leases could not be renewed: %s", error)


def renew(client: redis.Redis, qos: Any, has_ended: Callable[[str], bool]) -> None:
    """Set the times of what is held to now; enter again what the broker lost, and repeat lost acknowledgements."""
    tags = [tag for tag in tuple(qos._delivered) if tag not in qos._dirty]
    ended = {tag for tag in tags if has_ended(tag)}
    held = [tag for tag in tags if tag not in ended]
    table, index = (qos.channel.global_keyprefix + key for key in (qos.unacked_key, qos.unacked_index_key))
    future: Any = client.zrangebyscore(index, time.time() + qos.visibility_timeout, "+inf")
    with client.pipeline() as pipe:
        if future:  # the clock was set back: who holds them lives and renews, or they go back as any others
            pipe.zadd(index, dict.fromkeys(future, time.time()), xx=True)
        if ended:
            pipe.zrem(index, *ended)
            pipe.hdel(table, *ended)
        if held:
            pipe.zadd(index, dict.fromkeys(held, time.time()), xx=True)
            pipe.zmscore(index, held)
        found = pipe.execute()
    qos._dirty.update(ended)
    lost = [tag for tag, score in zip(held, found[-1] if held else [], strict=True) if score is None]
    for tag in lost:
        message = qos._delivered.get(tag)
        if message is not None and tag not in qos._dirty and not has_ended(tag):
            _enter(client, table, index, message)


def _enter(client: redis.Redis, table: str, index: str, message: Any) -> None:
    """As kombu does at delivery. Without it a running task would look lost, and be sent a second time."""
    tag, place = message.delivery_tag, message.delivery_info
    entry = dumps([message._raw, place["exchange"], place["routing_key"]])
    with client.pipeline() as pipe:
        pipe.hset(table, tag, entry)
        pipe.zadd(index, {tag: time.time()})
        pipe.execute()


def _compare_clocks(client: redis.Redis) -> None:
    """Leases are times of the workers' own clocks, so these have to agree."""
    try:
        skew = time.time() - client.time()[0]
    except redis.RedisError:
        return
    if abs(skew) > _SKEW_SECONDS:
        logger.warning("this clock is %+.0f s off the broker's; until they agree, tasks may be started twice", skew)
