"""Doing the parts of a step at the same time, without losing what was paid for."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from typing import TypeVar

from lrq.domain.errors import Unscored
from lrq.domain.records import Response, Score
from lrq.recipes.ports import Case

T = TypeVar("T")


async def settled(work: Iterable[Awaitable[T]]) -> list[T]:
    """Return the results in order, once all have ended; only then raise what went wrong.

    Cancelling siblings would drop replies that are already paid for. What halts the run or the process goes before
    Unscored: a score is final, a halted step is taken up again.
    """
    ended = await asyncio.gather(*work, return_exceptions=True)
    failures = [result for result in ended if isinstance(result, BaseException)]
    for failure in sorted(failures, key=lambda failure: isinstance(failure, Unscored)):
        raise failure
    return [result for result in ended if not isinstance(result, BaseException)]


async def each_text(case: Case, judge: Callable[[Response], Awaitable[Score]]) -> tuple[Score, ...]:
    """Judge all responses at once, equal texts to the same prompt only once; one Score per response, in order."""
    firsts: dict[tuple[int, str], Response] = {}
    for response in case.responses:
        firsts.setdefault((response.prompt, response.text), response)
    scores = dict(zip(firsts, await settled(map(judge, firsts.values())), strict=True))
    return tuple(
        replace(scores[response.prompt, response.text], k=response.k, prompt=response.prompt)
        for response in case.responses
    )
