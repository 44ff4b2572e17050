"""LongPO (arXiv 2502.13922): the answer to a short context preferred over the same policy's answer to the long one.

The document is cut into chunks, questions on each are written by the policy (or a teacher), one is answered twice: from
its chunk, and from the whole document. No judge is needed. All turns of a document make one row, whose reference is the
policy on the short prompt, for both answers. Items may bring `questions` with their `short_contexts` instead. On
request a judge is asked which of the two answers is the better one; what it says is reported, and not trained on.
"""

import random
import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from lrq.domain.fences import fenced
from lrq.domain.language import language
from lrq.domain.records import CONTEXT, Chunk, Dimension, NoRow, Prompt, Reward, Row, Score, Turn
from lrq.domain.tokens import count_tokens
from lrq.recipes import pairwise
from lrq.recipes.fanout import gather_all
from lrq.recipes.judge import Judge
from lrq.recipes.longpo_filters import read_questions, unfit
from lrq.recipes.ports import Case
from lrq.recipes.recipe import Recipe, Step
from lrq.recipes.templates import fill, load_prompts

T = TypeVar("T")

SETTINGS: Mapping[str, Any] = {
    "responses": 1,
    "chunk_tokens": 30_000,
    "least_chunk_tokens": 16_384,
    "chunk_by": "paragraphs",
    "chunks": 4,
    "questions": 4,
    "questions_by": "policy",
    "answer_temperature": 0.0,
    "compare_answers": False,
    **pairwise.SETTINGS,
}
DESCRIBED: Mapping[str, str] = {
    "responses": "Answers to each prompt",
    "chunk_tokens": "Longest chunk of a document, in our own unit",
    "least_chunk_tokens": "Shortest chunk; what would be shorter is left out",
    "chunk_by": "What chunks are filled with: paragraphs, parted by blank lines, or sections of LaTeX",
    "chunks": "Chunks of a document, or of the questions it brings, drawn at random: as many turns as its row can have",
    "questions": "Questions that are asked for on each chunk; one of them is kept, drawn at random",
    "questions_by": "Who writes them: policy or teacher",
    "answer_temperature": "Of both answers: greedy in the paper; the released code has 1.0",
    "compare_answers": "Ask the judge which answer is better, in both orders, and report how often the short one is",
    **pairwise.DESCRIBED,
}
CHOICES: Mapping[str, tuple[str, ...]] = {
    "chunk_by": ("paragraphs", "sections"),
    "questions_by": ("policy", "teacher"),
}
LOSS: Mapping[str, Any] = {  # equation 7: NLL of the whole chosen sequence + λ · preference
    "loss_type": ["nll", "sigmoid"],
    "loss_weights": [1.0, 0.01],
    "beta": 0.1,  # the released code has 0.01
    "learning_rate": 5e-7,
    "batch_size": 8,
}
_PROMPTS = Path(__file__).parent / "prompts"
_QUESTION_SAMPLING = {"temperature": 0.7, "top_p": 0.9, "max_new_tokens": 1024}


_SHORT_WINS = Dimension(name="short_wins", low=0.0, high=1.0)
_PARTS = {
    "paragraphs": re.compile(r"\n\n+"),
    "sections": re.compile(r"(?=\\(?:sub){0,2}section\*?\{)"),  # before each, with what stands before the first
}


def chunks(text: str, *, least: int, most: int, by: str = "paragraphs") -> list[Chunk]:
    """Return stretches of whole paragraphs, or sections of LaTeX, with `least` to `most` tokens, in order.

    What would be shorter is left out, and so is a paragraph or section longer than `most`. `by` is "paragraphs" or
    "sections".
    """
    spans: list[Chunk] = []
    start, end, tokens = 0, 0, 0
    for part in (*parts(text, by), None):
        size = most + 1 if part is None else count_tokens(text[part.start : part.end])
        if tokens + size > most:
            if tokens >= least:
                spans.append(Chunk(start=start, end=end))
            tokens = 0
        if part is not None and size <= most:
            start = part.start if tokens == 0 else start
            end, tokens = part.end, tokens + size
    return spans


def parts(text: str, by: str) -> list[Chunk]:
    """Return the paragraphs or sections of a text, without those that are blank; `by` names them, as in CHOICES."""
    seams = [(match.start(), match.end()) for match in _PARTS[by].finditer(text)]
    starts, ends = [0, *(end for _, end in seams)], [*(start for start, _ in seams), len(text)]
    return [Chunk(start=a, end=b) for a, b in zip(starts, ends, strict=True) if text[a:b].strip()]


def prompts(case: Case) -> Sequence[Prompt]:
    """Have questions written on each chunk; then make a short and a long prompt of one question of each."""
    if case.named("long"):
        return ()
    item, settings = case.item, case.settings
    if questions := item.fields.get("questions"):
        if _missing_contexts(case):
            return ()
        pairs = _draw(case, list(zip(questions, item.fields["short_contexts"], strict=True)), "questions")
        return [prompt for question, short in pairs for prompt in _pair(case, str(question), short)]
    if not case.prompts:
        by = settings.get("chunk_by", "paragraphs")
        spans = chunks(item.context, least=settings["least_chunk_tokens"], most=settings["chunk_tokens"], by=by)
        return [_question_prompt(case, span) for span in _draw(case, spans, "chunks")]
    return [prompt for number in case.named("questions") for prompt in _answer_prompts(case, number)]


def _draw(case: Case, choices: Sequence[T], what: str) -> list[T]:
    """Draw as many as a row may have turns, in their order; the same for an item each time."""
    count = min(case.settings["chunks"], len(choices))
    places = random.Random(f"{what} of {case.item.id}").sample(range(len(choices)), count)
    return [choices[index] for index in sorted(places)]


def _missing_contexts(case: Case) -> str:
    """Say that an item's questions have no short context each; empty where they have."""
    questions, contexts = (len(case.item.fields.get(name, ())) for name in ("questions", "short_contexts"))
    return "" if questions == contexts else f"{questions} questions, and {contexts} short_contexts: one is for each"


def _question_prompt(case: Case, span: Chunk) -> Prompt:
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


def _answer_prompts(case: Case, number: int) -> list[Prompt]:
    """Return the short and the long prompt of a question on a chunk; none where its questions cannot be read."""
    answers = case.answers(number)
    questions = read_questions(answers[0].text, case.settings["questions"]) if answers else []
    if not questions:
        return []
    question = random.Random(f"question {number} of {case.item.id}").choice(questions)
    return _pair(case, question, case.prompts[number].span)


def _pair(case: Case, question: str, short: Chunk | str | None) -> list[Prompt]:
    """Return the short prompt, on a stretch of the context or on a text of its own, and the long one."""
    span = short if isinstance(short, Chunk) else None
    passage = case.item.context[span.start : span.end] if span else str(short)
    return [
        _answer_prompt(case, question, name="short", passage=passage, span=span),
        _answer_prompt(case, question, name="long", passage=case.item.context, is_whole=True),
    ]


def _answer_prompt(
    case: Case, question: str, *, name: str, passage: str, span: Chunk | None = None, is_whole: bool = False
) -> Prompt:
    fence = fenced(passage).partition("\n")[0]
    shown = CONTEXT if span or is_whole else passage.replace(CONTEXT, " ")
    text = f"{fence}\n{shown}\n{fence}\n\n{question.replace(CONTEXT, ' ')}"
    # A long prompt that is cut may lose the passage, and training on it would teach answers that stand nowhere.
    sampling = {"temperature": case.settings["answer_temperature"], "over_long": "refuse"}
    message = {"role": "user", "content": text}
    return Prompt(name=name, messages=(message,), span=span, samples=1, sampling=sampling, followup=question)


def rows(case: Case, rewards: Sequence[Reward]) -> Sequence[Row | NoRow]:
    """Make one row of all turns whose two answers are fit to be trained on."""
    if missing := _missing_contexts(case):
        return [NoRow(reason=missing)]
    if not case.named("long"):
        return [NoRow(reason="no chunk has a list of questions that can be read")]
    turns: list[Turn] = []
    reasons: list[str] = []
    for short, long in _turns(case):
        reason = _unfit(case, short, long)
        if reason:
            reasons.append(reason)
        else:
            turns.append(Turn(prompt=long, chosen=(short, 0), rejected=(long, 0), reference=short))
    return [Row(turns=tuple(turns))] if turns else [NoRow(reason="; ".join(reasons))]


def _unfit(case: Case, short: int, long: int) -> str:
    """Say why a turn is left out; empty where it is not."""
    chosen, rejected = case.answers(short), case.answers(long)
    if not (chosen and rejected):
        return "an answer is missing (it is empty, or its prompt is longer than the policy's window)"
    reasons = {
        "short": unfit(chosen[0].text, most_repeated=0.9),
        "long": unfit(rejected[0].text),
        "answers": "the same text" if chosen[0].text == rejected[0].text else "",
    }
    return ", ".join(f"{name}: {reason}" for name, reason in reasons.items() if reason)


def _turns(case: Case) -> list[tuple[int, int]]:
    """Return the numbers of each turn's short and long prompt."""
    return list(zip(case.named("short"), case.named("long"), strict=True))


async def compare_answers(judge: Judge) -> Sequence[Score]:
    """Score each answer to a short prompt by the probability that it beats the one to the long prompt."""
    return await gather_all(_compare_turn(judge, short, long) for short, long in _turns(judge.case))


async def _compare_turn(judge: Judge, short: int, long: int) -> Score:
    score = partial(Score, dimension=_SHORT_WINS.name, k=0, prompt=short)
    answers = [*judge.case.answers(short), *judge.case.answers(long)]
    if len(answers) < 2:
        return score(state="not_applicable", reason="an answer is missing")
    texts = list(dict.fromkeys(answer.text for answer in answers))
    tournament = await pairwise.compare(judge, judge.case.prompts[short].followup, texts)
    if tournament.reason:
        return score(state="unscored", reason=tournament.reason, evidence=tournament.evidence)
    value = tournament.matrix[0][1] if len(texts) > 1 else 0.5
    evidence = {**tournament.evidence, "matrix": [list(row) for row in tournament.matrix]}
    return score(value=value, evidence=evidence)


LONGPO = Recipe(
    name="longpo",
    source="arXiv 2502.13922",
    needs=("context",),
    settings=SETTINGS,
    described=DESCRIBED,
    choices=CHOICES,
    texts=load_prompts(_PROMPTS / "sppo") | load_prompts(_PROMPTS / "longpo"),
    prompts=prompts,
    steps=(
        Step(
            name="pairwise",
            procedure=compare_answers,
            dimensions=(_SHORT_WINS,),
            kinds=pairwise.KINDS,
            compares=True,
            when=lambda settings: bool(settings.get("compare_answers")),
        ),
    ),
    rows=rows,
    carries=lambda _settings: ("rejected",),
    loss=LOSS,
)
