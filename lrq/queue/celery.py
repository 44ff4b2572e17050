"""The Celery app, configured when it is first used: importing it touches neither disk nor network."""

import logging
import os
import warnings
from collections.abc import Callable, Iterable
from typing import Any

from celery import Celery, signals
from celery.exceptions import CPendingDeprecationWarning, SecurityWarning
from kombu import Exchange, Queue

from lrq.config import Settings, load_settings
from lrq.domain.logs import format_logs
from lrq.domain.urls import is_redis
from lrq.ledger import open_ledger
from lrq.queue.events import EventsByTheSecond
from lrq.queue.routes import QUEUES, concurrency_of, task_name
from lrq.queue.transport import register


def transport_options(ledger_id: str) -> dict[str, Any]:
    """Return what kombu needs to share a Redis between ledgers, told apart by `ledger_id`, and to notice silence."""
    return {
        "global_keyprefix": prefix_of(ledger_id),
        "socket_connect_timeout": 5,
        "socket_timeout": 30,  # longer than any blocking pop; a silent broker is noticed
        "socket_keepalive": True,
    }


def prefix_of(ledger_id: str) -> str:
    """Return what every key of this ledger begins with in Redis."""
    return f"lrq:{ledger_id}:"


def verified(url: str) -> str:
    """Return `url` so that a rediss:// server's certificate is checked: kombu checks none unless the URL asks for it.

    One that says `ssl_cert_reqs` itself stays as it is.
    """
    if not url.startswith("rediss://") or "ssl_cert_reqs=" in url:
        return url
    return f"{url}{'&' if '?' in url else '?'}ssl_cert_reqs=required"


def configuration(broker: str, ledger_id: str) -> dict[str, Any]:
    """Return Celery's configuration for a broker.

    Args:
        broker: its URL; of any other than Redis, tasks are fetched ahead and queues have no prefix.
        ledger_id: whose queues these are, so that several ledgers share a Redis.
    """
    return {
        "broker_url": verified(broker),
        "broker_transport_options": transport_options(ledger_id) if is_redis(broker) else {},
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,  # a broker may be away for as long as it likes
        "task_publish_retry_policy": {"max_retries": 2, "interval_start": 0, "interval_step": 0.2},
        "task_serializer": "json",
        "accept_content": ["json"],
        "result_backend": None,  # results are rows of the ledger
        "task_ignore_result": True,
        "task_queues": [Queue(name, Exchange("lrq"), routing_key=name) for name in QUEUES],
        "task_routes": {task_name(name): {"queue": name} for name in QUEUES},
        "task_create_missing_queues": False,
        "task_default_queue": "aggregate",
        "task_acks_late": False,  # who works on what stands in the ledger
        "worker_prefetch_multiplier": 1,
        "worker_disable_prefetch": is_redis(broker),  # no message is taken that is not begun at once
        "worker_enable_prefetch_count_reduction": False,  # tasks that run hold no message
        "worker_pool": "threads",
        "worker_send_task_events": True,
        "task_send_sent_event": False,  # a further 0.25 ms for each message sent
        "worker_redirect_stdouts": False,
        "worker_log_color": False,  # an escape in a line is none of ours
        "enable_utc": True,
        "timezone": "UTC",
        "include": ["lrq.workers.tasks"],
    }


def make_app(configure: Callable[[], dict[str, Any]]) -> Celery:
    """Return an app that asks `configure` for Celery's settings when it first needs them, and not before."""
    register()
    app = Celery("lrq", set_as_current=False)
    app.add_defaults(configure)
    app.steps["consumer"].add(EventsByTheSecond)
    app.steps["worker"].add("lrq.workers.loop:StopSignals")
    return app


_settings: Settings | None = None


def use(settings: Settings) -> None:
    """Let the app work under these `settings` instead of those it would read itself; call it before anything else."""
    global _settings
    _settings = settings


def settings_in_use() -> Settings:
    """Return the settings of `use`; without it those of file and environment, read once."""
    global _settings
    if _settings is None:
        _settings = load_settings()
    return _settings


def _configure() -> dict[str, Any]:
    settings = settings_in_use()
    ledger = open_ledger(settings, create=True)
    try:
        return configuration(settings.broker(), ledger.id)
    finally:
        ledger.close()


app = make_app(_configure)


def _choose_concurrency(instance: Any, conf: Any, options: dict[str, Any], **_: object) -> None:
    """Without -c the queues decide, not the number of cores: judges wait, a sampler holds one model."""
    os.umask(0o077)  # also where Celery's own command is the entry
    warnings.filterwarnings("ignore", category=SecurityWarning)  # about pickle as root; our messages are JSON alone
    if instance.app is app and not conf.worker_concurrency:
        queues: str | Iterable[str] = options.get("queues") or ()
        names = queues.split(",") if isinstance(queues, str) else queues
        conf.worker_concurrency = concurrency_of(tuple(names), settings_in_use())


def _format_logs(logger: logging.Logger, **_: object) -> None:
    format_logs(logger, as_json=settings_in_use().log == "json")


def _keep_log_readable(**_: object) -> None:
    """Drop what Celery tells at each lost connection of an option that its thread pool cannot follow."""
    warnings.filterwarnings("ignore", category=CPendingDeprecationWarning)


signals.celeryd_init.connect(_choose_concurrency)
signals.after_setup_logger.connect(_format_logs)
signals.after_setup_task_logger.connect(_format_logs)
signals.celeryd_after_setup.connect(_keep_log_readable)
