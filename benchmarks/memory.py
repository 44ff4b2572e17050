"""Memory of a judge process and bytes on disk for many long documents, beside a script that reads the file whole.

    python benchmarks/memory.py [--documents 1500] [--characters 262144]

Documents of made-up words that zstd brings to no less than 0.35 of their size are judged on four dimensions, two
responses each, by one judge process. The script beside it (aiohttp + orjson, 500 at once) loads all lines, as
LongReward's scripts do, and makes the extraction requests of the same documents alone.
"""

import argparse
import asyncio
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import zstandard
from common import Sim, Watch, ask_all, fresh, prose, show, vocabulary, write_lines

from lrq.domain.fences import fenced
from lrq.domain.tokens import chunk
from lrq.recipes.longreward import LONGREWARD
from lrq.recipes.templates import fill

RESPONSES = 2
CONCURRENCY = 500
LEAST_RATIO = 0.35  # text that compresses better would flatter the disk


def main() -> None:
    if sys.argv[1:2] == ["whole"]:
        asyncio.run(read_whole(*sys.argv[2:]))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=1500)
    parser.add_argument("--characters", type=int, default=256 * 1024, help="of each document")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, Sim() as sim:
        dataset = write_lines(Path(folder) / "items.jsonl", items(options))
        script = measure_script(sim, dataset)
        ours = measure_ours(sim, dataset)
        report(options, dataset.stat().st_size, ours, script)


def items(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    rng = random.Random("memory")
    words = vocabulary(rng, 60_000)
    for number in range(options.documents):
        context = prose(rng, words, options.characters)
        if number == 0 and compressed(context) < LEAST_RATIO:
            raise SystemExit(f"the documents compress to {compressed(context):.2f}: too well")
        sentences = context.split(". ")
        said = [". ".join(rng.sample(sentences, 2)) + "." for _ in range(RESPONSES)]
        question = f"What is said of {rng.choice(words)} and of {rng.choice(words)}?"
        yield {"id": f"item-{number}", "context": context, "question": question, "responses": said}


def compressed(text: str) -> float:
    return len(zstandard.compress(text.encode(), 3)) / len(text.encode())


def measure_script(sim: Sim, dataset: Path) -> Watch:
    process = subprocess.Popen([sys.executable, __file__, "whole", sim.url, str(dataset)])
    watch = Watch(process.pid)
    process.wait()
    watch.close()
    return watch


async def read_whole(url: str, dataset: str) -> None:
    """The script: all lines in memory, and a request for every part of every document."""
    lines = [orjson.loads(line) for line in Path(dataset).read_bytes().splitlines()]
    await ask_all(url, extractions(lines), CONCURRENCY)


def extractions(lines: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    template = LONGREWARD.prompt_texts()["en/extraction"]
    for line in lines:
        for part in chunk(line["context"], LONGREWARD.settings["extraction_chunk_tokens"]):
            values = {"part": fenced(line["context"][part.start : part.end]), "question": fenced(line["question"])}
            messages = [{"role": "user", "content": fill(template, values)}]
            yield {"model": "judge-sim", "messages": messages, "temperature": 0.01, "max_tokens": 1024}


def measure_ours(sim: Sim, dataset: Path) -> dict[str, Any]:
    sim.reset()
    judge = {"url": sim.url, "model": "judge-sim", "concurrency": CONCURRENCY}
    with fresh(sim, judge=judge) as lrq:
        process = lrq.start("run", dataset, "--no-train")
        watch = Watch(process.pid)
        lrq.ended(process)
        watch.close()
        disk = sum(path.stat().st_size for path in lrq.home.rglob("*") if path.is_file())
    return {"watch": watch, "disk": disk, "calls": sim.served()}


def report(options: argparse.Namespace, size: int, ours: dict[str, Any], script: Watch) -> None:
    watch: Watch = ours["watch"]
    (theirs,) = script.peaks.values()
    peak, judge = watch.peaks["judge"], watch.memory["judge"]
    quarter = len(judge) // 4
    early, late = (max(size for _, size in part) for part in (judge[quarter : 2 * quarter], judge[3 * quarter :]))
    rows = [
        ("peak memory of the script, MB", f"{theirs / 1e6:.0f}", "1.00x"),
        ("peak memory of the judge process, MB", f"{peak / 1e6:.0f}", f"{peak / theirs:.2f}x"),
        ("    its peak in the second quarter of the run", f"{early / 1e6:.0f}", ""),
        ("    and in the last", f"{late / 1e6:.0f}", f"{late / early:.2f}x of that"),
        ("peak memory of all processes, MB", f"{watch.peak_sum / 1e6:.0f}", f"{watch.peak_sum / theirs:.2f}x"),
        ("input, MB", f"{size / 1e6:.0f}", ""),
        ("disk after the run, MB", f"{ours['disk'] / 1e6:.0f}", f"{ours['disk'] / size:.2f} a byte of input"),
    ]
    title = f"{options.documents:,} documents of {options.characters:,} characters, {ours['calls']:,} calls"
    show(title, ("", "", ""), rows)


if __name__ == "__main__":
    main()
