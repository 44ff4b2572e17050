"""Queues: the Celery app, the messages, the leases and the embedded broker."""

from lrq.queue.celery import app, use
from lrq.queue.connection import connect
from lrq.queue.messages import BrokerDown, present, send

__all__ = ["BrokerDown", "app", "connect", "present", "send", "use"]
