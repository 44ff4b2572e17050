"""Documents alone: a teacher asks, the policy answers, a judge reads passages. --recipe …/ask_back.py:ASK_BACK."""

from dataclasses import replace

from lrq.domain.records import CONTEXT, Prompt
from lrq.recipes import Kind, Recipe, Step

TEXTS = {
    "en/passage": "[Passage {{number}}]\n{{text}}",
    "en/borne_out": "How far do the passages bear the answer out, from 0 to 10?\n\n{{passages}}\n\n"
    "[Answer]\n{{answer}}\n\nSay in a line why, and close with [[n]].",
}


def prompts(case):
    """Have a question written about the document, then have it answered."""
    if not case.prompts:
        ask = f"~~~~\n{CONTEXT}\n~~~~\n\nAsk one question that only a reader of this document can answer."
        return [Prompt(name="question", by="teacher", samples=1, messages=({"role": "user", "content": ask},))]
    if case.named("answer") or not case.answers(0):
        return []
    answer = f"~~~~\n{CONTEXT}\n~~~~\n\n{case.answers(0)[0].text}"
    return [Prompt(name="answer", messages=({"role": "user", "content": answer},))]


async def borne_out(judge):
    """Score the policy's answers by the passages nearest to the question."""
    case = judge.case
    (passages,) = await judge.nearest([case.answers(0)[0].text], count=4, chunk_tokens=128)
    answers = replace(judge, case=replace(case, responses=tuple(case.answers(1))))
    return await answers.score_each("borne_out", passages=judge.passages(passages))


STEP = Step(name="borne_out", procedure=borne_out, kinds=(Kind(name="borne_out", max_tokens=300),))
ASK_BACK = Recipe(name="ask_back", needs=("context",), texts=TEXTS, prompts=prompts, steps=(STEP,))
