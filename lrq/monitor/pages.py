"""What Flower shows of the paid calls: a page, the same figures as JSON, and as Prometheus series."""

import asyncio
import base64
import binascii
from collections.abc import Collection, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import flower
import orjson
import prometheus_client
import redis.asyncio
import sqlalchemy as sa
from flower.app import Flower, rewrite_handler
from flower.inspector import Inspector
from flower.views import BaseHandler
from flower.views.monitor import Metrics
from kombu.utils.url import maybe_sanitize_url
from tornado.httputil import HTTPServerRequest
from tornado.template import DictLoader
from tornado.web import HTTPError, RequestHandler, authenticated, url

from lrq.calls.limiter import read_lanes
from lrq.config import Settings
from lrq.domain.errors import LrqError, UsageError
from lrq.domain.origin import refusal
from lrq.ledger import Ledger
from lrq.monitor.control import change
from lrq.monitor.metrics import families
from lrq.monitor.tasks import Works
from lrq.monitor.usage import Reader, Totals, endpoints_by_lane, picture

_LINK = """<li class="nav-item">
  <a class="nav-link{% if active_tab == 'judge' %} active{% end %}" href="{{ reverse_url('judge') }}">Judge usage</a>
</li>"""
_LIST = '<dl class="detail-list">'
_HERE = Path(__file__).parent
_ASSETS = {"judge.js": "text/javascript", "judge.css": "text/css"}


class JudgeFlower(Flower):  # type: ignore[misc]
    """Flower that also knows the ledger and the limits; `events` is a `lrq.monitor.server.UsageEvents`.

    `prefix` is what every key of this ledger begins with in Redis; `hosts` are names besides the machine's own under
    which it may be reached.
    """

    def __init__(
        self, *, ledger: Ledger, config: Settings, prefix: str, hosts: Collection[str] = (), **kwargs: Any
    ) -> None:
        super().__init__(template_loader=_templates(), **kwargs)
        self.ledger, self.config = ledger, config
        self.works = Works(ledger)

        def format_task(task: Any) -> Any:  # Flower takes a plain function alone
            return self.works.format_task(task)

        self.options.format_task = self.options.format_task or format_task
        self._hosts = hosts
        self.inspector = MaskedInspector(self.io_loop, self.capp, self.options.inspect_timeout / 1000)
        self.picture = picture(Totals(), self.events.live, {}, {})  # the last one of all runs
        self.reader = Reader(ledger)
        self._endpoints = endpoints_by_lane(config)
        self._redis = redis.asyncio.Redis.from_url(config.redis(), socket_timeout=2, socket_connect_timeout=2)
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

    async def look(self, run: str = "") -> dict[str, Any]:
        """Return a picture of now, of one run or of all; the ledger is asked beside the event loop."""
        totals = await asyncio.get_running_loop().run_in_executor(self.executor, self.reader.read)
        try:
            lanes = await read_lanes(self._redis, self._prefix)
        except (redis.RedisError, OSError):
            lanes = {}
            totals = replace(totals, error=totals.error or "Redis does not answer: limits are shown as they are set")
        shown = picture(totals, self.events.live, lanes, self._endpoints, run=run)
        if not run:
            self.picture = shown
        return shown


class MaskedInspector(Inspector):  # type: ignore[misc]
    """Celery leaves the password in what a worker tells of its broker, if that is a URL with a socket."""

    def _on_update(self, workername: str, method: str, response: Any) -> None:
        super()._on_update(workername, method, _masked(response) if method in {"stats", "conf"} else response)


def _masked(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _masked(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_masked(part) for part in value]
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
        viewer = self.application.config.viewer_url or ""
        self.render("judge.html", viewer=viewer, author=author_of(self), xsrf=self.xsrf_token.decode())


class JudgeAsset(BaseHandler):  # type: ignore[misc]
    """The page's script and style."""

    @authenticated  # type: ignore[untyped-decorator]
    async def get(self, name: str) -> None:
        if name not in _ASSETS:
            raise HTTPError(404)
        self.set_header("Content-Type", f"{_ASSETS[name]}; charset=utf-8")
        self.finish((_HERE / "static" / name).read_bytes())


class JudgeUsage(BaseHandler):  # type: ignore[misc]
    """Open to whoever may see the page, unlike Flower's own API: it only reads."""

    @authenticated  # type: ignore[untyped-decorator]
    async def get(self) -> None:
        self.write(await self.application.look(self.get_query_argument("run", "")))


class JudgeChange(BaseHandler):  # type: ignore[misc]
    """Pauses, resumes, changes budgets and limits: for who logged in, with the page's token."""

    def check_xsrf_cookie(self) -> None:
        """Want the token also of a login by password, unlike Flower: a browser sends that to any page's requests."""
        RequestHandler.check_xsrf_cookie(self)

    @authenticated  # type: ignore[untyped-decorator]
    async def post(self) -> None:
        who = author_of(self)
        if not who:
            self._refuse(403, "to change something here, start Flower with FLOWER_BASIC_AUTH=user:password")
            return
        try:
            wish = orjson.loads(self.request.body)
            if not isinstance(wish, dict):
                raise UsageError("a change is a JSON object")
            loop, ledger = asyncio.get_running_loop(), self.application.ledger
            words = await loop.run_in_executor(self.application.executor, change, ledger, who, wish)
        except orjson.JSONDecodeError:
            self._refuse(400, "a change is a JSON object")
        except (UsageError, LrqError) as error:
            self._refuse(400, str(error))
        except sa.exc.SQLAlchemyError as error:
            self._refuse(503, f"the ledger does not take it: {str(error).splitlines()[0]}")
        else:
            self.application.reader.expire()
            self.write({"done": words})

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Answer in the form that the page reads."""
        error = kwargs.get("exc_info", (None, None))[1]
        self._refuse(status_code, getattr(error, "log_message", None) or f"status {status_code}")

    def _refuse(self, status: int, why: str) -> None:
        self.set_status(status)
        self.finish({"error": why})


def author_of(handler: BaseHandler) -> str:
    """Return the name of who logged in; empty where nobody has to, or where nothing may be changed."""
    options = handler.application.options
    if options.read_only or not (options.basic_auth or options.auth):
        return ""
    user = handler.current_user
    if isinstance(user, str):
        return user
    try:
        _, _, encoded = handler.request.headers.get("Authorization", "").partition(" ")
        return base64.b64decode(encoded).decode().partition(":")[0]
    except (binascii.Error, UnicodeDecodeError):
        return ""


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
        return families(self._app.picture)

    def describe(self) -> Iterable[Any]:
        return []  # else registering collects


def _handlers(prefix: str | None) -> list[Any]:
    pages = [
        url(r"/judge", JudgePage, name="judge"),
        url(r"/judge/([a-z.]+)", JudgeAsset, name="judge-asset"),
        url(r"/api/judge/usage", JudgeUsage, name="judge-usage"),
        url(r"/api/judge/change", JudgeChange, name="judge-change"),
        url(r"/metrics", JudgeMetrics),
    ]
    return [rewrite_handler(page, prefix) for page in pages] if prefix else pages


def _templates() -> DictLoader:
    """Return Flower's templates, with a link to our page in their navigation and the work of a task, and ours."""
    folders = (Path(flower.__file__).parent / "templates", _HERE / "templates")
    texts = {path.name: path.read_text(encoding="utf-8") for folder in folders for path in folder.glob("*.html")}
    texts["task.html"] = texts["task.html"].replace(_LIST, f'{_LIST}{{% include "task_work.html" %}}', 1)
    texts["navbar.html"] = texts["navbar.html"].replace("</ul>", f"{_LINK}</ul>", 1)
    return DictLoader(texts)
