"""Make the demo's datasets: `python examples/make_dataset.py --output demo-out/data`.

Ten files in lrq's input form, one JSON object per line. The same seed gives the same bytes on every machine.
"""

import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from harbour import CHINESE, ENGLISH, LANGUAGES, Fact, Language, answer, draw_facts
from journal import rambling, write_journal

Line = dict[str, Any]

# What the small policy is taught to answer: right a quarter of the time, so that there is much to gain.
MIXTURE = {"right": 0.25, "partial": 0.40, "wrong": 0.20, "refusal": 0.15}
# The ten responses of a document that brings its own.
GIVEN = ("right", "partial", "wrong", "refusal", "rambling", "partial", "wrong", "right", "rambling wrong", "partial")
SENTENCES = {"en": (45, 125), "zh": (52, 145)}  # 300 to 900 tokens
CRITERIA = [
    {"name": name, "criteria": text, "descriptions": {str(score): f"{score - 1} of four" for score in range(1, 6)}}
    for name, text in (("Replies", "How many questions are answered?"), ("Accuracy", "How many answers are right?"))
]
LONG = {"en": 285_000, "zh": 88_000}  # characters; 64k tokens and a little more by common tokenizers


def document(rng: random.Random, language: Language, sentences: int) -> tuple[str, list[Fact]]:
    """Return a document the small policy can read, and its facts: a fifth of its sentences are idle."""
    facts = draw_facts(rng, language, round(sentences * 0.8))
    return passage(rng, language, facts, sentences), facts


def passage(rng: random.Random, language: Language, facts: Sequence[Fact], sentences: int) -> str:
    """Return so many sentences in any order: the facts, and idle ones between them."""
    told = [language.tell(fact) for fact in facts]
    told += [rng.choice(language.idle).format(ship=rng.choice(language.ships)) for _ in range(sentences - len(told))]
    rng.shuffle(told)
    return language.join(told)


def item(rng: random.Random, name: str, language: Language) -> tuple[Line, list[Fact], list[Fact]]:
    """Return one item with the right answer, its facts, and those it asks for."""
    text, facts = document(rng, language, rng.randint(*SENTENCES[language.code]))
    asked = rng.sample(facts, rng.choice((2, 2, 3)))
    return line_of(rng, name, language, text, asked), facts, asked


def sampled_items(rng: random.Random, name: str, count: int) -> Iterator[Line]:
    """Yield items the policy is to answer, English and Chinese in turn."""
    for number in range(count):
        line, _, _ = item(rng, f"{name}-{number + 1:03d}", LANGUAGES[number % 2])
        yield line


def taught_items(
    rng: random.Random, documents: int, mixture: Mapping[str, float] = MIXTURE, questions: int = 8
) -> Iterator[Line]:
    """Yield items, several for each document, whose answers are of the mixture's kinds; `kind` says which."""
    for number in range(documents):
        language = LANGUAGES[number % 2]
        text, facts = document(rng, language, rng.randint(*SENTENCES[language.code]))
        for turn in range(questions):
            asked = rng.sample(facts, rng.choice((2, 2, 3)))
            (kind,) = rng.choices(list(mixture), list(mixture.values()))
            line = line_of(rng, f"sft-{number + 1:04d}-{turn + 1}", language, text, asked)
            yield {**line, "answer": answer(rng, language, asked, facts, kind), "kind": kind}


def judged_items(rng: random.Random, count: int) -> Iterator[Line]:
    """Yield short journals that bring six to ten responses."""
    for number in range(count):
        characters = rng.randint(2500, 5000) if number % 2 == 0 else rng.randint(1000, 2000)
        yield journal_item(rng, f"journal-{number + 1:02d}", LANGUAGES[number % 2], characters, 14, rng.randint(6, 10))


def long_items(rng: random.Random) -> Iterator[Line]:
    """Yield two journals of 64k tokens, one English and one Chinese, that bring ten responses each."""
    for language in (ENGLISH, CHINESE):
        yield journal_item(rng, f"long-{language.code}", language, LONG[language.code], 120, len(GIVEN))


def journal_item(
    rng: random.Random, name: str, language: Language, characters: int, facts: int, responses: int
) -> Line:
    """Return a journal with a question about places far apart, and responses of every kind."""
    planted = draw_facts(rng, language, facts, attributes=4)
    third = len(planted) // 3
    pools = [planted[:third], planted[third : 2 * third], planted[2 * third :]]
    asked = [rng.choice(pool) for pool in rng.sample(pools, rng.choice((2, 3)))]
    text = write_journal(rng, language, planted, characters=characters)
    given = [_respond(rng, language, asked, planted, kind) for kind in GIVEN[:responses]]
    rng.shuffle(given)
    return {**line_of(rng, name, language, text, asked), "responses": given}


def documents(
    rng: random.Random, name: str, count: int, sentences: tuple[int, int] = (160, 240), passages: int = 4
) -> Iterator[Line]:
    """Yield documents of several passages, each of which alone answers one of the questions."""
    for number in range(count):
        language = LANGUAGES[number % 2]
        size = rng.randint(*sentences) // passages
        facts = draw_facts(rng, language, round(size * 0.8) * passages)
        parts = [facts[place::passages] for place in range(passages)]
        texts = [passage(rng, language, part, size) for part in parts]
        yield {
            "id": f"{name}-{number + 1:03d}",
            "context": language.join(texts),
            "questions": [language.ask(rng.sample(part, rng.choice((2, 2, 3)))) for part in parts],
            "short_contexts": texts,
        }


def questions(rng: random.Random, name: str, count: int, sentences: tuple[int, int]) -> Iterator[Line]:
    """Yield items with a question on a document of so many sentences, English and Chinese in turn."""
    for number in range(count):
        language = LANGUAGES[number % 2]
        text, facts = document(rng, language, rng.randint(*sentences))
        asked = rng.sample(facts, rng.choice((2, 2, 3)))
        yield line_of(rng, f"{name}-{number + 1:03d}", language, text, asked)


def short_answers(rng: random.Random, count: int) -> Iterator[Line]:
    """Yield demonstrations of right answers to short documents, asked as lrq asks."""
    for line in questions(rng, "short", count, (15, 60)):
        asked = f"~~~~\n{line['context']}\n~~~~\n\n{line['question']}"
        answered = [{"role": "assistant", "content": line["answer"]}]
        yield {"prompt": [{"role": "user", "content": asked}], "completion": answered}


def instructed_items(rng: random.Random, count: int) -> Iterator[Line]:
    """Yield items that bring two system messages each."""
    for line in sampled_items(rng, "instructed", count):
        yield {**line, "system": ["You are a helpful assistant.", "Answer from the document alone."]}


def transcripts(rng: random.Random, count: int) -> Iterator[Line]:
    """Yield conversations with two criteria and an examiner's scores of them: how many answers came, and were right."""
    for number in range(count):
        language = LANGUAGES[number % 2]
        facts = draw_facts(rng, language, 12)
        kinds = rng.choices(("right", "wrong", "refusal"), k=4)
        turns = [
            {"speaker": speaker, "text": text}
            for fact, kind in zip(facts, kinds, strict=False)
            for speaker, text in (
                ("Examiner", language.ask([fact])),
                ("Candidate", answer(rng, language, [fact], facts, kind)),
            )
        ]
        scores = {"Replies": 5 - kinds.count("refusal"), "Accuracy": 1 + kinds.count("right")}
        yield {"id": f"talk-{number + 1:02d}", "turns": turns, "rubrics": CRITERIA, "answer": json.dumps(scores)}


def line_of(rng: random.Random, name: str, language: Language, text: str, asked: list[Fact]) -> Line:
    """Return an item with its question and the right answer."""
    return {"id": name, "context": text, "question": language.ask(asked), "answer": answer(rng, language, asked, asked)}


def _respond(rng: random.Random, language: Language, asked: list[Fact], facts: list[Fact], kind: str) -> str:
    wanders, _, plain = kind.rpartition(" ")
    if kind == "rambling":
        wanders, plain = kind, "right"
    told = answer(rng, language, asked, facts, plain)
    return rambling(rng, language, told) if wanders else told


FILES: dict[str, Callable[[random.Random], Iterator[Line]]] = {
    "sft": lambda rng: taught_items(rng, 60),
    "demo": lambda rng: sampled_items(rng, "demo", 48),
    "held_out": lambda rng: sampled_items(rng, "held-out", 40),
    "judge_only": lambda rng: judged_items(rng, 12),
    "long": long_items,
    "documents": lambda rng: documents(rng, "document", 24, (320, 360)),
    "instructed": lambda rng: instructed_items(rng, 32),
    "short_answers": lambda rng: short_answers(rng, 240),
    "held_out_long": lambda rng: questions(rng, "held-out", 40, (320, 360)),
    "transcripts": lambda rng: transcripts(rng, 24),
}


def write(folder: Path, name: str, seed: int) -> Path:
    """Write one of the files into the folder and return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.jsonl"
    lines = FILES[name](random.Random(f"{name}-{seed}"))
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
    return path


@click.command(epilog="Example: python examples/make_dataset.py --output demo-out/data demo held_out")
@click.argument("names", nargs=-1, type=click.Choice(list(FILES)))
@click.option(
    "--output", type=click.Path(file_okay=False, path_type=Path), default=Path("demo-out/data"), show_default=True
)
@click.option("--seed", default=7, show_default=True, help="Another seed, other documents.")
def main(names: tuple[str, ...], output: Path, seed: int) -> None:
    """Write the demo's datasets: all of them, or those named."""
    for name in names or FILES:
        path = write(output, name, seed)
        click.echo(f"{path}  {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
