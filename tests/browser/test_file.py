"""The file of `lrq report -o` in a browser: opened from the disk, without a request."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from browsing import Page
from scenes import FACT, HOSTILE

from lrq.ledger import Ledger
from lrq.ledger import runs as runs_
from lrq.view.file import write_page


def test_the_file_shows_what_the_viewer_shows(
    chromium: Any, ledger: Ledger, items: Mapping[str, int], tmp_path: Path
) -> None:
    """Overview, list with search and order, an item with its passage; nothing is asked of anyone, nothing runs."""
    with ledger.read() as tx:
        run = runs_.get_run(tx, "journals")
    path = tmp_path / "journals.html"
    assert write_page(ledger, run, path) == {"items": 62, "of": 62}
    assert "<img" not in path.read_text(encoding="utf-8")
    context = chromium.new_context(offline=True, locale="en-US")
    page = Page(context.new_page()).open(path.as_uri())
    assert page.texts("h2") == ["journals"]
    page.go("#/run/journals")
    assert page.page.locator("svg.chart").count() >= 7
    page.go("#/run/journals/items?q=reward:2..2.5 number 1&sort=best&down=1")
    assert page.texts("tbody th a")[0] == "ship-01"
    page.press("l", "l")
    page.go(f"#/run/journals/item/{items['evidence']}")
    page.page.locator("summary", has_text="passages").first.click()
    page.page.locator(".quote").first.click()
    page.page.wait_for_selector(".document mark.focus")
    assert "".join(page.texts(".document mark.focus")) == FACT
    page.go(f"#/run/journals/item/{items['hostile']}")
    assert HOSTILE in page.text()
    assert page.page.evaluate("window.hurt") is None
    assert page.errors == []
    assert [url for url in page.requests if not url.startswith("data:")] == [path.as_uri()]
    context.close()


def test_a_file_of_a_part_says_so(chromium: Any, ledger: Ledger, items: Mapping[str, int], tmp_path: Path) -> None:
    """With --items 5: five of 62, spread over the run."""
    with ledger.read() as tx:
        run = runs_.get_run(tx, "journals")
    path = tmp_path / "part.html"
    assert write_page(ledger, run, path, most_items=5) == {"items": 5, "of": 62}
    context = chromium.new_context(locale="en-US")
    page = Page(context.new_page()).open(path.as_uri()).go("#/run/journals/items")
    assert "this file holds 5 of 62 items" in page.text()
    assert page.errors == []
    context.close()
