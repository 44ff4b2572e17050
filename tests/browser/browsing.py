"""Pages as tests see them, and the server that they come from."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lrq.ledger import Ledger
from lrq.view.server import serve


class Page:
    """A page that may not write an error into its console, nor ask anything of another host."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.errors: list[str] = []
        self.requests: list[str] = []
        page.on("console", lambda message: self.errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("request", lambda request: self.requests.append(request.url))

    def open(self, url: str) -> "Page":
        self.page.goto(url)
        self.page.wait_for_selector("html[data-ready] h1")
        return self

    def go(self, hash_: str) -> "Page":
        """Follow an address within the page."""
        before = self.page.evaluate("document.documentElement.dataset.ready")
        self.page.evaluate("hash => { location.hash = hash; }", hash_)
        self.settle(before)
        return self

    def press(self, *keys: str) -> "Page":
        """Press keys that lead to another page, each."""
        for key in keys:
            before = self.page.evaluate("document.documentElement.dataset.ready")
            self.page.keyboard.press(key)
            self.settle(before)
        return self

    def settle(self, before: str) -> None:
        self.page.wait_for_function("before => document.documentElement.dataset.ready !== before", arg=before)

    def text(self, selector: str = "main") -> str:
        return str(self.page.inner_text(selector))

    def texts(self, selector: str) -> list[str]:
        return [str(text) for text in self.page.locator(selector).all_inner_texts()]


@contextmanager
def serving(ledger: Ledger, who: str = "") -> Iterator[str]:
    """The viewer on a thread of its own; yields its link."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    context = serve(ledger, who=who)
    url = asyncio.run_coroutine_threadsafe(context.__aenter__(), loop).result(20)
    try:
        yield url
    finally:
        asyncio.run_coroutine_threadsafe(context.__aexit__(None, None, None), loop).result(20)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
