"""LongPO (arXiv 2502.13922): the answer to a short context preferred over the same policy's answer to the long one.

The document is cut into chunks, questions on each are written by the policy (or a teacher), one is answered twice: from
its chunk, and from the whole document. No judge is needed. All turns of a document make one row, whose reference is the
policy on the short prompt, for both answers. Items may bring `questions` with their `short_contexts` instead.
"""

import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lrq.domain.fences import fenced
from lrq.domain.language import language
from lrq.domain.records import CONTEXT, Chunk, NoRow, Prompt, Reward, Row, Turn
from lrq.domain.tokens import count_tokens
from lrq.recipes.longpo_filters import read_questions, unfit
from lrq.recipes.ports import Case
from lrq.recipes.recipe import Recipe
from lrq.recipes.templates import fill

SETTINGS: Mapping[str, Any] = {
    "responses": 1,
    "chunk_tokens": 30_000,
    "least_chunk_tokens": 16_384,
    "chunks": 4,
    "questions": 4,
    "questions_by": "policy",
    "answer_temperature": 0.0,
}
DESCRIBED: Mapping[str, str] = {
    "responses": "Answers to each prompt",
    "chunk_tokens": "Longest chunk of a document, in our own unit",
    "least_chunk_tokens": "Shortest chunk; what would be shorter is left out",
    "chunks": "Chunks of a document, drawn at random: as many turns as its row can have",
    "questions": "Questions that are asked for on each chunk; one of them is kept, drawn at random",
    "questions_by": "Who writes them: policy or teacher",
    "answer_temperature": "Of both answers: greedy in the paper; the released code has 1.0",
}
LOSS: Mapping[str, Any] = {  # equation 7: NLL of the whole chosen sequence + λ · preference
    "loss_type": ["nll", "sigmoid"],
    "loss_weights": [1.0, 0.01],
    "beta": 0.1,  # the released code has 0.01
    "learning_rate": 5e-7,
    "batch_size": 8,
}
_QUESTION_SAMPLING = {"temperature": 0.7, "top_p": 0.9, "max_new_tokens": 1024}


def chunks(text: str, *, least: int, most: int) -> list[Chunk]:
    """Return stretches of whole paragraphs with `least` to `most` tokens, in order.

    Paragraphs are parted by blank lines. What would be shorter is left out, and so is a paragraph longer than `most`.
    """
    found: list[Chunk] = []
    start, end, tokens = 0, 0, 0
    for paragraph in (*_paragraphs(text), None):
        size = most + 1 if paragraph is None else count_tokens(text[paragraph.start : paragraph.end])
        if tokens + size > most:
            if tokens >= least:
                found.append(Chunk(start=start, end=end))
            tokens = 0
        if paragraph is not None and size <= most:
            start = paragraph.start if tokens == 0 else start
            end, tokens = paragraph.end, tokens + size
    return found


def _paragraphs(text: str) -> Iterator[Chunk]:
    at = 0
    for paragraph in text.split("\n\n"):
        if paragraph.strip():
            yield Chunk(start=at, end=at + len(paragraph))
        at += len(paragraph) + 2


def prompts(case: Case) -> Sequence[Prompt]:
    """Have questions written on each chunk; then make a short and a long prompt of one question of each."""
    if case.named("long"):
        return ()
    item, settings = case.item, case.settings
    if given := item.fields.get("questions"):
        pairs = zip(given, item.fields.get("short_contexts", ()), strict=False)
        return [prompt for question, short in pairs for prompt in _pair(case, str(question), short)]
    if not case.prompts:
        spans = chunks(item.context, least=settings["least_chunk_tokens"], most=settings["chunk_tokens"])
        drawn = random.Random(f"chunks of {item.id}").sample(spans, min(settings["chunks"], len(spans)))
        return [_writing(case, span) for span in sorted(drawn, key=lambda span: span.start)]
    return [prompt for number in case.named("questions") for prompt in _answering(case, number)]


def _writing(case: Case, span: Chunk) -> Prompt:
    passage = case.item.context[span.start : span.end]
    template = case.texts[f"{language(passage[:4000])}/questions"]
    fence = fenced(passage).partition("\n")[0]
    text = fill(template, {"context": f"{fence}\n{CONTEXT}\n{fence}", "count": str(case.settings["questions"])})
    numbers = range(1, 1 + case.settings["questions"])
    typical = "\n".join(f"{number}: What does the text say of this?" for number in numbers)
    return Prompt(
        name="questions",
        messages=({"role": "user", "content": text},),
        span=span,
        by="teacher" if case.settings["questions_by"] == "teacher" else "policy",
        samples=1,
        sampling=_QUESTION_SAMPLING,
        typical=typical,
    )


def _answering(case: Case, number: int) -> list[Prompt]:
    """The short and the long prompt of one question on a chunk; none where the list of questions cannot be read."""
    answers = case.answers(number)
    questions = read_questions(answers[0].text, case.settings["questions"]) if answers else []
    if not questions:
        return []
    question = random.Random(f"question {number} of {case.item.id}").choice(questions)
    return _pair(case, question, case.prompts[number].span)


def _pair(case: Case, question: str, short: Chunk | str | None) -> list[Prompt]:
    """The short prompt, on a stretch of the context or on a text of its own, and the long one."""
    span = short if isinstance(short, Chunk) else None
    passage = case.item.context[span.start : span.end] if span else str(short)
    return [
        _asking(case, question, name="short", passage=passage, span=span),
        _asking(case, question, name="long", passage=case.item.context, is_whole=True),
    ]


def _asking(
    case: Case, question: str, *, name: str, passage: str, span: Chunk | None = None, is_whole: bool = False
) -> Prompt:
    fence = fenced(passage).partition("\n")[0]
    shown = CONTEXT if span or is_whole else passage.replace(CONTEXT, " ")
    text = f"{fence}\n{shown}\n{fence}\n\n{question.replace(CONTEXT, ' ')}"
    sampling = {"temperature": case.settings["answer_temperature"], "max_new_tokens": 1024}
    message = {"role": "user", "content": text}
    return Prompt(name=name, messages=(message,), span=span, samples=1, sampling=sampling, followup=question)


def rows(case: Case, rewards: Sequence[Reward]) -> Sequence[Row | NoRow]:
    """Make one row of all turns whose two answers are fit to be trained on."""
    if not case.named("long"):
        return [NoRow(reason="no chunk has a list of questions that can be read")]
    turns: list[Turn] = []
    reasons: list[str] = []
    for short, long in zip(case.named("short"), case.named("long"), strict=True):
        reason = _unfit(case, short, long)
        if reason:
            reasons.append(reason)
        else:
            turns.append(Turn(prompt=long, chosen=(short, 0), rejected=(long, 0), reference=short))
    return [Row(turns=tuple(turns))] if turns else [NoRow(reason="; ".join(reasons))]


def _unfit(case: Case, short: int, long: int) -> str:
    """Why a turn is left out; empty where it is not."""
    chosen, rejected = case.answers(short), case.answers(long)
    if not (chosen and rejected):
        return "an answer is missing"
    reasons = {
        "short": unfit(chosen[0].text, most_repeated=0.9),
        "long": unfit(rejected[0].text),
        "answers": "the same text" if chosen[0].text == rejected[0].text else "",
    }
    return ", ".join(f"{name}: {reason}" for name, reason in reasons.items() if reason)


LONGPO = Recipe(
    name="longpo",
    source="arXiv 2502.13922",
    needs=("context",),
    settings=SETTINGS,
    described=DESCRIBED,
    texts=Path(__file__).parent / "prompts" / "longpo",
    prompts=prompts,
    rows=rows,
    loss=LOSS,
)
