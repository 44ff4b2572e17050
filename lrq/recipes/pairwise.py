"""Tournaments of responses: each pair compared in both orders, by the judge or by a preference model.

A judge is asked K (K - 1) questions; a preference or reward model scores all K responses in one call. A liking for a
place cancels out, since P_ij is the mean over both orders.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import permutations
from typing import Any

from lrq.domain.errors import Unreadable, Unscored
from lrq.domain.fences import fenced
from lrq.domain.win_rates import Matrix, logit_matrix, preference_matrix, reward_logits
from lrq.recipes.fanout import gather_all
from lrq.recipes.judge import Judge, Kind

SETTINGS: Mapping[str, Any] = {"passages": 3, "passage_chunk_tokens": 128}
DESCRIBED: Mapping[str, str] = {
    "passages": "Passages of the document nearest to each answer that the judge is shown; 0: none. A preference model "
    "sees question and answers alone",
    "passage_chunk_tokens": "Length in tokens of these passages",
}
KINDS = (Kind(name="pairwise", typical=90),)
_VALUES = {"A": 1.0, "B": 0.0, "C": 0.5}  # of the first answer

Pair = tuple[int, int]  # places of two texts, in the order they were shown


@dataclass(frozen=True, kw_only=True)
class Tournament:
    """What came of comparing K distinct texts; without a matrix `reason` says why."""

    matrix: Matrix = ()  # K × K probabilities of i beating j
    logits: Matrix = ()  # K × K, i shown first, where a preference model compared them
    evidence: Mapping[str, Any] = field(default_factory=dict)
    reason: str = ""


def read_preference(reply: str) -> float:
    """Return 1, 0 or ½ for a last mark of [[A]], [[B]] or [[C]]. Raises Unreadable."""
    start = reply.rfind("[[")
    mark, closed, _ = reply[start + 2 :].partition("]]") if start >= 0 else ("", "", "")
    letter = mark.strip(" *_.").upper().removeprefix("ANSWER ").removeprefix("回答")
    if not closed or letter not in _VALUES:
        raise Unreadable("the last mark is none of [[A]], [[B]] and [[C]]")
    return _VALUES[letter]


async def compare(judge: Judge, question: str, texts: Sequence[str]) -> Tournament:
    """Compare distinct `texts` as answers to `question`, each pair in both orders; of one text nothing is asked.

    A failed comparison leaves the tournament without a matrix, and with its reason.
    """
    if len(texts) < 2:
        return Tournament(matrix=[[0.5]] * len(texts), logits=[[0.0]] * len(texts), evidence=judge.evidence())
    return await (_compare_by_model if judge.prefer else _compare_by_judge)(judge, question, texts)


async def _compare_by_model(judge: Judge, question: str, texts: Sequence[str]) -> Tournament:
    """Compare by logits; rewards are logits by their differences (Bradley and Terry)."""
    assert judge.prefer is not None  # noqa: S101 - the caller has seen to it
    try:
        answer = await judge.prefer(question, texts, dimension=judge.dimension)
    except Unscored as failure:
        return Tournament(evidence=judge.evidence(texts=len(texts)), reason=str(failure))
    are_rewards = len(answer.value[0]) == 1
    logits = reward_logits([reward for [reward] in answer.value]) if are_rewards else answer.value
    raw = {"rewards": [reward for [reward] in answer.value]} if are_rewards else {"logits": answer.value}
    evidence = judge.evidence(answer, texts=len(texts), **raw)
    return Tournament(matrix=logit_matrix(logits), logits=logits, evidence=evidence)


async def _compare_by_judge(judge: Judge, question: str, texts: Sequence[str]) -> Tournament:
    orders = list(permutations(range(len(texts)), 2))
    records = await gather_all(_ask_which(judge, question, texts, order) for order in orders)
    comparisons = dict(zip(orders, records, strict=True))
    evidence = judge.evidence(texts=len(texts), comparisons=records)
    if failed := [(order, record["reason"]) for order, record in comparisons.items() if "reason" in record]:
        (first, second), reason = failed[0]
        others = f", and {len(failed) - 1} more" if failed[1:] else ""
        return Tournament(evidence=evidence, reason=f"comparison of {first} with {second}: {reason}{others}")
    values = {order: float(record["value"]) for order, record in comparisons.items()}
    return Tournament(matrix=preference_matrix(values, len(texts)), evidence=evidence)


async def _ask_which(judge: Judge, question: str, texts: Sequence[str], order: Pair) -> dict[str, Any]:
    """Ask which of two answers is better; return a record of what came of it."""
    first, second = (texts[index] for index in order)
    try:
        sections = {
            "question": fenced(question),
            "first": fenced(first),
            "second": fenced(second),
            "passages": await _passages(judge, first, second),
        }
        answer = await judge.answer("pairwise", read_preference, sections)
    except Unscored as failure:
        return {"order": list(order), "reason": str(failure), "calls": []}
    return {"order": list(order), "value": answer.value, "calls": list(answer.calls)}


async def _passages(judge: Judge, *texts: str) -> str:
    """Return the document's passages nearest to the answers, each once in its order; empty without a document."""
    settings = judge.case.settings
    if not (judge.case.item.context and settings["passages"]):
        return ""
    queries = sorted(texts)  # the same passages in either order
    near = await judge.nearest(queries, count=settings["passages"], chunk_tokens=settings["passage_chunk_tokens"])
    passages = {passage.index: passage for group in near for passage in group}
    return judge.passages(passages[index] for index in sorted(passages)) + "\n\n"
