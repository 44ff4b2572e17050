"""200 responses over contexts of 16k tokens, judged on four dimensions, beside a bare loop making the same calls.

    python benchmarks/judging.py [--items 20] [--latency 300] [--concurrency 500]

Ours is `lrq run --no-train` as a user starts it, process starts included. The bare loop (aiohttp + orjson) is given the
distinct requests that LongReward's procedures make of the same items; it finds no passages, keeps nothing, and asks
everything at once.
"""

import argparse
import random
import resource
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from common import Sim, Watch, asks, fresh, prose, show, start_bare, vocabulary, write_lines

RESPONSES = 10
CHARACTERS = 72_000  # of these words about 16k tokens


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=20)
    parser.add_argument("--latency", type=int, default=300, help="milliseconds of each reply")
    parser.add_argument("--concurrency", type=int, default=500)
    options = parser.parse_args()
    lines = list(items(options.items))
    with tempfile.TemporaryDirectory() as folder, Sim("--latency", str(options.latency)) as sim:
        dataset = write_lines(Path(folder) / "items.jsonl", iter(lines))
        prompts = write_lines(Path(folder) / "bodies.jsonl", requests(lines))
        bare = measure(lambda: start_bare(sim, prompts, options.concurrency).wait(), sim)
        ours = measure_ours(sim, dataset, options.concurrency)
    report(options, ours, bare)


def items(count: int) -> Iterator[dict[str, Any]]:
    """Documents of made-up words; a response quotes some of its document's sentences and adds others."""
    rng = random.Random("judging")
    words = vocabulary(rng, 4000)
    for number in range(count):
        context = prose(rng, words, CHARACTERS)
        sentences = context.split(". ")
        said = [". ".join([*rng.sample(sentences, 5), prose(rng, words, 120)]) for _ in range(RESPONSES)]
        question = f"What is said of {rng.choice(words)} and of {rng.choice(words)}?"
        yield {"id": f"item-{number}", "context": context, "question": question, "responses": said}


def requests(lines: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The distinct requests of LongReward's procedures."""
    for ask in {ask.prompt: ask for ask in asks(lines)}.values():
        messages = [{"role": "user", "content": ask.prompt}]
        yield {"model": "judge-sim", "messages": messages, "temperature": 0.01, "max_tokens": ask.max_tokens}


def measure(work: Any, sim: Sim) -> dict[str, float]:
    sim.reset()
    begun, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    work()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"wall": time.monotonic() - begun, "cpu": cpu, "calls": sim.served()}


def measure_ours(sim: Sim, dataset: Path, concurrency: int) -> dict[str, float]:
    judge = {"url": sim.url, "model": "judge-sim", "concurrency": concurrency}
    with fresh(sim, judge=judge) as lrq:
        sim.reset()
        begun = time.monotonic()
        process = lrq.start("run", dataset, "--no-train")
        watch = Watch(process.pid)
        cpu = lrq.ended(process)
        wall = time.monotonic() - begun
        watch.close()
    largest = max(watch.peaks.values())
    return {"wall": wall, "cpu": cpu, "calls": sim.served(), "sum": watch.peak_sum / 1e6, "largest": largest / 1e6}


def report(options: argparse.Namespace, ours: dict[str, float], bare: dict[str, float]) -> None:
    rows = [
        ("wall seconds", f"{bare['wall']:.1f}", f"{ours['wall']:.1f}", f"{ours['wall'] / bare['wall']:.2f}x"),
        ("CPU seconds, all processes", f"{bare['cpu']:.1f}", f"{ours['cpu']:.1f}", f"{ours['cpu'] / bare['cpu']:.2f}x"),
        ("calls", f"{bare['calls']:,}", f"{ours['calls']:,}", f"{ours['calls'] / bare['calls']:.2f}x"),
        ("peak memory, all processes, MB", "", f"{ours['sum']:.0f}", ""),
        ("peak memory, largest process, MB", "", f"{ours['largest']:.0f}", ""),
    ]
    title = f"{options.items * RESPONSES} responses, {options.latency} ms a reply, {options.concurrency} at once"
    show(title, ("", "bare loop", "lrq run", "ratio"), rows)


if __name__ == "__main__":
    main()
