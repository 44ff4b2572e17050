"""Queues: the Celery app, the messages and the embedded broker."""

from lrq.queue.celery import app, use
from lrq.queue.messages import BrokerDown, count_waiting, send

__all__ = ["BrokerDown", "app", "count_waiting", "send", "use"]
