"""What the judge of each paper's set-up would cost: `python examples/papers.py --price 2.5,10,1.25`.

Asks `lrq estimate` about rows of our own that have the shape of the published data, and multiplies by how many there
are. Nothing is sent. With the data itself at hand, `lrq estimate FILE` says the same of the real rows.
"""

import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from harbour import LANGUAGES, draw_facts
from journal import write_journal
from make_dataset import CRITERIA, Line, line_of, transcripts

LRQ = Path(sys.executable).with_name("lrq")
ROWS = 12  # that stand for all


def long_documents(rng: random.Random) -> Iterator[Line]:
    """Yield questions on documents of 35 to 160 kB, 98 kB on average as in LongReward-10k."""
    for number in range(ROWS):
        language = LANGUAGES[number % 2]
        characters = 35_000 + 125_000 * (number // 2) // (ROWS // 2 - 1)
        facts = draw_facts(rng, language, 40)
        text = write_journal(rng, language, facts, characters=characters if language.code == "en" else characters // 3)
        yield line_of(rng, f"long-{number}", language, text, facts[::20])


def instructions(rng: random.Random) -> Iterator[Line]:
    """Yield short prompts without a document."""
    for number in range(ROWS):
        language = LANGUAGES[0]
        facts = draw_facts(rng, language, 12)
        yield {
            "id": f"prompt-{number}",
            "question": language.join([*map(language.tell, facts), language.ask(facts[:3])]),
        }


def bench(rng: random.Random) -> Iterator[Line]:
    """Yield prompts with a system message, four rubrics and one response of 250 tokens, as Multifaceted-Bench has."""
    rubrics = [{**one, "criteria": f"Part {part}: {one['criteria']}"} for part in (1, 2) for one in CRITERIA]
    for line in instructions(rng):
        yield {**line, "system": "Answer as a harbour master would.", "rubrics": rubrics, "responses": ["word " * 250]}


def talks(rng: random.Random) -> Iterator[Line]:
    """Yield conversations with two criteria."""
    return transcripts(rng, ROWS)


@dataclass(frozen=True, kw_only=True)
class Setup:
    """A paper's data and recipe."""

    paper: str
    rows: Callable[[random.Random], Iterator[Line]]
    count: int  # of its rows
    flags: Sequence[str]


SETUPS = (
    Setup(paper="LongReward", rows=long_documents, count=10_000, flags=("--recipe", "longreward")),
    Setup(paper="SPPO by a judge, three rounds", rows=instructions, count=60_000, flags=("--recipe", "sppo")),
    Setup(
        paper="Janus, Multifaceted-Bench, three runs",
        rows=bench,
        count=921,
        flags=("--recipe", "janus", "--set", "judge.votes=3", "--scores-only"),
    ),
    Setup(paper="EvalYaks, its training sets", rows=talks, count=2_018, flags=("--recipe", "rubric")),
)


def estimate(setup: Setup, folder: Path, price: str, response_tokens: int) -> dict[str, Any]:
    """Return what `lrq estimate` says of the sample rows. Raises CalledProcessError."""
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in setup.rows(random.Random(setup.paper))))
    judge = ("--set", "judge.url=http://127.0.0.1:9/v1", "--set", "judge.model=judge")
    flags = ("--no-train", "--price", price, "--response-tokens", str(response_tokens))
    command = [LRQ, "estimate", file, *setup.flags, *judge, *flags, "--json"]
    env = os.environ | {"LRQ_HOME": str(folder / "lrq")}
    told = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=env)
    return dict(json.loads(told.stdout))


@click.command()
@click.option("--price", default="2.5,10,1.25", show_default=True, help="IN,OUT,CACHED per million tokens.")
@click.option("--response-tokens", default=250, show_default=True, help="Of a response that is yet to be sampled.")
def main(price: str, response_tokens: int) -> None:
    """Print a Markdown table of calls, tokens and money of each paper's set-up."""
    click.echo("| set-up | rows | calls | prompt tokens, of them cached | reply tokens | money |")
    click.echo("| --- | ---: | ---: | ---: | ---: | ---: |")
    for setup in SETUPS:
        with tempfile.TemporaryDirectory() as folder:
            told = estimate(setup, Path(folder), price, response_tokens)
        names = ("calls", "prompt_tokens", "cached_tokens", "completion_tokens", "cost")
        calls, prompt, cached, reply, money = (told[name] / told["items"] * setup.count for name in names)
        cells = [f"{setup.count:,}", f"{calls:,.0f}", f"{prompt / 1e6:,.0f} M, {cached / prompt:.0%}"]
        click.echo(f"| {setup.paper} | " + " | ".join([*cells, f"{reply / 1e6:,.0f} M", f"{money:,.0f}"]) + " |")


if __name__ == "__main__":
    main()
