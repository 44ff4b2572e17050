"""A circuit breaker: an endpoint, or a kind of question, that has only failed for a while pauses the run."""

import asyncio
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field

from lrq.calls.errors import line_of
from lrq.domain.finish import Finish, finish_of
from lrq.domain.records import Call, Purpose, Reply
from lrq.ledger import Writer
from lrq.ledger.breakers import NoteFailure, NoteSuccess, Question
from lrq.ledger.writer import AWAY

_MOST_UNPROVEN = 10  # calls in flight to an endpoint that has not yet brought anything that could be used
_REPEAT_SECONDS = 5.0  # after which a success is told to the other processes once more
_SAMPLE = 200  # characters of a reply that are shown

ADVICE = {
    "unreadable": "see that the model follows the prompt's form, or name another {role}",
    "empty": "raise {role}.reasoning_tokens, turn thinking off in {role}.extra, or name another model",
    "cut": "raise {role}.reasoning_tokens, turn thinking off in {role}.extra, or name another model",
    "withheld": "loosen the server's filter, or name another {role}",
    "unfinished": "see at the server why it ends its replies so, or name another {role}",
    "refused": "mend what the server names in its settings, or leave items out (`lrq resume RUN --skip ITEM`)",
    "error": "see that its url is that of an OpenAI-compatible API, wait until it is well, or name another {role}",
}
_WAYS: dict[Finish, str] = {"length": "cut", "withheld": "withheld", "cut": "unfinished"}


@dataclass
class WarmUp:
    """Room for a few calls in flight, until one has brought something."""

    is_proven: bool = False
    in_flight: int = 0
    waiting: deque[asyncio.Future[None]] = field(default_factory=deque)

    async def enter(self) -> None:
        """Wait for room; whoever has entered has to `leave`, whatever comes of the call."""
        while not self.is_proven and self.in_flight >= _MOST_UNPROVEN:
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self.waiting.append(turn)
            try:
                await turn
            except asyncio.CancelledError:
                self.wake(1)  # it may have been this one's turn
                raise
        self.in_flight += 1

    def leave(self) -> None:
        self.in_flight -= 1
        self.wake(len(self.waiting) if self.is_proven else 1)

    def prove(self) -> None:
        """Let all go: something that can be used has come."""
        self.is_proven = True
        self.wake(len(self.waiting))

    def wake(self, count: int) -> None:
        """Let `count` of those who wait go, the longest waiting first; those who have given up do not count."""
        while count and self.waiting:
            turn = self.waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                count -= 1


class Breaker:
    """One process's part: what the ledger has to know of successes and failures, and no more."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._warm_ups: dict[tuple[object, ...], WarmUp] = {}
        self._told: dict[Question, float] = {}  # when a success was last written

    def warm_up(self, call: Call, purpose: Purpose) -> WarmUp:
        """Return the warm-up of a run at an endpoint, which its calls share."""
        name = purpose.run, call.role, call.endpoint, call.model
        warm_up = self._warm_ups.get(name)
        if warm_up is None:
            warm_up = self._warm_ups[name] = WarmUp()
        return warm_up

    async def answered(self, call: Call, purpose: Purpose) -> None:
        """Note a reply that nobody reads on its own, such as a policy's: that it came is a success."""
        if not is_read(call, purpose):
            await self._succeed(call, purpose)

    async def read(self, call: Call, purpose: Purpose, reply: Reply, problem: str) -> None:
        """Note whether a reply could be read: `problem` says why not, empty where it could.

        Raises RunHalted where too many could not. A `reply` that was bought before says nothing of the endpoint now.
        """
        if reply.reused:
            return
        if not problem:
            await self._succeed(call, purpose)
            return
        choice = reply.choices[0]
        text = choice.text.strip() or choice.reasoning.strip()
        way = _WAYS.get(finish_of(choice.finish)) if choice.finish != "empty" else None
        way = way or ("unreadable" if choice.text.strip() else "empty")
        await self.failed(call, purpose, way, problem, sample=text)

    async def failed(self, call: Call, purpose: Purpose, way: str, problem: str, sample: str = "") -> None:
        """Note a call that brought nothing. Raises RunHalted where it was one too many.

        Args:
            way: a key of ADVICE.
            problem: what was amiss, in words for the run's reason; `sample` is quoted behind them.
        """
        if call.role == "embedding" and way == "refused":
            return  # its requests are made smaller until they are taken
        question = _question(call, purpose)
        self._told.pop(question, None)
        shown = f"; one of the replies: {line_of(sample)[:_SAMPLE]!r}" if sample else ""
        advice = ADVICE[way].format(role=call.role)
        reason = f"{line_of(problem)}{shown}; {advice}"
        with suppress(*AWAY):
            await self._writer.write(NoteFailure(question=question, item=purpose.item, reason=reason))

    async def _succeed(self, call: Call, purpose: Purpose) -> None:
        warm_up = self.warm_up(call, purpose)
        if not warm_up.is_proven:
            warm_up.prove()
        question, now = _question(call, purpose), time.monotonic()
        if now - self._told.get(question, float("-inf")) >= _REPEAT_SECONDS:
            self._told[question] = now
            with suppress(*AWAY):
                await self._writer.write(NoteSuccess(question=question))


def is_read(call: Call, purpose: Purpose) -> bool:
    """Tell whether somebody will say, by `Breaker.read`, if the reply can be read."""
    return call.role == "judge" and call.api == "chat" and bool(purpose.kind)


def _question(call: Call, purpose: Purpose) -> Question:
    return Question(run=purpose.run, role=call.role, endpoint=call.endpoint, model=call.model, kind=purpose.kind)
