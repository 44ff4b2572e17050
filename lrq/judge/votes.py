"""Several votes for each score: the step is judged once for each, their mean counts, their spread is kept."""

import asyncio
import statistics
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

from lrq.domain.records import Score


async def cast(votes: int, judge: Callable[[int], Awaitable[Sequence[Score]]]) -> Sequence[Score]:
    """Judge a step `votes` times at once; `judge` takes the vote's number, from 0.

    A failure is raised after all votes have ended: their replies are paid for and committed.
    """
    ended = await asyncio.gather(*(judge(vote) for vote in range(votes)), return_exceptions=True)
    ballots: list[Sequence[Score]] = []
    for ballot in ended:
        if isinstance(ballot, BaseException):
            raise ballot
        ballots.append(ballot)
    return _mean(ballots)


def _mean(ballots: Sequence[Sequence[Score]]) -> Sequence[Score]:
    """Return the mean of several votes for each score, with their spread; what is no value in any vote stays so."""
    if len(ballots) == 1:
        return ballots[0]
    votes: dict[tuple[int, int, str], list[Score]] = defaultdict(list)
    for ballot in ballots:
        for score in ballot:
            votes[score.prompt, score.k, score.dimension].append(score)
    return [_merge(scores) for scores in votes.values()]


def _merge(scores: Sequence[Score]) -> Score:
    without = next((score for score in scores if score.state == "unscored"), None)
    without = without or next((score for score in scores if score.state != "value"), None)
    first, *others = scores
    ballots = [{"value": first.value}, *({"value": score.value, **score.evidence} for score in others)]
    evidence = {**first.evidence, "votes": ballots}
    if without is not None:
        return replace(without, evidence=evidence)
    values = [score.value for score in scores if score.value is not None]
    spread = statistics.pstdev(values)  # of these votes, on the dimension's scale
    return replace(first, value=statistics.fmean(values), evidence=evidence | {"spread": spread})
