"""The viewer's server: its pages, and the ledger as JSON. It listens on the loopback alone."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import sqlalchemy as sa
from aiohttp import web

from lrq.domain.errors import LrqError, UsageError
from lrq.ledger import Ledger
from lrq.ledger import runs as runs_
from lrq.ledger.labels import Label, add_label, remove_label
from lrq.ledger.work import tasks_of_item
from lrq.reports.charts import run_charts
from lrq.reports.item import document_part, view_item
from lrq.reports.labels import Candidate, label_agreement, label_candidates, next_pair
from lrq.reports.listing import PAGE, ItemQuery, find_items, list_items, read_query
from lrq.reports.run import list_runs, summary
from lrq.view.access import guard, new_token
from lrq.view.cache import Cache

STATIC = Path(__file__).parent / "static"
MODULES = tuple(sorted(path.name for path in STATIC.iterdir() if path.suffix in {".js", ".css"}))
_TYPES = {".js": "text/javascript", ".css": "text/css", ".html": "text/html"}
_MOST_BODY = 64 * 1024  # bytes of a label


class Viewer:
    """What the pages ask for.

    Args:
        who: labels; where it is empty nothing can be written.
        flower: where Flower is reached; items link to their tasks there.
    """

    def __init__(self, ledger: Ledger, *, who: str = "", flower: str = "") -> None:
        self._ledger, self._who, self._flower = ledger, who, flower
        self._candidates: dict[str, Sequence[Candidate]] = {}  # by run: weighed once, then worked off
        self._cache = Cache()

    def app(self, token: str) -> web.Application:
        """Return the application that answers to who has the token."""
        app = web.Application(middlewares=[guard(token)], client_max_size=_MOST_BODY)
        app.router.add_get("/", partial(self._file, name="index.html"))
        for name in MODULES:
            app.router.add_get(f"/{name}", partial(self._file, name=name))
        reads: dict[str, Callable[[web.Request], Any]] = {
            "about": self._about,
            "runs": self._runs,
            "run": self._run,
            "charts": self._charts,
            "stamp": self._stamp,
            "items": self._items,
            "item": self._item,
            "document": self._document,
            "label": self._label,
            "agreement": self._agreement,
        }
        for name, read in reads.items():
            app.router.add_get(f"/api/{name}", answering(read))
        app.router.add_post("/api/label", answering(self._add_label))
        app.router.add_delete("/api/label", answering(self._remove_label))
        return app

    async def _file(self, _request: web.Request, *, name: str) -> web.Response:
        kind = _TYPES[Path(name).suffix]
        return web.Response(body=(STATIC / name).read_bytes(), content_type=kind, charset="utf-8")

    def _about(self, _request: web.Request) -> dict[str, Any]:
        return {"who": self._who, "ledger": self._ledger.place}

    def _runs(self, _request: web.Request) -> list[dict[str, Any]]:
        return list_runs(self._ledger)

    def _run(self, request: web.Request) -> dict[str, Any]:
        return self._kept("run", self._find(request), lambda run: summary(self._ledger, run))

    def _charts(self, request: web.Request) -> dict[str, Any]:
        return self._kept("charts", self._find(request), lambda run: run_charts(self._ledger, run))

    def _kept(self, what: str, run: runs_.Run, make: Callable[[runs_.Run], dict[str, Any]]) -> dict[str, Any]:
        return dict(self._cache.get((what, run.id), self._stamp_of(run), lambda: make(run)))

    def _stamp(self, request: web.Request) -> dict[str, Any]:
        """Answer with what changes whenever a page of a run, or of all runs, would."""
        with self._ledger.read() as tx:
            name = request.query.get("run", "")
            shown = [runs_.get_run(tx, name)] if name else runs_.all_runs(tx)
        is_active = any(run.state == "active" for run in shown)
        return {"stamp": "\n".join(map(self._stamp_of, shown)), "is_active": is_active}

    def _stamp_of(self, run: runs_.Run) -> str:
        with self._ledger.read() as tx:
            usage = runs_.usage_of(tx, run.id)
        calls = sum(row.calls + row.reused + row.failed for row in usage)
        facts = (run.name, run.state, run.reason, run.round, run.open_items, run.series, run.spent_cost, calls)
        return " ".join(map(str, facts))

    def _items(self, request: web.Request) -> dict[str, Any]:
        run, query = self._find(request), read_query(request.query)
        with self._ledger.read() as tx:
            return list_items(tx, run, query, self._matching(run, query) if query.is_costly else None)

    def _matching(self, run: runs_.Run, query: ItemQuery) -> Sequence[int]:
        """Find a query's items once for all its pages."""

        def find() -> list[int]:
            with self._ledger.read() as tx:
                return find_items(tx, run, query)

        ids: Sequence[int] = self._cache.get((run.id, replace(query, offset=0, limit=PAGE)), self._stamp_of(run), find)
        return ids

    def _item(self, request: web.Request) -> dict[str, Any]:
        number = number_of(request.query.get("id"))
        with self._ledger.read() as tx:
            tasks = tasks_of_item(tx, number) if self._flower else []
        at_work = [{"step": task.step, "href": f"{self._flower}/task/{task.id}"} for task in tasks]
        return {**view_item(self._ledger, number), "tasks": at_work}

    def _document(self, request: web.Request) -> dict[str, Any]:
        id_, start, end = (number_of(request.query.get(name)) for name in ("id", "start", "end"))
        return document_part(self._ledger, id_, start, end)

    def _label(self, request: web.Request) -> dict[str, Any]:
        run = self._find(request)
        if run.name not in self._candidates:
            self._candidates[run.name] = label_candidates(self._ledger, run)
        skipped = request.query.get("skipped", "").split(",")
        return next_pair(self._ledger, run, self._candidates[run.name], self._who, skipped)

    def _agreement(self, request: web.Request) -> dict[str, Any]:
        return label_agreement(self._ledger, self._find(request)) or {"labels": 0}

    def _add_label(self, request: web.Request, body: Mapping[str, Any]) -> dict[str, Any]:
        run, label = self._find(request), self._read_label(body)
        with self._ledger.write() as tx:
            add_label(tx, run.id, label)
        return {"kept": True}

    def _remove_label(self, request: web.Request, body: Mapping[str, Any]) -> dict[str, Any]:
        run, label = self._find(request), self._read_label(body)
        with self._ledger.write() as tx:
            return {"removed": remove_label(tx, run.id, label)}

    def _read_label(self, body: Mapping[str, Any]) -> Label:
        if not self._who:
            raise web.HTTPForbidden(reason="this viewer only reads; `lrq label RUN` takes labels")
        numbers = {name: number_of(body.get(name)) for name in ("item", "round", "prompt", "left", "right")}
        return Label(**numbers, choice=str(body.get("choice", "")), who=self._who)

    def _find(self, request: web.Request) -> runs_.Run:
        with self._ledger.read() as tx:
            return runs_.get_run(tx, request.query.get("run", ""))


def answering(ask: Callable[..., Any]) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """Return the handler that asks the ledger in a thread and answers with JSON, or with a line that says why not.

    `ask` gets the request and, of one that writes, the object that it brings.
    """

    async def handle(request: web.Request) -> web.StreamResponse:
        try:
            arguments = [await _body(request)] if request.method in {"POST", "DELETE"} else []
            facts = await asyncio.to_thread(ask, request, *arguments)
        except UsageError as wrong:
            return web.json_response({"error": str(wrong)}, status=400)
        except sa.exc.NoResultFound:
            return web.json_response({"error": "there is no such item"}, status=404)
        except (LrqError, sa.exc.DBAPIError) as wrong:
            return web.json_response({"error": f"the ledger does not answer: {wrong}"}, status=503)
        text = orjson.dumps(facts, option=orjson.OPT_NON_STR_KEYS)
        answer = web.Response(body=text, content_type="application/json")
        answer.enable_compression()
        return answer

    return handle


async def _body(request: web.Request) -> dict[str, Any]:
    """Read the JSON object of a write; a form of another site can send none."""
    if request.content_type != "application/json":
        raise UsageError("what is written here comes as JSON")
    try:
        body = orjson.loads(await request.read())
    except orjson.JSONDecodeError:
        body = None
    if not isinstance(body, dict):
        raise UsageError("what is written here is a JSON object")
    return body


def number_of(value: Any) -> int:
    """Read a whole number that a page sends as `value`. Raises UsageError."""
    if isinstance(value, bool) or not str(value).isdecimal():
        raise UsageError(f"{value!r} is no number")
    return int(value)


@asynccontextmanager
async def serve(ledger: Ledger, *, port: int = 0, who: str = "", flower: str = "") -> AsyncIterator[str]:
    """Serve until the context ends; yield the URL, token included. Raises UsageError where `port` is taken."""
    token = new_token()
    runner = web.AppRunner(Viewer(ledger, who=who, flower=flower).app(token), access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", port)
        try:
            await site.start()
        except OSError as error:
            raise UsageError(f"cannot listen on port {port} ({error.strerror}); choose another --port") from None
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/?token={token}"
    finally:
        await runner.cleanup()
