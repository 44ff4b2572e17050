"""What Flower shows of the paid calls: a page, the same figures as JSON, and as Prometheus series."""

import asyncio
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import flower
import prometheus_client
import redis.asyncio
from flower.app import Flower, rewrite_handler
from flower.inspector import Inspector
from flower.views import BaseHandler
from flower.views.monitor import Metrics
from kombu.utils.url import maybe_sanitize_url
from tornado.httputil import HTTPServerRequest
from tornado.template import DictLoader
from tornado.web import RequestHandler, authenticated, url

from lrq.calls.limiter import LaneView, read_lanes
from lrq.config import Settings
from lrq.domain.origin import refusal
from lrq.ledger import Ledger
from lrq.monitor.metrics import families
from lrq.monitor.usage import Reader, Totals, endpoints_by_lane, picture

_LINK = """<li class="nav-item">
  <a class="nav-link{% if active_tab == 'judge' %} active{% end %}" href="{{ reverse_url('judge') }}">Judge usage</a>
</li>"""


class JudgeFlower(Flower):  # type: ignore[misc]
    """Flower that also knows the ledger and the limits; `events` is a `lrq.monitor.server.UsageEvents`.

    `prefix` is what every key of this ledger begins with in Redis; `hosts` are names besides the machine's own under
    which it may be reached.
    """

    def __init__(
        self, *, ledger: Ledger, own: Settings, prefix: str, hosts: Collection[str] = (), **kwargs: Any
    ) -> None:
        super().__init__(template_loader=_templates(), **kwargs)
        self._hosts = hosts
        self.inspector = MaskedInspector(self.io_loop, self.capp, self.options.inspect_timeout / 1000)
        self.shown = picture(Totals(), {}, {}, {})  # the last picture
        self._reader = Reader(ledger)
        self._told = endpoints_by_lane(own)
        self._redis = redis.asyncio.Redis.from_url(own.redis(), socket_timeout=2, socket_connect_timeout=2)
        self._prefix = prefix
        self.add_handlers(r".*", _handlers(self.options.url_prefix))
        prometheus_client.REGISTRY.register(_Collector(self))

    def find_handler(self, request: HTTPServerRequest, **kwargs: Any) -> Any:
        """Find what answers, on every path alike: a page of another site is refused before anything is read."""
        headers = request.headers
        is_socket = headers.get("Upgrade", "").lower() == "websocket"
        reason = refusal(
            method="WEBSOCKET" if is_socket else request.method or "",
            host=headers.get("Host"),
            origin=headers.get("Origin"),
            names=self._hosts,
            is_guarded=bool(self.options.basic_auth or self.options.auth or self.options.unix_socket),
        )
        if reason:
            return self.get_handler_delegate(request, Refused, {"reason": reason})
        return super().find_handler(request, **kwargs)

    async def look(self) -> dict[str, Any]:
        """A picture of now; the ledger is asked beside the event loop."""
        totals = await asyncio.get_running_loop().run_in_executor(self.executor, self._reader.read)
        self.shown = picture(totals, self.events.live.rates(), await self._lanes(), self._told)
        return self.shown

    async def _lanes(self) -> Mapping[str, LaneView]:
        try:
            return await read_lanes(self._redis, self._prefix)
        except (redis.RedisError, OSError):
            return {}  # Flower's own pages say so when the broker is away


class MaskedInspector(Inspector):  # type: ignore[misc]
    """Celery leaves the password in what a worker tells of its broker, if that is a URL with a socket."""

    def _on_update(self, workername: str, method: str, response: Any) -> None:
        super()._on_update(workername, method, _masked(response) if method in {"stats", "conf"} else response)


def _masked(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _masked(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_masked(each) for each in value]
    return maybe_sanitize_url(value)


class Refused(RequestHandler):  # type: ignore[misc]
    """Says why a request is not answered."""

    def initialize(self, reason: str) -> None:
        self._why = reason

    def prepare(self) -> None:
        self.set_status(403)
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.finish(f"{self._why}\n")


class JudgePage(BaseHandler):  # type: ignore[misc]
    @authenticated  # type: ignore[untyped-decorator]
    async def get(self) -> None:
        self.render("judge.html", shown=await self.application.look())


class JudgeUsage(BaseHandler):  # type: ignore[misc]
    """Open to whoever may see the page, unlike Flower's own API: it only reads."""

    @authenticated  # type: ignore[untyped-decorator]
    async def get(self) -> None:
        self.write(await self.application.look())


class JudgeMetrics(Metrics):  # type: ignore[misc]
    """Behind the login of the pages, unlike Flower's own: the series name runs, models and money."""

    @authenticated  # type: ignore[untyped-decorator]
    async def get(self) -> None:
        await self.application.look()  # the collector must not wait, so a fresh picture lies ready for it
        await super().get()


class _Collector:
    def __init__(self, app: JudgeFlower) -> None:
        self._app = app

    def collect(self) -> Iterable[Any]:
        return families(self._app.shown)

    def describe(self) -> Iterable[Any]:
        return []  # else registering collects


def _handlers(prefix: str | None) -> list[Any]:
    ours = [
        url(r"/judge", JudgePage, name="judge"),
        url(r"/api/judge/usage", JudgeUsage),
        url(r"/metrics", JudgeMetrics),
    ]
    return [rewrite_handler(each, prefix) for each in ours] if prefix else ours


def _templates() -> DictLoader:
    """Flower's templates with a link to our page in their navigation, and ours that extends them."""
    folders = (Path(flower.__file__).parent / "templates", Path(__file__).parent / "templates")
    texts = {path.name: path.read_text(encoding="utf-8") for folder in folders for path in folder.glob("*.html")}
    texts["navbar.html"] = texts["navbar.html"].replace("</ul>", f"{_LINK}</ul>", 1)
    return DictLoader(texts)
