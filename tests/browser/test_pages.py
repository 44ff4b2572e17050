"""The viewer in a browser: every page, search, keys, evidence, hostile texts."""

from collections.abc import Mapping
from pathlib import Path

import orjson
import pytest
from browsing import Page
from scenes import FACT, HOSTILE

from lrq.ledger import Ledger
from lrq.ledger import runs as runs_
from lrq.ledger.schema import items as items_table
from lrq.ledger.schema import rewards, runs

Items = Mapping[str, int]


def test_runs_lead_to_their_overview(page: Page) -> None:
    """Each run is a card; its overview has a chart of each dimension, of rewards and of the training."""
    assert page.texts("h2") == ["pairwise", "journals"]
    page.go("#/run/journals")
    assert page.text("h1") == "journals"
    titles = page.texts(".card h3")
    assert {"reward", "completeness", "faithfulness", "helpfulness", "loss", "margin"} <= set(titles)
    assert page.page.locator("svg.chart").count() >= 7
    assert page.page.locator(".heat-table tbody tr").count() == 4
    assert "extraction" in page.text(".plain")


def test_a_bar_opens_the_items_that_it_counts(page: Page) -> None:
    """The worst response of every item has reward 2, but for two items of their own."""
    page.go("#/run/journals")
    before = page.page.evaluate("document.documentElement.dataset.ready")
    page.page.locator(".card", has=page.page.locator("h3", has_text="reward")).first.locator(".picks").nth(2).click()
    page.settle(before)
    assert page.page.input_value("input[type=search]") == "reward:2..2.5"
    assert "60 found" in page.text(".heading")


def test_items_are_searched_filtered_and_sorted(page: Page) -> None:
    """Words and bounds go together; a click on a heading sorts, a second one turns the order round."""
    page.go("#/run/journals/items?q=number 1")
    assert "11 found" in page.text(".heading")
    page.go("#/run/journals/items?q=reward>5.1 reward<5.3")
    assert page.page.locator("tbody tr").count() == 12
    page.go("#/run/journals/items?q=state:failed")
    assert "No item is like this." in page.text()
    page.go("#/run/journals/items?q=ship")
    for first, last in (("ship-59", "6.05"), ("ship-00", "9.00")):
        before = page.page.evaluate("document.documentElement.dataset.ready")
        page.page.click("thead >> text=best")
        page.settle(before)
        assert page.texts("tbody th a")[0] == first
        assert page.texts("tbody tr:first-child td")[1] == last


def test_long_lists_come_in_pages(page: Page) -> None:
    """62 items are two pages of 50."""
    page.go("#/run/journals/items")
    assert page.page.locator("tbody tr").count() == 50
    page.press("n")
    assert page.page.locator("tbody tr").count() == 12
    assert "51 to 62 of 62" in page.text(".pager")


def test_keys_lead_through_a_run(page: Page) -> None:
    """/ searches, j and Enter open, j and k go along the list that was found, Escape leads back to it."""
    page.go("#/run/journals/items")
    page.page.keyboard.press("/")
    page.page.keyboard.type("number 1")
    page.press("Enter")
    page.page.keyboard.press("j")
    page.page.keyboard.press("j")
    page.press("Enter")
    assert page.text("h1") == "ship-10"
    page.press("j")
    assert page.text("h1") == "ship-11"
    page.press("k", "k")
    assert page.text("h1") == "ship-01"
    page.press("Escape")
    assert page.page.input_value("input[type=search]") == "number 1"
    page.page.keyboard.press("?")
    assert "next and previous" in page.text("dialog")


def test_digits_put_responses_beside_each_other(page: Page, items: Items) -> None:
    """Chosen stands left and rejected right; 2 puts the second best on the right, Shift and 3 the worst left."""
    page.go(f"#/run/journals/item/{items['ship-07']}")
    assert page.texts(".column h3 .chip") == ["chosen", "rejected"]
    page.press("2")
    assert "timber" in page.texts(".column .answer")[1]
    page.press("Shift+Digit3")
    assert "cannot tell" in page.texts(".column .answer")[0]
    assert page.texts(".column:first-child mark.only")[0] == "I"


def test_evidence_is_marked_in_the_document(page: Page, items: Items) -> None:
    """A statement has its verdict, the judge's words and its passage, at the right place behind emoji."""
    page.go(f"#/run/journals/item/{items['evidence']}")
    finding = page.page.locator(".column").first.locator(".finding").first
    assert finding.locator(".chip").first.inner_text() == "Fully supported"
    finding.locator("summary", has_text="words").click()
    assert "The passage says so." in finding.inner_text()
    assert page.texts(".column:last-child .missing li") == ["The cargo of Sirius is coal."]
    finding.locator("summary", has_text="passages").click()
    finding.locator(".quote").click()
    page.page.wait_for_selector(".document mark.focus")
    assert "".join(page.texts(".document mark.focus")) == FACT
    calls = page.page.locator(".calls")
    calls.locator("summary").first.click()
    assert "420 ms" in calls.inner_text()
    assert "0.0015" in calls.inner_text()
    assert "extraction" in page.text("section:has(> h2:text('For all responses'))")


def test_a_matrix_is_drawn_once_for_all_responses(page: Page, items: Items) -> None:
    """Of a tournament of three: a table of three by three."""
    page.go(f"#/run/pairwise/item/{items['matrix']}")
    assert page.page.locator(".heat-table").count() == 3  # one of each dimension of the scene
    assert page.page.locator(".heat-table").first.locator("td").all_inner_texts()[:3] == ["0.50", "1.00", "1.00"]


def test_hostile_texts_are_shown_and_do_nothing(page: Page, items: Items) -> None:
    """Markup in a document, question, response, reply, model or name of evidence is read, not run."""
    for place in ("#/run/journals/items?q=script", f"#/run/journals/item/{items['hostile']}"):
        page.go(place)
        assert HOSTILE in page.text()
        page.page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true; })")
    page.page.keyboard.press("d")
    page.page.wait_for_selector(".document:has-text('script')")
    assert page.text(".document").count(HOSTILE) == 3
    assert page.page.evaluate("window.hurt") is None
    assert page.page.locator("main script, main img").count() == 0


def test_both_languages_and_both_themes(page: Page) -> None:
    """l turns the words of the page, t its colours; data stay as they are."""
    page.go("#/run/journals")
    light = page.page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.press("l")
    assert "各维度的一致性" in page.text()
    assert page.page.get_attribute("html", "lang") == "zh"
    assert page.text("h1") == "journals"
    page.press("t", "t")
    assert page.page.evaluate("getComputedStyle(document.body).backgroundColor") != light


def test_what_cannot_be_shown_says_why(page: Page) -> None:
    """An address of a run that there is not."""
    page.go("#/run/nothing")
    assert "no run named 'nothing'" in page.text()
    page.errors.clear()  # the browser notes the status 400 itself


def test_pages_have_no_serious_fault_for_assistive_tools(page: Page, items: Items) -> None:
    """As axe finds them, in both themes: contrast, names, roles, order."""
    axe = pytest.importorskip("axe_playwright_python.base", reason="axe is not installed: pip install 'lrq[dev]'")
    script = axe.AXE_FILE_PATH.read_text(encoding="utf-8")
    places = ["#/", "#/run/journals", "#/run/journals/items", f"#/run/journals/item/{items['evidence']}"]
    places += [f"#/run/pairwise/item/{items['matrix']}", "#/run/journals/label"]
    found = []
    for _ in range(2):
        for place in places:
            page.go(f"{place}")
            page.page.evaluate(script)
            result = page.page.evaluate("axe.run(document, {resultTypes: ['violations']})")
            serious = [one for one in result["violations"] if one["impact"] in {"serious", "critical"}]
            found += [(place, one["id"], one["nodes"][0]["html"][:120]) for one in serious]
        page.go("#/run/journals/items?q=1").press("t", "t")
    assert found == []


def test_a_page_follows_its_run(page: Page, ledger: Ledger) -> None:
    """What changes in the ledger is shown within seconds, and the page stays where it was scrolled to."""
    page.go("#/run/journals")
    page.page.evaluate("scrollTo(0, 400)")
    before = page.page.evaluate("document.documentElement.dataset.ready")
    page.page.wait_for_timeout(3500)  # one look, at which nothing is newer
    assert page.page.evaluate("document.documentElement.dataset.ready") == before
    with ledger.write() as tx:
        run = runs_.get_run(tx, "journals")
        tx.execute(runs.update().where(runs.c.id == run.id).values(reason="a reason that came later"))
    page.settle(before)
    assert "a reason that came later" in page.text()
    assert page.page.evaluate("scrollY") == 400
    with ledger.write() as tx:
        tx.execute(runs.update().where(runs.c.id == run.id).values(reason=run.reason))


def test_evaluations_before_and_after_are_compared(page: Page, ledger: Ledger) -> None:
    """Rewards of 4 and 5 before, 6 and 6 after: 4.5, 6 and a difference of 1.5, of two items both better."""
    with ledger.write() as tx:
        run = runs_.get_run(tx, "journals")
        policies = {"held-before": "/base", "held-after": str(Path("model").resolve())}
        for name, path in policies.items():
            made = runs_.create_run(tx, name, {"recipe": "longreward", "policy": {"path": path}})
            for key, value in (("a", 4.0), ("b", 5.0)) if name == "held-before" else (("a", 6.0), ("b", 6.0)):
                line = {"run_id": made.id, "key": key, "body": '{"question": ""}', "state": "done"}
                item = tx.execute(items_table.insert().values(**line))
                number = item.inserted_primary_key[0]
                tx.execute(rewards.insert().values(item_id=number, round=0, prompt=0, k=0, value=value))
        config = orjson.dumps({**run.config, "policy": {"path": "/base"}}).decode()
        tx.execute(runs.update().where(runs.c.id == run.id).values(config=config))
    page.go("#/run/journals")
    table = page.page.locator("section:has(> h2:text('Before and after'))")
    assert table.locator("tbody td").all_inner_texts() == ["0", "4.50", "6.00", "1.50", "0.52 – 2.48", "2", "0", "2"]
    assert table.locator("tbody th").inner_text() == "held-before → held-after"
