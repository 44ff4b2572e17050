"""Labels in a browser: keys, the ledger, who may write."""

from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from browsing import Page, serving

from lrq.ledger import Ledger
from lrq.ledger import runs as runs_
from lrq.ledger.schema import labels
from lrq.reports.labels import label_agreement, label_lines


@pytest.fixture(autouse=True)
def _without_labels(ledger: Ledger) -> Iterator[None]:
    yield
    with ledger.write() as tx:
        tx.execute(labels.delete())


def _label(page: Page, key: str) -> None:
    """Press a key, and wait for the next pair."""
    before = page.page.get_attribute("html", "data-pair")
    page.page.keyboard.press(key)
    page.page.wait_for_function("before => document.documentElement.dataset.pair !== before", arg=before)


def _stored(ledger: Ledger) -> list[sa.Row[Any]]:
    with ledger.read() as tx:
        return list(tx.execute(sa.select(labels).order_by(labels.c.id)))


def test_labels_arrive_in_the_ledger(page: Page, ledger: Ledger) -> None:
    """One key each; a skipped pair leaves none; who and when stand with each, and the order is hidden."""
    page.go("#/run/journals/label")
    assert "ada: 0 labelled" in page.text()
    assert not {"chosen", "rejected"} & set(page.text().split())
    for key in ("1", "2", "0", " "):
        _label(page, key)
    stored = _stored(ledger)
    assert [row.choice for row in stored] == ["left", "right", "tie"]
    assert {row.who for row in stored} == {"ada"}
    assert all(row.at > 1e9 for row in stored)
    assert "ada: 3 labelled" in page.text()


def test_a_label_is_taken_back(page: Page, ledger: Ledger) -> None:
    """u removes the last one, and the pair comes again."""
    page.go("#/run/journals/label")
    first = page.page.get_attribute("html", "data-pair")
    _label(page, "1")
    _label(page, "u")
    assert _stored(ledger) == []
    assert page.page.get_attribute("html", "data-pair") == first


def test_rewards_are_compared_with_labels(page: Page, ledger: Ledger) -> None:
    """Whoever always prefers the longer answer of the scene agrees with its rewards; lines have the rewards beside."""
    page.go("#/run/journals/label")
    for _ in range(6):
        left, right = page.texts(".column .answer")
        _label(page, "1" if len(left) > len(right) else "2")
    with ledger.read() as tx:
        run = runs_.get_run(tx, "journals")
    lines = list(label_lines(ledger, run))
    agreeing = [(one["left_reward"] > one["right_reward"]) == (one["choice"] == "left") for one in lines]
    facts = label_agreement(ledger, run)
    assert facts is not None
    assert facts["labels"] == facts["decided"] == 6
    assert facts["agree"] == sum(agreeing) / 6
    assert page.go("#/run/journals").text().count("Agreement with people") == 1


def test_a_viewer_that_only_reads_takes_no_label(chromium: Any, ledger: Ledger, items: dict[str, int]) -> None:
    """`lrq view` says which command does."""
    with serving(ledger) as link:
        context = chromium.new_context()
        page = Page(context.new_page()).open(link).go("#/run/journals/label")
        assert "`lrq label RUN` takes labels" in page.text()
        options = "{method: 'POST', body: '{}', headers: {'Content-Type': 'application/json'}}"
        asked = f"fetch('api/label?run=journals', {options}).then(answer => answer.status)"
        assert page.page.evaluate(asked) == 403
        context.close()
