"""Doing the parts of a step at the same time, without losing what was paid for."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from typing import TypeVar

from lrq.domain.records import Response, Score
from lrq.recipes.ports import Case

T = TypeVar("T")


async def gather_all(work: Iterable[Awaitable[T]]) -> list[T]:
    """Return the results of `work` in order, once all have ended; only then raise the first failure.

    Raising at once would leave siblings behind whose replies are being paid for.
    """
    outcomes = await asyncio.gather(*work, return_exceptions=True)
    results: list[T] = []
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
        results.append(outcome)
    return results


async def each_text(case: Case, judge: Callable[[Response], Awaitable[Score]]) -> tuple[Score, ...]:
    """Judge all responses at once, equal texts to the same prompt only once; one Score per response, in order.

    `judge` is called with the first response that has a text; its score is given to the others with their own k.
    """
    firsts: dict[tuple[int, str], Response] = {}
    for response in case.responses:
        firsts.setdefault((response.prompt, response.text), response)
    scores = dict(zip(firsts, await gather_all(map(judge, firsts.values())), strict=True))
    return tuple(
        replace(scores[response.prompt, response.text], k=response.k, prompt=response.prompt)
        for response in case.responses
    )
