"""Pages in the machine's own Chromium, headless; where it or playwright is missing these tests are left out."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browsing import Page, serving
from scenes import fill

from lrq.config import Settings
from lrq.ledger import Ledger, open_ledger

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="package")
def chromium() -> Iterator[Any]:
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed: pip install 'lrq[dev]'"
    )
    if CHROMIUM is None:
        pytest.skip("there is no Chromium: apt-get install chromium")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="package")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("view")


@pytest.fixture(scope="package")
def ledger(home: Path) -> Iterator[Ledger]:
    opened = open_ledger(Settings(home=home), create=True)
    yield opened
    opened.close()


@pytest.fixture(scope="package")
def items(ledger: Ledger) -> dict[str, int]:
    """The runs, written once; tests of labels add labels and nothing else."""
    return fill(ledger)


@pytest.fixture(scope="package")
def link(ledger: Ledger, items: dict[str, int]) -> Iterator[str]:
    with serving(ledger, who="ada") as url:
        yield url


@pytest.fixture
def page(chromium: Any, link: str) -> Iterator[Page]:
    """The viewer with its list of runs; at the test's end no error may stand in its console."""
    context = chromium.new_context(viewport={"width": 1280, "height": 800}, locale="en-US")
    shown = Page(context.new_page()).open(link)
    yield shown
    context.close()
    assert shown.errors == []
    assert all(url.startswith((link.partition("?")[0], "data:")) for url in shown.requests)
