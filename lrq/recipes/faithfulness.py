"""Faithfulness (LongReward, arXiv 2410.21252): a response's statements, each checked against its nearest passages."""

from collections.abc import Mapping, Sequence
from functools import partial
from statistics import fmean
from typing import Any

from lrq.domain.errors import Unscored
from lrq.domain.fences import fenced
from lrq.domain.marks import Support, read_statements, read_support, read_supports
from lrq.domain.records import Passage, Response, Score
from lrq.recipes.fanout import each_text, gather_all
from lrq.recipes.judge import Judge, Kind, failures, not_applicable

DIMENSION = "faithfulness"
BATCH = 16  # statements in one call: with five passages each, up to 10k tokens of evidence
BATCH_TOKENS = 128  # of reply for each of them
KINDS = (
    Kind(name="statements", max_tokens=2048, typical=None, shared=True),
    Kind(name="support", typical=80),
    Kind(name="support_batch", typical=None, times=3),  # a reasoned line for each verdict
)
MAX_STATEMENTS = 200  # checked per response: each is a paid call; how many are left out stands in the evidence

NO_DOCUMENT = "the item has no document"

Evidence = dict[str, Any]  # of one statement: text, passages as [start, end], value, mark, calls; reason if unscored
Passages = Mapping[str, Sequence[Passage]]  # statement → its nearest passages, in document order


async def faithfulness(judge: Judge) -> Sequence[Score]:
    """Score the share of each response's factual statements that the context bears out, times ten.

    Without a context or factual statements: not applicable. With a statement that could not be judged: unscored.
    """
    if not judge.case.item.context:
        return not_applicable(judge.case, DIMENSION, NO_DOCUMENT)
    return await each_text(judge.case, partial(_judge, judge))


async def _judge(judge: Judge, response: Response) -> Score:
    score = partial(Score, dimension=DIMENSION, k=response.k)
    evidence = judge.evidence(statements=[])
    try:
        sections = {"question": judge.question, "answer": fenced(response.text)}
        listed = await judge.answer("statements", read_statements, sections)
        evidence = judge.evidence(listed, statements=[])
        if not listed.value:
            return score(state="not_applicable", reason="no factual statements", evidence=evidence)
        checked = await _check(judge, listed.value[:MAX_STATEMENTS])
    except Unscored as why:
        return score(state="unscored", reason=str(why), evidence=evidence)
    left_out = len(listed.value) - len(checked)
    evidence = judge.evidence(listed, statements=checked, **({"statements_left_out": left_out} if left_out else {}))
    failed = failures("statement", checked)
    if failed:
        return score(state="unscored", reason=failed, evidence=evidence)
    return score(value=10 * fmean(statement["value"] for statement in checked), evidence=evidence)


async def _check(judge: Judge, statements: Sequence[str]) -> list[Evidence]:
    """Return evidence for each statement, in order; equal ones are asked about once and each counts."""
    distinct = tuple(dict.fromkeys(statements))
    settings = judge.case.settings
    near = await judge.nearest(distinct, count=settings["passages"], chunk_tokens=settings["statement_chunk_tokens"])
    passages = dict(zip(distinct, near, strict=True))
    verdicts = await _check_in_batches(judge, passages) if judge.case.settings.get("batch_statements") else {}
    alone = [statement for statement in distinct if statement not in verdicts]
    checked = await gather_all(_check_alone(judge, statement, passages[statement]) for statement in alone)
    verdicts |= dict(zip(alone, checked, strict=True))
    return [verdicts[statement] for statement in statements]


async def _check_alone(judge: Judge, statement: str, near: Sequence[Passage]) -> Evidence:
    try:
        sections = {"statement": fenced(statement), "passages": judge.passages(near)}
        answer = await judge.answer("support", read_support, sections)
    except Unscored as why:
        return _evidence(statement, near, None) | {"reason": str(why)}
    return _evidence(statement, near, answer.value, answer.calls)


async def _check_in_batches(judge: Judge, passages: Passages) -> dict[str, Evidence]:
    """Return the verdicts that could be read from calls of several statements each."""
    pairs = list(passages.items())
    groups = [dict(pairs[start : start + BATCH]) for start in range(0, len(pairs), BATCH)]
    verdicts = await gather_all(_check_batch(judge, group) for group in groups if len(group) > 1)
    return {statement: evidence for group in verdicts for statement, evidence in group.items()}


async def _check_batch(judge: Judge, nearest: Passages) -> dict[str, Evidence]:
    numbered = [judge.text("statement", number=str(n), text=fenced(text)) for n, text in enumerate(nearest, 1)]
    passages = {passage.index: passage for near in nearest.values() for passage in near}
    try:
        answer = await judge.answer(
            "support_batch",
            partial(read_supports, count=len(nearest)),
            {
                "passages": judge.passages(passages[index] for index in sorted(passages)),
                "statements": "\n\n".join(numbered),
            },
            max_tokens=BATCH_TOKENS * (1 + len(nearest)),
        )
    except Unscored:
        return {}
    return {
        statement: _evidence(statement, near, support, answer.calls)
        for (statement, near), support in zip(nearest.items(), answer.value, strict=True)
        if support is not None
    }


def _evidence(statement: str, near: Sequence[Passage], support: Support | None, calls: Sequence[str] = ()) -> Evidence:
    evidence = {
        "text": statement,
        "passages": [[passage.start, passage.end] for passage in near],
        "value": support.value if support else None,
        "mark": support.mark if support else None,
        "calls": list(calls),
    }
    return evidence | {"by_words": True} if any(passage.by_words for passage in near) else evidence
