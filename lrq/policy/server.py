"""The policy behind an OpenAI-compatible server (vLLM, SGLang): n responses of one paid request."""

import asyncio
import hashlib
import json
import re
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from lrq.domain.errors import CallFailed, CallRefused, Stopping
from lrq.domain.finish import finish_of
from lrq.domain.records import Call, Choice, Message, Reply
from lrq.domain.thoughts import Thoughts, split_thoughts
from lrq.domain.tokens import count_tokens
from lrq.policy.cut import Fitted, OverLong, fit
from lrq.policy.port import Prompt, Sampled, Samples, Sampling, ShouldStop, never
from lrq.policy.window import CUTS, is_too_long, model_tokens, prompt_room, shorter_limit

Ask = Callable[[Call], Awaitable[Reply]]  # claims, sends and settles; raises as lrq.domain.errors says

# A refusal that speaks of the parameter n: "n must be 1", "'n' > 1 is not supported"; a \n in quoted JSON is none.
_SPEAKS_OF_N = re.compile(r"(?<![\w\\])n(?!\w)")
ContextLength = Callable[[], Awaitable[int | None]]  # what the server says of itself: tokens of prompt and reply

_IDS = "return_token_ids"  # the field by which vLLM and SGLang are asked for tokens


class _IdsRefused(Exception):
    """The server knows no such field, and refuses what it does not know."""


class ServerPolicy:
    """A server that keeps the policy; what was paid for is found again by its key."""

    def __init__(
        self,
        url: str,
        *,
        model: str,
        endpoint: str,
        ask: Ask,
        template: Mapping[str, Any] | None = None,
        context_length: ContextLength | None = None,
    ) -> None:
        self.fingerprint = hashlib.blake2b(f"{url}\n{model}".encode(), digest_size=16).hexdigest()
        self._model, self._endpoint, self._ask = model, endpoint, ask
        self._template = dict(template or {})
        self._context_length = context_length
        self._window: int | None = None  # tokens of prompt and reply, as the server says before it is asked
        self._one_by_one = False  # learned: this server takes no n above 1
        self._says_ids = True  # until it refuses to: vLLM and SGLang give the tokens that they drew

    async def sample(
        self, prompt: Prompt, sampling: Sampling, *, ks: Sequence[int] | None = None, should_stop: ShouldStop = never
    ) -> Samples:
        """Ask for all n even where fewer `ks` are wanted: the same keys then find what was paid for; see Policy."""
        started = time.perf_counter()
        if self._context_length is not None:
            ask, self._context_length = self._context_length, None
            self._window = await ask()
        limit = prompt_room(self._window, sampling.max_new_tokens)
        draw = _Drawn(reasons=dict.fromkeys(range(sampling.n), "over_long"))
        fitted = Fitted(messages=tuple(prompt.messages), tokens=0)
        for _ in range(CUTS):
            try:
                fitted = _fit(prompt, sampling, limit)
            except OverLong:
                break  # the server's words stand, if there are any
            draw = await self._draw(prompt, fitted.messages, sampling, should_stop)
            if sampling.over_long == "refuse" or not is_too_long(draw.refusal):
                break
            sent_tokens = model_tokens(fitted.messages)
            limit = shorter_limit(draw.refusal, sent_tokens, sampling.max_new_tokens, self._window)
        return Samples(
            responses=tuple(draw.response(k) for k in (range(sampling.n) if ks is None else ks)),
            messages=fitted.messages,
            cut=fitted.cut,
            prompt_tokens=draw.prompt_tokens,
            completion_tokens=draw.completion_tokens,
            seconds=time.perf_counter() - started,
            calls=tuple(draw.calls),
            rendering={"server": True, "template": self._template, "at": prompt.at},
        )

    def release(self) -> None:
        """Do nothing: the accelerator is the server's."""

    def restore(self) -> None:
        """Do nothing: the accelerator is the server's."""

    async def _draw(
        self, prompt: Prompt, messages: Sequence[Message], sampling: Sampling, should_stop: ShouldStop
    ) -> "_Drawn":
        """Ask for all in one request; for what it does not bring, one by one."""
        try:
            return await self._draw_all(self._call(prompt, messages, sampling), should_stop)
        except _IdsRefused:
            self._says_ids = False
            return await self._draw_all(self._call(prompt, messages, sampling), should_stop)

    async def _draw_all(self, call: Call, should_stop: ShouldStop) -> "_Drawn":
        draw = _Drawn()
        refused = self._one_by_one
        if not refused:
            try:
                draw.add(await self._asked(call, should_stop), range(call.n))
            except (CallRefused, CallFailed) as error:
                if _IDS in str(error) and _IDS in call.extra:
                    raise _IdsRefused from error
                refused = isinstance(error, CallRefused) and call.n > 1 and bool(_SPEAKS_OF_N.search(str(error)))
                if not refused:
                    refusal = str(error) if isinstance(error, CallRefused) else ""
                    return _Drawn(reasons=dict.fromkeys(range(call.n), str(error)), refusal=refusal)
        await self._draw_singly(call, draw, should_stop)
        self._one_by_one = refused and bool(draw.choices)
        return draw

    async def _draw_singly(self, call: Call, drawn: "_Drawn", should_stop: ShouldStop) -> None:
        """Make one request for each response that is missing; a refused one costs one response."""
        ks = [k for k in range(call.n) if k not in drawn.choices]
        requests = [self._asked(replace(call, n=1, draw=k, seed=seed(call.seed, k)), should_stop) for k in ks]
        # All are awaited even when one raises: the others are paid for and must be committed.
        for k, reply in zip(ks, await asyncio.gather(*requests, return_exceptions=True), strict=True):
            if isinstance(reply, CallRefused | CallFailed):
                drawn.reasons[k] = str(reply)
            elif isinstance(reply, BaseException):
                raise reply
            else:
                drawn.add(reply, [k])

    def _call(self, prompt: Prompt, messages: Sequence[Message], sampling: Sampling) -> Call:
        # The fields that vLLM, SGLang and their like read.
        template = {"chat_template_kwargs": self._template} if self._template else {}
        return Call(
            role="policy",
            endpoint=self._endpoint,
            model=self._model,
            messages=messages,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            max_tokens=sampling.max_new_tokens,
            n=sampling.n,
            extra=template | ({_IDS: True} if self._says_ids else {}),
            seed=seed(sampling.seed, prompt.item, prompt.round, prompt.index),
        )

    async def _asked(self, call: Call, should_stop: ShouldStop) -> Reply:
        if should_stop():
            raise Stopping("no further request is made")
        return await self._ask(call)


@dataclass
class _Drawn:
    choices: dict[int, Choice] = field(default_factory=dict)  # by k
    reasons: dict[int, str] = field(default_factory=dict)  # by k, where there is no choice
    calls: list[str] = field(default_factory=list)
    refusal: str = ""  # of the request as a whole
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def add(self, reply: Reply, ks: Sequence[int]) -> None:
        self.choices |= dict(zip(ks, reply.choices, strict=False))  # a server may give fewer than asked for, or more
        self.calls.append(reply.key)
        self.prompt_tokens = max(self.prompt_tokens, reply.usage.prompt_tokens)
        self.completion_tokens += reply.usage.completion_tokens

    def response(self, k: int) -> Sampled:
        choice = self.choices.get(k)
        if choice is None:
            return Sampled(k=k, text=None, reason=self.reasons.get(k, "no_choices"))
        parted = split_thoughts(choice.text)
        reason = _reason(choice.finish, parted)
        thought = "\n".join(filter(None, (choice.reasoning, parted.thought)))
        return Sampled(
            k=k,
            text=None if reason else parted.answer,
            reason=reason,
            finish="length" if finish_of(choice.finish) == "length" else choice.finish,
            tokens=len(choice.ids) or None,
            ids=tuple(choice.ids),
            written=f"<think>\n{thought}\n</think>\n\n{parted.answer}" if thought else None,
            form="reasoning_content" if thought else "content",
        )


def _reason(finish: str, parted: Thoughts) -> str:
    """Return why a choice is no response, or nothing; one cut by its length is a response if its thoughts ended."""
    ended = finish_of(finish)
    if ended == "withheld":
        return finish
    if ended == "cut":
        return "empty" if finish == "empty" else f"unfinished: {finish}"
    return "" if parted.closed and parted.answer.strip() else "empty"


def seed(*names: object) -> int:
    """Return 31 bits for the server: other `names` (item, round, draw) get other noise, if the server minds it."""
    return int.from_bytes(hashlib.blake2b(json.dumps(names).encode(), digest_size=4).digest(), "big") >> 1


def _fit(prompt: Prompt, sampling: Sampling, limit: int | None) -> Fitted:
    """Cut to the setting, in our own unit, and to what the server takes, in about its tokens. Raises OverLong."""

    def count(messages: Sequence[Message]) -> int:
        return sum(count_tokens(message["content"]) for message in messages)

    over_long = sampling.over_long
    chosen = fit(prompt.messages, prompt.context, count=count, limit=sampling.max_prompt_tokens, over_long=over_long)
    if limit is None or model_tokens(chosen.messages) <= limit:
        return chosen
    return fit(prompt.messages, prompt.context, count=model_tokens, limit=limit, over_long=over_long)
