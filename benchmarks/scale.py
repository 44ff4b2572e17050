"""What an item costs when 1k, 10k and 100k of them are enqueued: to enqueue it, and to process it among the others.

    python benchmarks/scale.py [--sizes 1000 10000 100000] [--after 300] [--measured 300] [--rounds 2]

Of each size a run is enqueued; then workers are started, and once so many items are done, the CPU of all processes
(broker and database included) is counted over the next ones. The smallest size is the baseline of the others. Sizes
take turns, so that a machine that slows down slows all of them down.
"""

import argparse
import random
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from common import SCORES_RECIPE, Sim, Watch, fresh, prose, show, vocabulary, write_lines

RESPONSES = 5
CALLS = 2 * RESPONSES  # of an item
GIVE_UP = 600.0  # seconds


@dataclass(frozen=True)
class Cost:
    """Milliseconds of an item."""

    enqueue_wall: float
    enqueue_cpu: float
    cpu: float  # of all processes, while others wait


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--after", type=int, default=300, help="items done before the count begins")
    parser.add_argument("--measured", type=int, default=300, help="items of the count")
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    costs: dict[int, list[Cost]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder, Sim("--canned", "--latency", "50") as sim:
        files = {size: write_lines(Path(folder) / f"{size}.jsonl", items(size)) for size in options.sizes}
        for _ in range(options.rounds):
            for size, file in files.items():
                costs[size].append(measure(sim, file, size, options))
    report(options, costs)


def items(count: int) -> Iterator[dict[str, Any]]:
    rng = random.Random("scale")
    words = vocabulary(rng, 4000)
    for number in range(count):
        responses = [prose(rng, words, 200) for _ in range(RESPONSES)]
        context = prose(rng, words, 1000)
        yield {"id": f"item-{number}", "question": prose(rng, words, 80), "context": context, "responses": responses}


def measure(sim: Sim, file: Path, size: int, options: argparse.Namespace) -> Cost:
    sim.reset()
    with fresh(sim, recipe=SCORES_RECIPE) as lrq:
        begun = time.monotonic()
        cpu = lrq("enqueue", file, "--no-train")
        wall = time.monotonic() - begun
        process = lrq.start("up", "--quiet")
        watch = Watch(process.pid, sim)
        first, last = CALLS * options.after, CALLS * (options.after + options.measured)
        while sim.served() < last and time.monotonic() < begun + wall + GIVE_UP:
            time.sleep(0.2)
        watch.close()
        lrq.stop(process)
        interval = watch.between(first, last)
    return Cost(
        enqueue_wall=1000 * wall / size,
        enqueue_cpu=1000 * cpu / size,
        cpu=CALLS * interval.cpu_per_call("lrq", "judge", "aggregator", "redis"),
    )


def report(options: argparse.Namespace, costs: dict[int, list[Cost]]) -> None:
    rows: list[Sequence[str]] = []
    base: float | None = None
    for size, found in costs.items():
        cpu = median(cost.cpu for cost in found)
        base = base or cpu
        wall, enqueue = (
            median(values) for values in zip(*((c.enqueue_wall, c.enqueue_cpu) for c in found), strict=True)
        )
        rows.append((f"{size:,} items", f"{wall:.2f}", f"{enqueue:.2f}", f"{cpu:.1f}", f"{cpu / base:.2f}x"))
    title = f"milliseconds of an item of {CALLS} calls; medians of {options.rounds} rounds"
    show(title, ("enqueued", "enqueue, wall", "enqueue, CPU", "process, CPU", "ratio"), rows)


if __name__ == "__main__":
    main()
