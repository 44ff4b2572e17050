"""How long the viewer's pages and its file take: `python benchmarks/viewer.py [--items 1000]`.

Writes a run of ten responses and four dimensions an item, each score with a call and faithfulness with statements, and
opens its pages in the machine's Chromium: seconds from the address to the page with its data, and of them the server's
CPU seconds. Prints JSON. Needs lrq[dev].
"""

import argparse
import asyncio
import json
import os
import random
import shutil
import tempfile
import time
from pathlib import Path

from playwright.async_api import Browser, async_playwright

from lrq.calls.replies import encode
from lrq.config import Settings
from lrq.domain.records import Choice, Item, Reward, Row, Score, Turn
from lrq.ledger import Ledger, Transaction, open_ledger
from lrq.ledger import items as items_
from lrq.ledger import runs as runs_
from lrq.ledger.schema import calls
from lrq.ledger.schema import items as items_table
from lrq.view.file import write_page
from lrq.view.server import serve

DIMENSIONS = ("completeness", "faithfulness", "helpfulness", "logicality")
RESPONSES = 10
SENTENCES = (
    "The hull of Heron is elm. ",
    "Rain fell on the quay. ",
    "The cargo of Sirius is coal. ",
    "The fog bell rang. ",
)
READY = "html[data-ready] h1"


def write_run(ledger: Ledger, count: int) -> None:
    """Write the run `bench` of so many items, documents of 6,000 characters."""
    rng = random.Random(1)
    with ledger.write() as tx:
        run = runs_.create_run(tx, "bench", {"recipe": "longreward", "settings": {}}).id
    for start in range(0, count, 100):
        with ledger.write() as tx:
            for number in range(start, min(start + 100, count)):
                write_item(tx, run, number, rng)


def write_item(tx: Transaction, run: int, number: int, rng: random.Random) -> None:
    document = f"Journal {number}. " + "".join(rng.choices(SENTENCES, k=240))
    item = Item(id=f"item-{number:06d}", context=document, question=f"What is the cargo of ship {number}?")
    texts = [(k, "".join(rng.choices(SENTENCES, k=rng.randint(1, 12)))) for k in range(RESPONSES)]
    items_.add_items(tx, run, [(number + 1, item, texts)])
    id_ = int(items_.find_items(tx, item.id, run)[0].id)
    rewards, scores, bought = [], [], []
    for k, _ in texts:
        values = [float(rng.randint(1, 10)) for _ in DIMENSIONS]
        rewards.append(Reward(k=k, value=sum(values) / len(values)))
        for name, value in zip(DIMENSIONS, values, strict=True):
            key = f"{number}-{k}-{name}"
            reply = encode([Choice(text=f"It is so. [[{value:.0f}]]")])
            row = {"key": key, "run_id": run, "item_id": id_, "role": "judge", "endpoint": "default", "model": "m"}
            row |= {"step": name, "dimension": name, "kind": name, "state": "done", "owner": "", "reply": reply}
            row |= {"cost": 1500, "latency_ms": 420, "prompt_tokens": 900, "completion_tokens": 20}
            bought.append({**row, "claimed_at": 1.0, "settled_at": 2.0})
            statements = [
                {"text": one, "mark": "Fully supported", "value": 1.0, "passages": [[0, 500]], "calls": [key]}
                for one in (SENTENCES if name == "faithfulness" else ())
            ]
            evidence = {"calls": [key], "statements": statements} if statements else {"calls": [key]}
            scores.append((id_, 0, Score(dimension=name, k=k, value=value, evidence=evidence)))
    tx.execute(calls.insert(), bought)
    items_.add_scores(tx, scores)
    items_.set_rewards(tx, id_, 0, rewards)
    ordered = sorted(rewards, key=lambda one: one.value or 0)
    turn = Turn(prompt=0, chosen=(0, ordered[-1].k), rejected=(0, ordered[0].k))
    margin = (ordered[-1].value or 0) - (ordered[0].value or 0)
    items_.set_rows(tx, run, id_, 0, [Row(turns=(turn,), margin=margin)])
    tx.execute(items_table.update().where(items_table.c.id == id_).values(state="done"))


async def opened(browser: Browser, address: str) -> tuple[float, float]:
    """Return the seconds until a page shows its data, in a new window, and the CPU seconds of the server for it."""
    context = await browser.new_context(viewport={"width": 1280, "height": 800})
    page = await context.new_page()
    began, worked = time.perf_counter(), time.process_time()
    await page.goto(address)
    await page.wait_for_selector(READY, timeout=300_000)
    took = round(time.perf_counter() - began, 2), round(time.process_time() - worked, 2)
    await context.close()
    return took


async def measure(home: Path, count: int) -> dict[str, object]:
    """Return the seconds of each page, and of writing and opening the file."""
    ledger = open_ledger(Settings(home=home), create=True)
    write_run(ledger, count)
    with ledger.read() as tx:
        run = runs_.get_run(tx, "bench")
    pages = {
        "overview": "#/run/bench",
        "overview, again": "#/run/bench",
        "items": "#/run/bench/items",
        "items by margin": "#/run/bench/items?sort=margin",
        "items by a dimension": "#/run/bench/items?sort=faithfulness",
        "items by disagreement": "#/run/bench/items?sort=disagreement",
        "items with a word": "#/run/bench/items?q=000007",
        "item": "#/run/bench/item/7",
    }
    figures: dict[str, object] = {"items": count, "ledger_mb": round((home / "ledger.db").stat().st_size / 1e6, 1)}
    path = shutil.which("chromium") or shutil.which("google-chrome")
    async with async_playwright() as driver:
        browser = await driver.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        async with serve(ledger) as link:
            figures["seconds"] = {name: await opened(browser, f"{link}{place}") for name, place in pages.items()}
        began, worked = time.perf_counter(), time.process_time()
        file = home / "bench.html"
        await asyncio.to_thread(write_page, ledger, run, file)
        figures["file_written"] = round(time.perf_counter() - began, 2), round(time.process_time() - worked, 2)
        figures["file_mb"] = round(file.stat().st_size / 1e6, 2)
        figures["file_opened"] = await opened(browser, file.as_uri())
        await browser.close()
    ledger.close()
    return figures | {"load": os.getloadavg()[0]}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=1000)
    with tempfile.TemporaryDirectory(prefix="lrq") as folder:
        print(json.dumps(asyncio.run(measure(Path(folder), parser.parse_args().items)), indent=2))
