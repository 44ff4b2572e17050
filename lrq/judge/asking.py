"""Asking the judge until its reply can be read: the one place where re-asks are made."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Protocol, TypeVar

from lrq.domain.dress import short
from lrq.domain.errors import CallFailed, CallRefused, Unreadable, Unscored
from lrq.domain.finish import finish_of
from lrq.domain.records import Call, Choice, Purpose, Reply
from lrq.recipes.ports import Answer, Sampling

T = TypeVar("T")

ATTEMPTS = 5  # in all (LongReward's scripts)
FIRST_TEMPERATURE = 0.01
AGAIN_TEMPERATURE = 0.95  # another sample of the same judge may be readable
DRAWS = 1000  # a recipe's own draws for one vote, at most


class Obtain(Protocol):
    """Whoever obtains replies; lrq.calls.client.Caller in earnest."""

    async def call(self, call: Call, purpose: Purpose) -> Reply: ...


# Of a call, its purpose and reply: why it could not be read; empty where it could. May raise RunHalted.
Report = Callable[[Call, Purpose, Reply, str], Awaitable[None]]


async def _ignore(_call: Call, _purpose: Purpose, _reply: Reply, _problem: str) -> None:
    pass


async def in_series(obtain: Obtain, call: Call, purpose: Purpose, series: int) -> Reply:
    """Return the reply to a call that has no other attempts: an earlier series' first; what failed is asked anew.

    `series` is how often the run's unscored were retried. Raises CallRefused or CallFailed.
    """
    for earlier in range(series):
        try:
            return await obtain.call(replace(call, series=earlier), purpose)
        except (CallRefused, CallFailed) as failure:
            if failure.is_new:
                raise
    return await obtain.call(replace(call, series=series), purpose)


@dataclass(frozen=True, kw_only=True)
class JudgeModel:
    """The endpoint and model that a run has frozen for a dimension."""

    endpoint: str
    model: str
    extra: Mapping[str, Any] = field(default_factory=dict)
    identity: str = ""
    api: str = "chat"  # or "score": a preference model


@dataclass(frozen=True, kw_only=True)
class Asker:
    """Fulfils the port `Ask` for one step of one item.

    The first vote is the very question that a single one would be; further votes are sampled at a temperature, for
    at 0.01 a judge repeats itself. Kinds of prompt that are `shared` are asked once for all votes.
    """

    caller: Obtain
    models: Callable[[str, str], JudgeModel]  # of a dimension and a prompt
    purpose: Purpose
    series: int = 0  # how often the run's unscored were retried: an earlier series' replies are read first
    vote: int = 0
    shared: frozenset[str] = frozenset()
    report: Report = _ignore  # is told of every reply whether it could be read

    async def __call__(
        self,
        kind: str,
        prompt: str,
        read: Callable[[str], T],
        *,
        dimension: str,
        max_tokens: int,
        draw: int = 0,
        sampling: Sampling | None = None,
    ) -> Answer[T]:
        model = self.models(dimension, prompt)
        sample = (0 if kind in self.shared else self.vote) * DRAWS + draw
        make_call = partial(
            Call,
            role="judge",
            endpoint=model.endpoint,
            model=model.model,
            messages=({"role": "user", "content": prompt},),
            extra=model.extra,
            identity=model.identity,
            draw=sample,
            top_p=sampling["top_p"] if sampling else 1.0,
        )
        purpose = replace(self.purpose, dimension=dimension, kind=kind)
        first = AGAIN_TEMPERATURE if sample else FIRST_TEMPERATURE
        temperatures = (sampling["temperature"],) * 2 if sampling else (first, AGAIN_TEMPERATURE)
        keys: list[str] = []
        reason = ""
        for series in range(self.series + 1):
            try:
                return await self._ask(partial(make_call, series=series), temperatures, purpose, read, max_tokens, keys)
            except _Fruitless as fruitless:
                reason = f"{dimension}, {kind}: {fruitless}"
                if fruitless.is_new:  # it was asked just now: another series is for another `resume --failed`
                    break
        raise Unscored(reason)

    async def _ask(
        self,
        make_call: Callable[..., Call],
        temperatures: tuple[float, float],  # of the first attempt, and of the others
        purpose: Purpose,
        read: Callable[[str], T],
        max_tokens: int,
        keys: list[str],
    ) -> Answer[T]:
        problem, is_new = "", False
        for attempt in range(ATTEMPTS):
            call = make_call(attempt=attempt, temperature=temperatures[attempt > 0], max_tokens=max_tokens)
            try:
                reply = await self.caller.call(call, purpose)
            except (CallRefused, CallFailed) as failure:
                raise _Fruitless(str(failure), is_new=is_new or failure.is_new) from None
            is_new = is_new or not reply.reused
            keys.append(reply.key)
            choice = reply.choices[0]
            try:
                if finish_of(choice.finish) == "length":
                    max_tokens *= 2
                _require_end(choice)
                value = read(choice.text)
            except Unreadable as unreadable:
                problem = str(unreadable)
                await self.report(call, purpose, reply, problem)
            else:
                await self.report(call, purpose, reply, "")
                return Answer(value=value, text=choice.text, calls=tuple(keys))
        raise _Fruitless(f"no readable reply in {ATTEMPTS} attempts: {problem}", is_new=is_new)


def _require_end(choice: Choice) -> None:
    """Raise Unreadable unless the reply is known to have ended, with a text."""
    finish = finish_of(choice.finish)
    if choice.finish == "refusal":
        raise Unreadable(f"the judge refuses: {short(choice.text)}")
    if finish == "withheld":
        raise Unreadable(f"the reply was withheld by a content filter ({short(choice.finish)})")
    if finish == "length":
        raise Unreadable("the reply was cut by its length")
    if finish == "cut" and choice.finish != "empty":  # a reply without choices
        raise Unreadable(f"the reply is unfinished: finish_reason {short(choice.finish)}")
    if not choice.text.strip():
        raise Unreadable("the reply holds nothing besides its thoughts" if choice.reasoning else "the reply is empty")


class _Fruitless(Exception):
    """A series of attempts without a readable reply. `is_new`: some of it was asked just now, not read again."""

    def __init__(self, reason: str, *, is_new: bool) -> None:
        super().__init__(reason)
        self.is_new = is_new
