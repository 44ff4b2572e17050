"""Flower's page Judge usage in a browser, while workers work."""

import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from processes import LRQ, PASSWORD, USER, Processes, login, wait_for

from lrq.ledger import runs as runs_
from lrq.ledger.changes import latest_changes, limits_by_lane

pytest.importorskip("flower")

LANE = "judge.default.judge-sim"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, chromium: Any) -> Iterator[Processes]:
    """Workers that judge a long run and a short one."""
    with tempfile.TemporaryDirectory(prefix="lrq") as short:
        processes = Processes(tmp_path_factory.mktemp("flower"))
        try:
            processes.open(Path(short) / "s")
            processes.start([LRQ, "up", "-q", "--only", "judge,aggregator"], quiet=True)
            processes.enqueue("long", 400)
            processes.enqueue("other", 2)
            yield processes
        finally:
            processes.close()


@pytest.fixture(scope="module")
def flower(world: Processes) -> str:
    _, url = world.flower(FLOWER_BASIC_AUTH=f"{USER}:{PASSWORD}", LRQ_VIEWER_URL="http://127.0.0.1:9")
    return url


class Usage:
    """The page, opened."""

    def __init__(self, page: Any, url: str) -> None:
        self.page = page
        self.errors: list[str] = []
        page.on("console", lambda message: self.errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.goto(f"{url}/judge")
        page.wait_for_selector("#judge-usage[data-drawn]")

    def row(self, table: str, first: str) -> Any:
        return self.page.locator(f"#judge-{table} tbody tr", has=self.page.locator("td", has_text=first)).first

    def drawn(self, more: int = 1) -> None:
        """Wait until it was drawn so many times more."""
        before = int(self.page.get_attribute("#judge-usage", "data-drawn"))
        self.page.wait_for_function(
            "wanted => Number(document.getElementById('judge-usage').dataset.drawn) >= wanted", arg=before + more
        )

    def change(self, table: str, first: str, button: str, reason: str, **fields: str) -> None:
        self.row(table, first).get_by_role("button", name=button).click()
        for name, value in fields.items():
            self.page.fill(f"#judge-dialog input[name={name}]", value)
        self.page.fill("#judge-dialog input[name=reason]", reason)
        self.page.click("#judge-dialog button[type=submit]")


@pytest.fixture
def usage(chromium: Any, flower: str) -> Iterator[Usage]:
    context = chromium.new_context(viewport={"width": 1280, "height": 800}, extra_http_headers=login())
    shown = Usage(context.new_page(), flower)
    yield shown
    assert shown.errors == []
    context.close()


def test_curves_move_while_a_run_works(usage: Usage) -> None:
    """Calls, tokens and latency have a line with more points after a while, and their latest value beside it."""
    line = usage.page.locator("[data-curve=calls] .line")
    first = wait_for(lambda: line.get_attribute("d"), "a first point")
    wait_for(lambda: line.get_attribute("d") not in {first, ""}, "the line moves")
    wait_for(lambda: re.search(r"[1-9]", usage.page.inner_text("[data-curve=calls] b")), "calls a minute")
    wait_for(lambda: re.search(r"[1-9]", usage.page.inner_text("[data-curve=latency_ms] b")), "latency")
    wait_for(lambda: re.search(r"[1-9]", usage.page.inner_text("[data-curve=tokens] b")), "tokens")
    assert usage.page.locator("#judge-curves figure").count() == 9


def test_selection_scroll_and_focus_stay(usage: Usage) -> None:
    """Figures change under them: the elements are the same."""
    usage.row("rows", "long").wait_for()
    usage.page.evaluate("""() => {
        const cell = document.querySelector('#judge-rows tbody td');
        getSelection().selectAllChildren(cell);
        scrollTo(0, 300);
        document.getElementById('judge-run').focus();
        window.cell = cell;
    }""")
    usage.drawn(3)
    assert usage.page.evaluate("getSelection().toString()") == "long"
    assert usage.page.evaluate("window.cell.isConnected")
    assert usage.page.evaluate("scrollY") == 300
    assert usage.page.evaluate("document.activeElement.id") == "judge-run"


def test_columns_fit_1280_pixels(usage: Usage) -> None:
    usage.row("rows", "long").wait_for()
    widths = "[document.documentElement, ...document.querySelectorAll('.judge-table')].map(each => each.scrollWidth)"
    assert max(usage.page.evaluate(widths)) <= 1280
    fits = "each => each.scrollWidth <= each.parentElement.clientWidth"
    assert usage.page.evaluate(f"[...document.querySelectorAll('.judge-table')].every({fits})")


def test_a_run_is_chosen(usage: Usage) -> None:
    """It stands in the address, and other runs' figures leave."""
    usage.row("rows", "other").wait_for()
    usage.page.select_option("#judge-run", "other")
    usage.page.wait_for_function(
        "() => ![...document.querySelectorAll('#judge-rows td')].some(each => each.textContent === 'long')"
    )
    assert usage.page.url.endswith("/judge?run=other")
    assert usage.page.locator("#judge-runs tbody tr").count() == 1
    usage.page.reload()
    usage.page.wait_for_selector("#judge-usage[data-drawn]")
    assert usage.page.input_value("#judge-run") == "other"


def test_a_task_names_its_item_and_leads_to_it(usage: Usage, flower: str) -> None:
    """On the page, on the task's own, and in Flower's list; the item's page is the viewer's."""
    task = usage.row("tasks", "long-")
    task.wait_for()
    key = task.locator("td").first.inner_text()
    assert re.match(r"http://127\.0\.0\.1:9/#/run/long/item/\d+$", task.locator("a").first.get_attribute("href"))
    link = task.locator("a").last.get_attribute("href")
    usage.page.goto(f"{flower}{link}")
    wait_for(lambda: usage.page.goto(f"{flower}{link}").status == 200, "Flower hears of the task")
    words = usage.page.inner_text("#task-work")
    assert f"item {key}" in words
    assert "2 responses" in words
    assert usage.page.locator("#task-work a").count() == 2
    usage.errors.clear()  # the browser notes the status 404 before Flower has heard of it
    usage.page.goto(f"{flower}/tasks")
    usage.page.wait_for_selector("#tasks-table td:has-text('item long-')")


def test_a_run_is_paused_resumed_and_bounded(usage: Usage, world: Processes) -> None:
    """With author and reason, in the ledger and on the page; a limit reaches the workers."""
    ledger = world.ledger()

    def run() -> runs_.Run:
        with ledger.read() as tx:
            return runs_.get_run(tx, "long")

    usage.change("runs", "long", "Pause", "lunch")
    wait_for(lambda: run().state == "paused", "the pause")
    assert run().reason == "paused by ada: lunch"
    usage.page.wait_for_selector("#judge-runs td:has-text('paused by ada: lunch')")
    usage.change("runs", "long", "Budget", "more is too much", max_tokens="900000000")
    wait_for(lambda: run().max_tokens == 900_000_000, "the budget")
    usage.page.wait_for_selector("#judge-dialog:not([open])", state="attached")
    usage.change("endpoints", LANE, "Limits", "the evening is busy", concurrency="3")
    usage.page.wait_for_selector("#judge-changes td:has-text('the evening is busy')")
    usage.change("runs", "long", "Resume", "back")
    wait_for(lambda: run().state == "active", "the run resumes")
    usage.page.wait_for_selector("#judge-endpoints td:has-text('of 3')")
    with ledger.read() as tx:
        assert limits_by_lane(tx) == {LANE: {"concurrency": 3}}
        changes = latest_changes(tx)
    assert [(each.what, each.who, each.reason) for each in changes] == [
        ("resume", "ada", "back"),
        ("limits", "ada", "the evening is busy"),
        ("budget", "ada", "more is too much"),
        ("pause", "ada", "lunch"),
    ]
    ledger.close()


def test_hostile_names_are_shown_and_do_nothing(world: Processes, usage: Usage) -> None:
    """Names of runs and reasons are texts."""
    hostile = "<img src=x onerror=window.hurt=1>"
    ledger = world.ledger()
    with ledger.write() as tx:
        run = runs_.create_run(tx, hostile, {"recipe": "longreward"})
        runs_.halt(tx, run.id, state="paused", by="user", reason=hostile)
    ledger.close()
    usage.page.wait_for_selector(f"#judge-runs td:text-is('paused: {hostile}')")
    assert usage.page.evaluate("window.hurt") is None
    assert usage.page.locator("#judge-usage img").count() == 0


def test_a_change_that_cannot_be_made_says_why(usage: Usage) -> None:
    """The dialog stays open with the reason; the browser notes the status itself."""
    usage.change("runs", "long", "Budget", "typo", max_tokens="many")
    usage.page.wait_for_selector("#judge-refused:has-text('no number of tokens')")
    assert usage.page.evaluate("document.getElementById('judge-dialog').open")
    usage.errors.clear()


def test_nobody_changes_anything_without_login_and_token(
    world: Processes, usage: Usage, flower: str, chromium: Any
) -> None:
    """A login alone is not enough: a browser sends it with any page's requests. Without one there are no buttons."""
    change = {"what": "pause", "run": "long", "reason": "attack"}
    options = "{method: 'POST', body: JSON.stringify(change)}"
    post = f"change => fetch('/api/judge/change', {options}).then(answer => answer.status)"
    assert usage.page.evaluate(post, change) == 403
    usage.errors.clear()
    _, open_url = world.flower()
    context = chromium.new_context()
    page = Usage(context.new_page(), open_url)
    page.row("runs", "long").wait_for()
    assert page.page.locator("#judge-runs button").count() == 0
    token = page.page.get_attribute("#judge-usage", "data-xsrf")
    guarded = post.replace("body:", f"headers: {{'X-XSRFToken': '{token}'}}, body:")
    assert page.page.evaluate(guarded, change) == 403
    context.close()


def test_it_says_when_flower_or_the_ledger_is_away(world: Processes, chromium: Any) -> None:
    """The figures stay, with a line that tells from when they are."""
    process, url = world.flower()
    context = chromium.new_context()
    page = Usage(context.new_page(), url)
    page.row("runs", "long").wait_for()
    process.terminate()
    process.wait()
    page.page.wait_for_selector("#judge-away:has-text('Flower does not answer')")
    assert "the figures are of" in page.page.inner_text("#judge-away")
    assert page.row("runs", "long").count() == 1
    context.close()


def test_the_page_has_no_serious_fault_for_assistive_tools(usage: Usage) -> None:
    """As axe finds them in what is ours; Flower's own frame is its own."""
    axe = pytest.importorskip("axe_playwright_python.base", reason="axe is not installed: pip install 'lrq[dev]'")
    usage.row("rows", "long").wait_for()
    usage.page.evaluate(axe.AXE_FILE_PATH.read_text(encoding="utf-8"))
    result = usage.page.evaluate("axe.run('#judge-usage', {resultTypes: ['violations']})")
    serious = [each for each in result["violations"] if each["impact"] in {"serious", "critical"}]
    assert [(each["id"], each["nodes"][0]["html"][:150]) for each in serious] == []
