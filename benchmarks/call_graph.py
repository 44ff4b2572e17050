"""Calls, tokens and embedding requests for an item, beside the call graph of LongReward's published scripts.

    python benchmarks/call_graph.py [--items 2] [--tokens 64000] [--statements 8]

The graph (arXiv 2410.21252 and its code): an extraction for every 4,096 tokens of context; for each of ten responses a
call each for helpfulness, logicality, statements and completeness, and one for each statement; the context's chunks of
128 tokens and the statements are embedded anew for each response, eight texts in a request. Its tokens are those of our
prompts. Ours are counted at the servers (judge-sim).
"""

import argparse
import random
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from math import ceil
from pathlib import Path
from typing import Any

from common import Sim, asks, fresh, prose, show, vocabulary, write_lines

from lrq.domain.tokens import chunk, count_tokens
from lrq.recipes.longreward import LONGREWARD

RESPONSES = 10
TEXTS = 8  # of a request in LongReward's scripts
Counts = Mapping[str, int]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=64_000, help="of each context")
    parser.add_argument("--statements", type=int, default=8, help="of each response")
    options = parser.parse_args()
    lines = list(items(options))
    with tempfile.TemporaryDirectory() as folder, Sim() as sim, Sim() as embedder:
        dataset = write_lines(Path(folder) / "items.jsonl", iter(lines))
        ways = {
            "LongReward's graph": longreward(lines),
            "lrq": measure(sim, embedder, dataset),
            "lrq, statements together": measure(sim, embedder, dataset, batch_statements=True),
        }
    report(options, ways)


def items(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """A response is some of its document's sentences, each of which is a statement."""
    rng = random.Random("call graph")
    words = vocabulary(rng, 4000)
    trial = prose(rng, words, 100_000)
    characters = options.tokens * len(trial) // count_tokens(trial)
    for number in range(options.items):
        context = prose(rng, words, characters)
        sentences = context.split(". ")[:-1]
        said = [". ".join(rng.sample(sentences, options.statements)) + "." for _ in range(RESPONSES)]
        question = f"What is said of {rng.choice(words)} and of {rng.choice(words)}?"
        yield {"id": f"item-{number}", "context": context, "question": question, "responses": said}


def longreward(lines: Sequence[dict[str, Any]]) -> Counts:
    """What the scripts would ask of these items."""
    counts: Counter[str] = Counter()
    for line in lines:
        asked = asks([line])
        counts["calls"] += len(asked)
        counts["prompt tokens"] += sum(count_tokens(ask.prompt) for ask in asked)
        counts["statements"] += sum(ask.kind == "support" for ask in asked)
        chunks = len(chunk(line["context"], LONGREWARD.settings["statement_chunk_tokens"]))
        counts["chunks"] += chunks
        each = [ask.reply.count("<statement>") for ask in asked if ask.kind == "statements"]
        counts["embedding requests"] += sum(ceil(chunks / TEXTS) + ceil(statements / TEXTS) for statements in each)
    return counts


def measure(sim: Sim, embedder: Sim, dataset: Path, **recipe: Any) -> Counts:
    """What a run asks of the servers, from enqueueing to pairs."""
    sim.reset()
    embedder.reset()
    with fresh(sim, embedding={"url": embedder.url, "model": "judge-sim"}, settings=recipe) as lrq:
        lrq("run", dataset, "--no-train")
    tokens = sim.stats()["tokens"]["prompt"]
    return {"calls": sim.served(), "prompt tokens": tokens, "embedding requests": embedder.served()}


def report(options: argparse.Namespace, ways: Mapping[str, Counts]) -> None:
    graph = next(iter(ways.values()))
    rows = []
    for name, counts in ways.items():
        cells = [name]
        for what in ("calls", "prompt tokens", "embedding requests"):
            cells += [f"{counts[what] / options.items:,.0f}", f"{counts[what] / graph[what]:.2f}x"]
        rows.append(cells)
    per = f"{graph['statements'] / options.items / RESPONSES:.1f}"
    title = f"an item of about {options.tokens:,} tokens, {RESPONSES} responses, {per} statements in each"
    show(title, ("", "calls", "", "prompt tokens", "", "embedding requests", ""), rows)


if __name__ == "__main__":
    main()
