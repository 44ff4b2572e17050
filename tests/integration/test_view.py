"""The viewer's server: who may read, who may write, and what its lists hold."""

import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from lrq.config import Settings
from lrq.domain.errors import UsageError
from lrq.domain.records import Item, Reward, Row, Score, Turn
from lrq.ledger import Ledger
from lrq.ledger import items as items_
from lrq.ledger import runs as runs_
from lrq.ledger.schema import items as items_table
from lrq.ledger.schema import tasks
from lrq.reports.charts import run_charts
from lrq.reports.item import document_part, view_item
from lrq.reports.labels import label_agreement, label_candidates
from lrq.reports.listing import Condition, ItemQuery, Range, list_items
from lrq.reports.run_sample import sample_items
from lrq.view.server import serve


@pytest.fixture
def run(ledger: Ledger) -> runs_.Run:
    """Four items of three responses; the rewards of item n are 0, n and 2n, and one item failed."""
    with ledger.write() as tx:
        run = runs_.create_run(tx, "r", {"recipe": "longreward", "settings": {}})
        lines = [(n, Item(id=f"i{n}", context="abcdefgh", question=f"Número {n}\n“x”"), []) for n in range(1, 6)]
        items_.add_items(tx, run.id, lines)
        for n in range(1, 5):
            id_ = items_.find_items(tx, f"i{n}", run.id)[0].id
            sampled = [{"k": k, "text": "x" * (k + 1), "reason": "", "tokens": 1, "finish": "stop"} for k in range(3)]
            items_.add_responses(tx, id_, 0, 0, sampled)
            shared = {"extraction": [{"chunk": [2, 4], "calls": []}]}
            scores = [
                Score(dimension=d, k=k, value=float(n * k), evidence=shared) for d in ("a", "b") for k in range(3)
            ]
            scores.append(Score(dimension="c", k=0, state="unscored", reason="no mark %"))
            items_.add_scores(tx, [(id_, 0, score) for score in scores])
            items_.set_rewards(tx, id_, 0, [Reward(k=k, value=float(n * k)) for k in range(3)])
            row = Row(turns=(Turn(prompt=0, chosen=(0, 2), rejected=(0, 0)),), margin=2.0 * n)
            items_.set_rows(tx, run.id, id_, 0, [row])
        failed = items_table.update().where(items_table.c.key == "i5")
        tx.execute(failed.values(state="failed", reason="too long"))
    return run


def _keys(ledger: Ledger, run: runs_.Run, **query: Any) -> list[str]:
    with ledger.read() as tx:
        return [item["id"] for item in list_items(tx, run, ItemQuery(**query))["items"]]


@pytest.mark.parametrize(
    ("query", "keys"),
    [
        ({}, ["i1", "i2", "i3", "i4", "i5"]),
        ({"descending": True}, ["i5", "i4", "i3", "i2", "i1"]),
        ({"sort": "reward", "descending": True}, ["i4", "i3", "i2", "i1", "i5"]),
        ({"sort": "margin"}, ["i1", "i2", "i3", "i4", "i5"]),
        ({"sort": "a", "descending": True, "limit": 2, "offset": 1}, ["i3", "i2"]),
        ({"conditions": (Condition(name="margin", operator="<", number=5),)}, ["i1", "i2"]),
        ({"conditions": (Condition(name="b", operator=">=", number=3),)}, ["i3", "i4"]),
        ({"ranges": (Range(name="reward", low=7.5, high=9),)}, ["i4"]),
        ({"ranges": (Range(name="a", low=2, high=3),)}, ["i1", "i2", "i3"]),
        ({"conditions": (Condition(name="unscored", operator="=", number=1),)}, ["i1", "i2", "i3", "i4"]),
        ({"text": "NÚMERO 3"}, []),  # letters beyond ASCII are as the databases compare them
        ({"text": "número 3\n“x”".replace("n", "N", 1)}, ["i3"]),
        ({"text": "I4"}, ["i4"]),
        ({"text": "%"}, []),
        ({"state": "failed"}, ["i5"]),
        ({"reason": "mark %"}, ["i1", "i2", "i3", "i4"]),
        ({"reason": "too"}, ["i5"]),
        ({"sort": "nothing of this name"}, ["i1", "i2", "i3", "i4", "i5"]),
    ],
)
def test_items_are_found_by_the_database(
    ledger: Ledger, run: runs_.Run, query: dict[str, Any], keys: list[str]
) -> None:
    """On both databases alike: words, state, reason, figures, order and pages; items without a figure come last."""
    if query.get("text") == "NÚMERO 3" and not ledger.is_sqlite:
        keys = ["i3"]
    assert _keys(ledger, run, **query) == keys


def test_an_item_of_the_list_has_its_figures(ledger: Ledger, run: runs_.Run) -> None:
    """Item 2: rewards 0, 2 and 4; both dimensions equal; one unscored."""
    with ledger.read() as tx:
        item = list_items(tx, run, ItemQuery(text="i2"))["items"][0]
    assert (item["reward"], item["best"], item["worst"], item["margin"]) == (2.0, 4.0, 0.0, 4.0)
    assert (item["disagreement"], item["unscored"], item["responses"]) == (0.0, 1, 3)
    assert item["dimensions"] == {"a": 2.0, "b": 2.0, "c": None}


def test_charts_by_hand(ledger: Ledger, run: runs_.Run) -> None:
    """Twelve rewards 0, n, 2n for n of 1 to 4; dimensions equal the reward, so they agree fully."""
    charts = run_charts(ledger, run)
    assert (charts["items"], charts["of"]) == (5, 5)
    assert charts["reward"]["values"] == 12
    assert charts["reward"]["mean"] == pytest.approx(30 / 12)
    assert (charts["reward"]["low"], charts["reward"]["high"], sum(charts["reward"]["counts"])) == (0.0, 10.0, 12)
    assert charts["agreement"]["names"] == ["a", "b", "reward"]
    assert charts["agreement"]["matrix"][0] == pytest.approx([1.0, 1.0, 1.0])
    assert charts["length"]["correlation"] > 0.5
    assert charts["margin"]["counts"] == [0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0]


def test_a_large_run_is_sampled_evenly(ledger: Ledger, run: runs_.Run) -> None:
    """Two of five items: the first, and one from the middle."""
    with ledger.read() as tx:
        ids, of = sample_items(tx, run, 2)
        first = items_.item_ids(tx, run.id)
    assert (ids, of) == ([first[0], first[2]], 5)


def test_what_scores_share_stands_once(ledger: Ledger, run: runs_.Run) -> None:
    """An extraction that each response's score names belongs to the item; its span has its text."""
    with ledger.read() as tx:
        id_ = items_.item_ids(tx, run.id)[0]
    item = view_item(ledger, id_)
    assert {one["dimension"] for one in item["shared"]} == {"a", "b"}
    assert item["shared"][0]["evidence"] == {"extraction": [{"chunk": [2, 4], "calls": []}]}
    assert item["responses"][0]["scores"][0]["evidence"] == {}
    assert item["excerpts"] == [{"start": 2, "end": 4, "text": "cd"}]
    assert document_part(ledger, id_, 6, 99) == {"start": 6, "length": 8, "text": "gh"}


def test_close_pairs_are_labelled_first(ledger: Ledger, run: runs_.Run) -> None:
    """The widest margin is 8: the pairs of item 1, one apart, say most; of each item there are three."""
    found = label_candidates(ledger, run)
    assert len(found) == 12
    assert found[0].information == pytest.approx(1 - 1 / 8)
    assert found[-1].information == pytest.approx(0)
    assert label_agreement(ledger, run) is None


# ----- the server


@pytest.fixture
async def link(ledger: Ledger, run: runs_.Run) -> AsyncIterator[str]:
    async with serve(ledger, who="ada") as url:
        yield url


async def _ask(link: str, path: str, method: str = "GET", *, enters: bool = True, **more: Any) -> tuple[int, str]:
    base = link.partition("/?")[0]
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as session:
        if enters:
            async with session.get(link, allow_redirects=False) as entered:
                assert entered.status == 303
                assert "HttpOnly" in entered.headers["Set-Cookie"]
                assert "SameSite=Strict" in entered.headers["Set-Cookie"]
        async with session.request(method, base + path, **more) as answer:
            assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
            return answer.status, await answer.text()


async def test_who_has_the_link_may_read(link: str) -> None:
    """The token goes into a cookie that scripts cannot read; without it nothing is shown, not even the page."""
    assert (await _ask(link, "/api/runs"))[0] == 200
    for path in ("/", "/app.js", "/api/runs", "/?token=wrong", "/api/item?id=1"):
        status, words = await _ask(link, path, enters=False)
        assert status == 403
        assert "lrq view" in words


async def test_pages_of_other_sites_are_refused(link: str) -> None:
    """By another name for this machine, or from another origin that writes."""
    assert (await _ask(link, "/api/runs", headers={"Host": "evil.example"}, enters=False))[0] == 403
    label = {"item": 1, "round": 0, "prompt": 0, "left": 0, "right": 1, "choice": "left"}
    asked = {"method": "POST", "json": label, "headers": {"Origin": "https://evil.example"}}
    status, words = await _ask(link, "/api/label?run=r", **asked)
    assert (status, words) == (403, "a page of another site may not write here\n")


async def test_what_is_written_is_checked(link: str) -> None:
    """A label without the token, of an item of no such responses, with another choice or not as JSON: one line each."""
    label = {"item": 1, "round": 0, "prompt": 0, "left": 0, "right": 1, "choice": "left"}
    assert (await _ask(link, "/api/label?run=r", "POST", json=label, enters=False))[0] == 403
    assert (await _ask(link, "/api/label?run=r", "POST", json=label))[0] == 200
    for wrong in ({"right": 9}, {"item": 999}, {"choice": "both"}, {"left": "x"}, {"right": 0}):
        status, words = await _ask(link, "/api/label?run=r", "POST", json=label | wrong)
        assert status == 400, wrong
        assert "error" in words
    assert (await _ask(link, "/api/label?run=r", "POST", data="choice=left"))[0] == 400


async def test_what_is_not_there_is_said(link: str) -> None:
    """A run, an item, a page."""
    assert (await _ask(link, "/api/run?run=none"))[0] == 400
    assert (await _ask(link, "/api/item?id=999"))[0] == 404
    assert (await _ask(link, "/api/items?run=r&where=no"))[0] == 400
    assert (await _ask(link, "/etc/passwd"))[0] == 404


async def test_a_port_that_is_taken_is_one_line(link: str, ledger: Ledger) -> None:
    """It says what to do."""
    port = int(link.partition("/?")[0].rpartition(":")[2])
    with pytest.raises(UsageError, match="choose another --port"):
        async with serve(ledger, port=port):
            pass


def test_the_command_prints_the_link_and_ends_in_order(ledger_settings: Settings, run: runs_.Run) -> None:
    """`lrq view RUN` until SIGTERM; a run that there is not is one line."""
    environment = {"LRQ_HOME": str(ledger_settings.home), "LRQ_DATABASE_URL": ledger_settings.ledger_url()}
    words = [sys.executable, "-c", "from lrq.cli import main; main()", "view"]
    refused = subprocess.run([*words, "none"], env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert "no run named 'none'" in refused.stderr
    with subprocess.Popen([*words, run.name], env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert re.match(r"open http://127\.0\.0\.1:\d+/\?token=[\w-]{20,}#/run/r ", line), line
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0


async def test_an_item_leads_to_its_tasks_in_flower(ledger: Ledger, run: runs_.Run) -> None:
    """To those at work, where `flower_url` says where Flower is."""
    with ledger.write() as tx:
        id_ = items_.find_items(tx, "i2", run.id)[0].id
        task = {"run_id": run.id, "item_id": id_, "queue": "judge.a", "delivery": 2}
        made = tx.execute(tasks.insert().values(**task, name="a", state="running"))
        tx.execute(tasks.insert().values(**task, name="b", state="ready"))
        number = made.inserted_primary_key[0]
    jar = aiohttp.CookieJar(unsafe=True)  # cookies of an address
    async with serve(ledger, flower="http://localhost:5555") as url, aiohttp.ClientSession(cookie_jar=jar) as session:
        async with session.get(url):
            pass
        async with session.get(f"{url.partition('?')[0]}api/item?id={id_}") as answer:
            item = await answer.json()
    assert item["tasks"] == [{"step": "a", "href": f"http://localhost:5555/task/{number}-2"}]
