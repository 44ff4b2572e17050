"""The scorer: serves the preference model that `judge.path` names over HTTP, so that calls of it are calls like any.

It takes no messages from a queue. It gives signs of life to the ledger, for `lrq status`, and to the broker, for
Flower.
"""

import asyncio
import logging
import os
import signal
import socket
from importlib.metadata import version
from pathlib import Path
from urllib.parse import urlsplit

from aiohttp import web

from lrq.config import ScorerEndpoint, Settings
from lrq.domain.errors import LrqError, UsageError
from lrq.ledger import Ledger, open_ledger
from lrq.ledger.processes import Presence
from lrq.queue.celery import app as celery
from lrq.run_config import scored_model
from lrq.scorer.models import Scorer, open_scorer
from lrq.scorer.server import make_app

_BEAT_SECONDS = 5.0  # between signs of life to the broker
_LAST_SECONDS = 60.0  # that requests in flight have at the end

log = logging.getLogger(__name__)


def serve(settings: Settings, log_level: str = "INFO") -> int:
    """Load the model and serve it until SIGTERM or Ctrl-C; return the exit code. Raises UsageError, LrqError."""
    logging.basicConfig(level=log_level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)
    endpoint, path = settings.scorer, settings.judge.path
    if endpoint is None or path is None:
        raise UsageError("no preference model is named; set judge.path to its folder")
    name = scored_model(path)
    scorer = open_scorer(path, device=settings.judge.device, dtype=settings.judge.dtype)
    ledger = open_ledger(settings, create=True)
    try:
        return asyncio.run(_serve(endpoint, scorer, (name, Path(path).name), ledger))
    finally:
        ledger.close()


async def _serve(endpoint: ScorerEndpoint, scorer: Scorer, names: tuple[str, ...], ledger: Ledger) -> int:
    address = urlsplit(endpoint.url)
    runner = web.AppRunner(make_app(scorer, token=endpoint.secret(), names=names), shutdown_timeout=_LAST_SECONDS)
    await runner.setup()
    try:
        await web.TCPSite(runner, address.hostname, address.port).start()
    except OSError as error:
        await runner.cleanup()
        raise LrqError(f"port {address.port} cannot be listened on ({error.strerror}); set judge.port") from None
    log.info("%s, a %s, is served at %s", names[0], scorer.kind, endpoint.url)
    presence = await asyncio.to_thread(Presence, ledger, "scorer", lambda: {"serves": names[0]})
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    beats = asyncio.create_task(_beat())
    await ended.wait()
    beats.cancel()
    await runner.cleanup()
    await asyncio.to_thread(_tell_flower, "worker-offline")
    await asyncio.to_thread(presence.close)
    return 0


async def _beat() -> None:
    """Tell Flower that this process lives, as Celery's workers do."""
    kind = "worker-online"
    while True:
        if await asyncio.to_thread(_tell_flower, kind):
            kind = "worker-heartbeat"
        await asyncio.sleep(_BEAT_SECONDS)


def _tell_flower(kind: str) -> bool:
    """Send a worker's event; False while the broker takes none, which no request waits for."""
    fields = {"freq": _BEAT_SECONDS, "sw_ident": "lrq", "sw_ver": version("lrq"), "sw_sys": os.uname().sysname}
    hostname = f"scorer@{socket.gethostname()}-{os.getpid()}"
    try:
        with celery.events.default_dispatcher(hostname=hostname) as dispatcher:
            dispatcher.send(kind, active=0, processed=0, loadavg=os.getloadavg(), **fields)
    except Exception:  # whatever the transport raises
        log.debug("The broker took no %s event", kind, exc_info=True)
        return False
    return True
