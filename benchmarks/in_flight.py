"""How many calls are in flight of those that the limits allow, as the server counts them.

    python benchmarks/in_flight.py [--latency 5000] [--judges 1] [--seconds 60] [--concurrency N] [--rpm N]

Ten responses to an item, two steps, so tasks of ten calls. The mean is that of the second half; the time to 500 is
counted from the first request. Without either limit the concurrency is learned.
"""

import argparse
import random
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from typing import Any

from common import SCORES_RECIPE, Sim, fresh, prose, show, vocabulary, write_lines

RESPONSES = 10
PER_ITEM = 2 * RESPONSES


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--latency", type=int, default=5000, help="milliseconds of each reply, a quarter more or less")
    parser.add_argument("--judges", type=int, default=1, help="judge processes")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--concurrency", type=int, help="calls in flight that are allowed")
    parser.add_argument("--rpm", type=int, help="requests a minute that are allowed")
    options = parser.parse_args()
    seconds = options.latency / 1000
    most = min(options.concurrency or 2500, (options.rpm or 10**9) / 60 * seconds)
    with (
        tempfile.TemporaryDirectory() as folder,
        Sim("--canned", "--latency", str(options.latency), "--jitter", str(options.latency // 4)) as sim,
    ):
        count = int(1.2 * most * (options.seconds / seconds + 1) / PER_ITEM) + 10
        looks = measure(sim, write_lines(Path(folder) / "items.jsonl", items(count)), options)
    report(options, most, looks)


def items(count: int) -> Iterator[dict[str, Any]]:
    rng = random.Random("in flight")
    words = vocabulary(rng, 2000)
    for number in range(count):
        responses = [f"{prose(rng, words, 300)} {k}" for k in range(RESPONSES)]
        yield {"id": f"item-{number}", "question": prose(rng, words, 100), "context": "", "responses": responses}


def measure(sim: Sim, dataset: Path, options: argparse.Namespace) -> list[tuple[float, int, int]]:
    """Seconds since the first request, calls in flight, replies so far; once a second."""
    limits = {"concurrency": options.concurrency, "rpm": options.rpm}
    judge = {"url": sim.url, "model": "judge-sim"} | {name: limit for name, limit in limits.items() if limit}
    looks: list[tuple[float, int, int]] = []
    with fresh(sim, judge=judge, recipe=SCORES_RECIPE) as lrq:
        run = lrq.start("run", dataset, "--no-train", "--judges", options.judges)
        begun: float | None = None
        while run.poll() is None and (begun is None or time.monotonic() < begun + options.seconds):
            time.sleep(1)
            stats = sim.stats()
            if begun is None and stats["received"]:
                begun = time.monotonic()
            if begun is not None:
                looks.append((time.monotonic() - begun, stats["in_flight"], stats["complete"]))
        lrq.stop(run)
    return looks


def report(options: argparse.Namespace, most: float, looks: list[tuple[float, int, int]]) -> None:
    late = [look for look in looks if look[0] > options.seconds / 2]
    rate = 60 * (late[-1][2] - late[0][2]) / (late[-1][0] - late[0][0])
    many = next((f"{look[0]:.0f} s" for look in looks if look[1] >= 500), "never")
    allowed = f"{most:,.0f}" if options.concurrency or options.rpm else "not told"
    title = f"{options.latency / 1000:g} s of latency, {options.judges} judges, {options.seconds:g} s"
    rows = [(allowed, f"{fmean(look[1] for look in late):,.0f}", f"{rate:,.0f}", many)]
    show(title, ("allowed in flight", "mean in flight", "replies a minute", "500 after"), rows)


if __name__ == "__main__":
    main()
