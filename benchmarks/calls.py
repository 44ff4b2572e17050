"""CPU per call and calls per second on the full path, beside a bare aiohttp + orjson loop in the same run.

    python benchmarks/calls.py [--calls 20000] [--concurrency 500] [--latency 300] [--judges 1]
                               [--database sqlite postgresql] [--rivals PYTHON …]

The full path is what `lrq run` does: messages, tasks, claim, limiter, client, settle, scores. Prompts have about 1,800
tokens, the judge answers "[[7]]" to everything. Counted is a steady interval, from a quarter to four fifths of the
replies as the server counts them, so that neither the start nor the end of a process is in it. The bare loop runs
before and after ours; its figures are the mean. `--database` names the ledgers to measure with, by turns in the same
run; on PostgreSQL, deadlocks are counted. `--rivals` names interpreters that have openai, distilabel or curator
installed (`rivals.py`): these make a quarter of the calls, and all of their processes are counted.
"""

import argparse
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from common import (
    SCORES,
    SCORES_RECIPE,
    Interval,
    Lrq,
    Postgres,
    Sim,
    Watch,
    fresh,
    prose,
    show,
    start_bare,
    vocabulary,
    write_lines,
)

from lrq.domain.fences import fenced
from lrq.recipes.templates import fill

RIVALS = str(Path(__file__).with_name("rivals.py"))
RESPONSES = 34  # so that a task has as many calls as LongReward's have in the mean: 136 in four
PER_ITEM = 2 * RESPONSES


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=20_000)
    parser.add_argument("--concurrency", type=int, default=500)
    parser.add_argument("--latency", type=int, default=300, help="milliseconds of each reply")
    parser.add_argument("--judges", type=int, default=1, help="judge processes")
    parser.add_argument("--database", nargs="+", choices=("sqlite", "postgresql"), default=["sqlite"])
    parser.add_argument("--rivals", nargs="*", default=[sys.executable], help="interpreters that have other clients")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, Sim("--canned", "--latency", str(options.latency)) as sim:
        lines = list(items(options.calls // PER_ITEM))
        dataset = write_lines(Path(folder) / "items.jsonl", iter(lines))
        prompts = write_lines(Path(folder) / "bodies.jsonl", bodies(lines))
        first = measure_bare(sim, prompts, options)
        ours = [measure_ours(sim, dataset, options, database) for database in options.database]
        second = measure_bare(sim, prompts, options)
        some = write_lines(Path(folder) / "some.jsonl", bodies(lines[: len(lines) // 4]))
        found = found_rivals(options.rivals)
        rivals = {name: measure_rival(sim, argv, some, options) for name, argv in found.items()}
    report(options, ours, [first, second], rivals)


def items(count: int) -> Iterator[dict[str, Any]]:
    rng = random.Random("calls")
    words = vocabulary(rng, 4000)
    for number in range(count):
        responses = [prose(rng, words, 1000) for _ in range(RESPONSES)]
        yield {"id": f"item-{number}", "question": prose(rng, words, 120), "context": "", "responses": responses}


def bodies(lines: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The same requests that our judge makes of these items."""
    texts = SCORES.prompt_texts()
    for line in lines:
        for step in SCORES.steps:
            for response in line["responses"]:
                values = {"question": fenced(line["question"]), "answer": fenced(response)}
                content = fill(texts[f"en/{step.name}"], values)
                messages = [{"role": "user", "content": content}]
                yield {"model": "judge-sim", "messages": messages, "temperature": 0.01, "max_tokens": 512}


def measure_bare(sim: Sim, prompts: Path, options: argparse.Namespace) -> Interval:
    sim.reset()
    process = start_bare(sim, prompts, options.concurrency)
    watch = Watch(process.pid, sim)
    process.wait()
    return steady(watch, options)


def found_rivals(pythons: Sequence[str]) -> dict[str, Sequence[str]]:
    """How each client that is installed anywhere is started."""
    found: dict[str, Sequence[str]] = {}
    for python in pythons:
        installed = subprocess.run([python, RIVALS], check=True, capture_output=True, text=True).stdout.split()
        found |= {name: (python, RIVALS, name) for name in installed if name not in found}
    return found


def measure_rival(sim: Sim, argv: Sequence[str], prompts: Path, options: argparse.Namespace) -> Interval:
    sim.reset()
    command = [*argv, sim.url, str(prompts), str(options.concurrency)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    watch = Watch(process.pid, sim)
    if process.wait():
        raise SystemExit(f"{argv[-1]} ended with {process.returncode}; run {RIVALS} by itself to see why")
    return steady(watch, options, options.calls // 4)


@dataclass(frozen=True, kw_only=True)
class Ours:
    """What lrq did with one database; deadlocks where that counts them."""

    database: str
    interval: Interval
    deadlocks: int | None = None


def measure_ours(sim: Sim, dataset: Path, options: argparse.Namespace, database: str) -> Ours:
    sim.reset()
    settings: dict[str, Any] = {"judge": {"url": sim.url, "model": "judge-sim", "concurrency": options.concurrency}}
    with ExitStack() as stack:
        server = stack.enter_context(Postgres()) if database == "postgresql" else None
        if server is not None:
            settings["database_url"] = server.url
        lrq = stack.enter_context(fresh(sim, recipe=SCORES_RECIPE, **settings))
        process = lrq.start("run", dataset, "--no-train", "--judges", options.judges)
        interval = follow(lrq, process, sim, options)
        return Ours(database=database, interval=interval, deadlocks=None if server is None else server.deadlocks())


def follow(lrq: Lrq, process: Any, sim: Sim, options: argparse.Namespace) -> Interval:
    watch = Watch(process.pid, sim)
    lrq.ended(process)
    watch.close()
    return steady(watch, options)


def steady(watch: Watch, options: argparse.Namespace, calls: int = 0) -> Interval:
    watch.close()
    calls = calls or options.calls
    return watch.between(calls // 4, calls * 4 // 5)


def report(
    options: argparse.Namespace, ours: Sequence[Ours], loops: Sequence[Interval], rivals: Mapping[str, Interval]
) -> None:
    cpu = fmean(loop.cpu_per_call("lrq") for loop in loops)
    rate = fmean(loop.rate for loop in loops)
    rows = [("bare aiohttp + orjson", f"{cpu:.3f}", "1.00x", f"{rate:,.0f}", "1.00x")]
    for measured in ours:
        rows += rows_of(measured, cpu, rate)
    for name, rival in rivals.items():
        theirs = rival.cpu_per_call("lrq")
        rows.append((name, f"{theirs:.3f}", f"{theirs / cpu:.2f}x", f"{rival.rate:,.0f}", f"{rival.rate / rate:.2f}x"))
    title = f"{options.calls:,} calls of about 1,800 tokens, {options.concurrency} in flight, {options.latency} ms"
    show(title, ("", "CPU ms/call", "ratio", "calls/s", "ratio"), rows)
    for measured in ours:
        if measured.deadlocks is not None:
            print(f"{measured.database}: {measured.deadlocks} deadlocks")


def rows_of(measured: Ours, cpu: float, rate: float) -> list[tuple[str, str, str, str, str]]:
    ours = measured.interval
    judge, aggregator = ours.cpu_per_call("judge"), ours.cpu_per_call("aggregator")
    return [
        (
            f"lrq on {measured.database}: judge",
            f"{judge:.3f}",
            f"{judge / cpu:.2f}x",
            f"{ours.rate:,.0f}",
            f"{ours.rate / rate:.2f}x",
        ),
        ("    aggregator", f"{aggregator:.3f}", f"{aggregator / cpu:.2f}x", "", ""),
        ("    command", f"{ours.cpu_per_call('lrq'):.3f}", "", "", ""),
        ("    broker and limiter", f"{ours.cpu_per_call('redis'):.3f}", "", "", ""),
    ]


if __name__ == "__main__":
    main()
