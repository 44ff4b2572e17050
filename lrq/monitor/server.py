"""Flower for a Celery app: its settings, its door, its life."""

import logging
import signal
from collections.abc import Callable, Collection, Mapping
from typing import Any

from flower.command import apply_env_options, extract_settings, setup_logging
from flower.events import Events
from flower.options import options
from flower.urls import settings as flower_settings
from tornado.ioloop import IOLoop

from lrq.config import Settings
from lrq.domain.errors import UsageError
from lrq.domain.logs import format_logs
from lrq.domain.origin import is_loopback
from lrq.ledger import Ledger
from lrq.monitor.live import USAGE_EVENT, Live
from lrq.monitor.pages import JudgeFlower
from lrq.queue.celery import prefix_of

MAX_TASKS = 10_000  # tasks that Flower remembers; its own 100,000 take hundreds of MB


class UsageEvents(Events):  # type: ignore[misc]
    """Flower's thread for events. Those of the judge workers go to `live`, touched by the loop's thread alone."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.live = Live()

    def on_event(self, event: Mapping[str, Any]) -> None:
        if event.get("type") == USAGE_EVENT:
            self.io_loop.add_callback(self.live.add, event)
        else:
            super().on_event(event)


def serve(
    app: Any,
    ledger: Ledger,
    config: Settings,
    *,
    address: str | None,
    port: int | None,
    ready: Callable[[str], None],
    hosts: Collection[str] = (),
) -> None:
    """Run Flower until SIGTERM or Ctrl-C; `ready` is told its URL.

    FLOWER_* variables set its options, a given address or port goes before them. `hosts` are further names under which
    it may be reached. Raises UsageError where it would be open to other machines without a password, or cannot listen.
    """
    _set_options(config, address, port)
    _check_door()
    app.conf.include = ()  # Flower would import the tasks, and with them all that judging needs; it runs none
    loop = IOLoop.current()
    limits = {"max_tasks_in_memory": options.max_tasks, "max_workers_in_memory": options.max_workers}
    events = UsageEvents(app, io_loop=loop, enable_events=options.enable_events, **limits)
    shared = {"options": options, "capp": app, "events": events, "io_loop": loop, **flower_settings}
    server = JudgeFlower(ledger=ledger, config=config, prefix=prefix_of(ledger.id), hosts=hosts, **shared)
    ready(_listen(server))
    loop.asyncio_loop.add_signal_handler(signal.SIGTERM, loop.stop)
    try:
        server.start()
    finally:
        server.stop()


def _set_options(config: Settings, address: str | None, port: int | None) -> None:
    options.address = "127.0.0.1"
    options.max_tasks = MAX_TASKS
    options.tasks_columns = "name,args,state,received,runtime,worker"  # args: what it works on
    try:
        apply_env_options()
    except (KeyError, ValueError) as error:
        raise UsageError(f"a FLOWER_ variable cannot be read: {error}") from None
    if address is not None:
        options.address = address
    if port is not None:
        options.port = port
    extract_settings()
    setup_logging()
    format_logs(logging.getLogger(), as_json=config.log == "json")


def _check_door() -> None:
    """Without a password Flower shows, to whoever reaches it, tasks and money, and lets nobody change anything."""
    guarded = is_guarded()
    if not (guarded or options.unix_socket or is_loopback(options.address or "")):
        raise UsageError(
            f"{options.address or 'an empty address'} is open to other machines: "
            "set FLOWER_BASIC_AUTH=user:password, or leave --address at 127.0.0.1"
        )
    options.read_only = options.read_only or not guarded


def is_guarded() -> bool:
    """Return whether Flower asks for a login."""
    return bool(options.basic_auth or options.auth)


def _listen(server: JudgeFlower) -> str:
    """Return the URL at which the server listens."""
    try:
        port = server.start_http_server()
    except OSError as error:
        raise UsageError(
            f"cannot listen on {options.unix_socket or f'{options.address}:{options.port}'} "
            f"({error.strerror}); choose another --port, 0 for any"
        ) from None
    if options.unix_socket:
        return f"unix:{options.unix_socket}"
    host = f"[{options.address}]" if ":" in options.address else options.address or "127.0.0.1"
    scheme = "https" if "ssl_options" in flower_settings else "http"
    return f"{scheme}://{host}:{port}{(options.url_prefix or '') and '/' + options.url_prefix.strip('/')}"
