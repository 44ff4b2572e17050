"""Messages: the keys of one task, never a text. The ledger knows the rest."""

import re

import redis
from celery import Celery
from kombu.exceptions import OperationalError

from lrq.domain.errors import LrqError
from lrq.domain.urls import safe_url
from lrq.queue.celery import app as _app
from lrq.queue.routes import QUEUES, task_name

_ID = re.compile(rb'"correlation_id":\s*"(\d+)-\d+"')
_STEPS = ("", "\x06\x163", "\x06\x166", "\x06\x169")  # kombu's lists of a queue: one for each step of priority


class BrokerDown(LrqError):
    """No broker answers: the work stays in the ledger and goes out when one is up."""


def send(queue: str, *, task: int, delivery: int, app: Celery = _app) -> None:
    """Send one message for a task of the ledger. Its Celery id is `<task>-<delivery>`.

    Raises BrokerDown.
    """
    try:
        app.send_task(
            task_name(queue), kwargs={"task": task, "delivery": delivery}, task_id=f"{task}-{delivery}", queue=queue
        )
    except (OperationalError, redis.RedisError) as error:
        where = safe_url(str(app.conf.broker_url))
        raise BrokerDown(f"no broker answers at {where}; start one with `lrq up` or `lrq broker`") from error


def present(client: redis.Redis, app: Celery = _app) -> set[int]:
    """The tasks whose messages wait in a queue or are held by a worker, in one round trip.

    A message on its way from a queue to its worker is in neither place for a moment: who misses one looks again.
    """
    prefix = app.conf.broker_transport_options["global_keyprefix"]
    with client.pipeline(transaction=True) as pipe:
        for queue in QUEUES:
            for step in _STEPS:
                pipe.lrange(f"{prefix}{queue}{step}", 0, -1)
        pipe.hvals(f"{prefix}unacked")
        found = pipe.execute()
    return {int(match[1]) for raws in found for raw in raws for match in _ID.finditer(raw)}
