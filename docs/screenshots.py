"""Take the pictures of the documentation: `python docs/screenshots.py [viewer] [work]`.

Journals of the examples are judged by judge-sim in a temporary LRQ_HOME; the machine's Chromium shows the run, and
Flower while another one works. Needs lrq[dev,monitor], Redis, Chromium and a Chinese font
(apt-get install chromium fonts-wqy-microhei).
"""

import asyncio
import io
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from PIL import Image
from playwright.async_api import Browser, async_playwright
from rich.console import Console

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "examples"))

import make_dataset  # noqa: E402

from lrq.cli.dashboard import dashboard  # noqa: E402
from lrq.config import Settings  # noqa: E402
from lrq.ledger import open_ledger, runs  # noqa: E402
from lrq.queue.broker import find_server  # noqa: E402
from lrq.reports.progress import progress_of  # noqa: E402
from lrq.sim.options import Options  # noqa: E402
from lrq.sim.server import serve as serve_judge  # noqa: E402
from lrq.view.server import serve  # noqa: E402

FOLDER = ROOT / "docs" / "images"
SIZE = {"width": 1280, "height": 800}
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
RUN = "journals"
COLOURS = 255  # of a picture: they stay small
PORT = 5599  # of Flower, while its picture is taken
RPM = 1500  # of the run at work: it lasts long enough for curves


def write_dataset(path: Path, seed: int = 4) -> None:
    """Write 60 English journals with ten responses each."""
    rng = random.Random(seed)
    lines = [
        dict(make_dataset.journal_item(rng, f"journal-{n:02d}", make_dataset.LANGUAGES[0], 6000, 24, 10))
        for n in range(1, 61)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


async def judge(home: Path) -> None:
    """Run the journals against a judge-sim of our own."""
    write_dataset(home / f"{RUN}.jsonl")
    lrq = shutil.which("lrq", path=str(Path(sys.executable).parent)) or "lrq"
    async with serve_judge(Options(port=0, latency_ms=80, jitter_ms=60, faults={"unreadable": 0.03})) as running:
        env = {**os.environ, "LRQ_HOME": str(home), "LRQ_JUDGE_URL": running.url, "LRQ_JUDGE_MODEL": "judge-sim"}
        words = ["run", home / f"{RUN}.jsonl", "--no-train", "--price", "2.5,10,0.25"]
        process = await asyncio.create_subprocess_exec(lrq, *map(str, words), env=env, stdout=subprocess.DEVNULL)
        if await process.wait():
            raise SystemExit("the run of the journals failed")


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    path = shutil.which("chromium") or shutil.which("google-chrome")
    async with async_playwright() as driver:
        browser = await driver.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield browser
        await browser.close()


async def shoot(browser: Browser, link: str, theme: str, name: str, place: str, *scripts: str) -> None:
    """Take one picture; the scripts run before, in the page, one after the other."""
    context = await browser.new_context(viewport=SIZE, color_scheme=theme, locale="en-US")
    page = await context.new_page()
    await page.goto(f"{link}{place}")
    await page.wait_for_selector("html[data-ready] h1")
    for script in scripts:
        await page.evaluate(script)
        await page.wait_for_timeout(600)
    save(name, await page.screenshot())
    await context.close()


def save(name: str, png: bytes) -> None:
    """Write a picture as small as it gets."""
    path = FOLDER / f"{name}.png"
    picture = Image.open(io.BytesIO(png))
    picture.convert("RGB").quantize(COLOURS, method=Image.Quantize.MAXCOVERAGE).save(path, optimize=True)
    print(f"{path.relative_to(ROOT)}: {path.stat().st_size // 1000} kB")


# The response with the least faithful statements comes to the right.
LEAST_FAITHFUL = """
const value = (row) => Number(row.cells[3].textContent) || 99;
const rows = [...document.querySelectorAll('.responses tbody tr')];
rows.sort((a, b) => value(a) - value(b))[0].querySelector('.place:last-child').click();
"""
# A finding that is borne out in part, its passage shown in the document.
EVIDENCE = """
const finding = [...document.querySelectorAll('.column:last-child .finding')]
  .filter((one) => one.querySelector('.quote')).sort((a, b) => b.matches('.half') - a.matches('.half'))[0];
const quotes = [...finding.querySelectorAll('.quote')];
const words = finding.querySelector('.finding-text').innerText.match(/[A-Z]\\w+/g).slice(1);
const rank = (quote) => words.filter((word) => quote.textContent.includes(word)).length;
quotes.sort((a, b) => rank(b) - rank(a))[0].click();
document.querySelector('.columns').scrollIntoView();
window.scrollBy(0, -112);
"""


async def shoot_viewer(home: Path) -> None:
    """Take the pictures of the viewer, of a run that is done."""
    await judge(home)
    ledger = open_ledger(Settings(home=home))
    async with serve(ledger, who="ada") as link, chromium() as browser:
        await shoot(browser, link, "light", "overview-light", f"#/run/{RUN}")
        await shoot(browser, link, "dark", "overview-dark", f"#/run/{RUN}")
        await shoot(browser, link, "light", "items-light", f"#/run/{RUN}/items?sort=margin")
        await shoot(browser, link, "light", "item-light", f"#/run/{RUN}/item/3", LEAST_FAITHFUL, EVIDENCE)
        await shoot(browser, link, "dark", "item-dark", f"#/run/{RUN}/item/3", LEAST_FAITHFUL, EVIDENCE)
        await shoot(browser, link, "light", "label-light", f"#/run/{RUN}/label")
    ledger.close()


async def shoot_work(home: Path) -> None:
    """Take the pictures of Flower and of the terminal, while a run works."""
    socket = home / "redis.sock"
    write_dataset(home / "work.jsonl", seed=5)
    lrq = shutil.which("lrq", path=str(Path(sys.executable).parent)) or "lrq"
    faults = {"unreadable": 0.03, "500": 0.01}
    async with (
        serve_judge(Options(port=0, latency_ms=150, jitter_ms=80, faults=faults)) as running,
        chromium() as browser,
    ):
        env = {**os.environ, "LRQ_HOME": str(home), "LRQ_REDIS_URL": f"unix://{socket}", "FLOWER_BASIC_AUTH": "ada:ada"}
        env |= {"LRQ_JUDGE_URL": running.url, "LRQ_JUDGE_MODEL": "judge-sim", "LRQ_JUDGE_RPM": str(RPM)}
        started = [await start([find_server().path, "--port", "0", "--unixsocket", str(socket), "--save", ""], env)]
        try:
            started.append(await start([lrq, "flower", "--port", str(PORT)], env))
            words = ["run", str(home / "work.jsonl"), "--no-train", "--price", "2.5,10,0.25", "--max-cost", "50"]
            started.append(await start([lrq, *words], env))
            await half_done(home)
            credentials = {"username": "ada", "password": "ada"}
            context = await browser.new_context(viewport=SIZE, http_credentials=credentials)
            page = await context.new_page()
            await page.goto(f"http://127.0.0.1:{PORT}/judge")
            await page.wait_for_selector("#judge-rows td.n")
            save("judge-usage", await page.screenshot())
            await asyncio.to_thread(draw_terminal, home)
        finally:
            for process in reversed(started):
                if process.returncode is None:
                    process.terminate()
                await process.wait()


async def half_done(home: Path) -> None:
    """Wait until half of the items of the run at work are at their end."""
    ledger = open_ledger(Settings(home=home))
    share = 0.0
    while share < 0.5:
        await asyncio.sleep(1)
        with ledger.read() as tx:
            found = runs.find_run(tx, "work")
        if found is not None:
            progress = progress_of(ledger, found)
            share = progress["ended"] / max(1, progress["items"])
    ledger.close()


async def start(argv: list[str], env: dict[str, str]) -> asyncio.subprocess.Process:
    """Start a process that says nothing here."""
    quiet = asyncio.subprocess.DEVNULL
    errors = None if "LRQ_DEBUG" in env else quiet
    return await asyncio.create_subprocess_exec(*argv, env=env, stdout=quiet, stderr=errors)


def draw_terminal(home: Path) -> None:
    """Write what `lrq run` shows on a terminal of 80 columns as a drawing, without fonts from elsewhere."""
    ledger = open_ledger(Settings(home=home))
    with ledger.read() as tx:
        run = runs.get_run(tx, "work")
    console = Console(width=80, record=True, file=io.StringIO(), force_terminal=True)
    console.print(dashboard(progress_of(ledger, run)))
    ledger.close()
    path = FOLDER / "terminal.svg"
    drawing = console.export_svg(title="lrq run work.jsonl --max-cost 50")
    path.write_text(re.sub(r"@font-face \{.*?\}\s*", "", drawing, flags=re.DOTALL), encoding="utf-8")
    print(f"{path.relative_to(ROOT)}: {path.stat().st_size // 1000} kB")


async def take_pictures(home: Path, wanted: list[str]) -> None:
    """Take all pictures, or those of the viewer or of work alone."""
    FOLDER.mkdir(exist_ok=True)
    if "viewer" in wanted or not wanted:
        await shoot_viewer(home)
    if "work" in wanted or not wanted:
        await shoot_work(home)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="lrq") as home:
        asyncio.run(take_pictures(Path(home), sys.argv[1:]))
