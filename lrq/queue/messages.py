"""Messages: the keys of one task, never a text. The ledger knows the rest."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import redis
from celery import Celery
from kombu.exceptions import OperationalError

from lrq.domain.errors import LrqError
from lrq.domain.urls import safe_url
from lrq.queue.celery import app as _app
from lrq.queue.routes import task_name


class BrokerDown(LrqError):
    """No broker answers: the work stays in the ledger and goes out when one is up."""


def send(queue: str, *, task: int, delivery: int, app: Celery = _app) -> None:
    """Send one message for a task of the ledger. Its Celery id is `<task>-<delivery>`.

    Args:
        queue: one of `QUEUES`.
        task: the task's id in the ledger.
        delivery: how often the task has gone out, by which a late copy is told from the latest.

    Raises BrokerDown.
    """
    with _translated(app):
        app.send_task(
            task_name(queue), kwargs={"task": task, "delivery": delivery}, task_id=f"{task}-{delivery}", queue=queue
        )


def count_waiting(queues: Sequence[str], app: Celery = _app) -> dict[str, int]:
    """Return queue → how many messages wait in it; those on their way to a worker are not among them.

    Args:
        queues: names as in `QUEUES`; one that nobody has used yet is made, and is empty.

    Raises BrokerDown.
    """
    with _translated(app), app.connection_for_read() as connection:
        connection.ensure_connection(max_retries=1, interval_start=0)
        channel = connection.default_channel
        declared = {queue: channel.queue_declare(queue, durable=True, auto_delete=False) for queue in queues}
        return {queue: answer.message_count for queue, answer in declared.items()}


@contextmanager
def _translated(app: Celery) -> Iterator[None]:
    try:
        yield
    except (OperationalError, redis.RedisError, OSError) as error:
        where = safe_url(str(app.conf.broker_url))
        raise BrokerDown(f"no broker answers at {where}; start one with `lrq up` or `lrq broker`") from error
