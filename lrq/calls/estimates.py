"""How many tokens a call takes: at most, and as expected, learnt from those that were counted."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from lrq.domain.records import Call, Choice, Purpose, Usage, utf8_length

_TOKENS_PER_BYTE = 0.28  # of UTF-8, before anything was counted: English about 0.25, Chinese about 0.3
_SHARE_OF_LIMIT = 0.25  # of max_tokens that a completion takes, before anything was counted
_WEIGHT = 0.05  # of the newest count in the running mean
_PER_MESSAGE = 64  # tokens that a chat template adds to a message, and more
_UNLIMITED = 32_768  # of completion, where the call names no limit: what today's models answer at most


def at_most(call: Call) -> Usage:
    """An upper bound: no tokenizer makes more tokens than there are bytes."""
    prompt = call.size + _PER_MESSAGE * (len(call.messages) + len(call.input))
    if call.role == "embedding":
        return Usage(prompt_tokens=prompt)
    own = {"max_tokens": call.max_tokens, "n": call.n, **call.extra}  # as the request's body has it
    limits = [own[name] for name in ("max_tokens", "max_completion_tokens") if own.get(name) is not None]
    return Usage(prompt_tokens=prompt, completion_tokens=int(max(limits, default=_UNLIMITED)) * int(own["n"] or 1))


def counted(call: Call, choices: Sequence[Choice], usage: Usage) -> tuple[Usage, str]:
    """What a reply is charged with, and a note where the server did not count it itself: never nothing."""
    if usage.prompt_tokens and usage.completion_tokens:
        return usage, ""
    most = at_most(call)
    said = sum(utf8_length(choice.text) + utf8_length(choice.reasoning) for choice in choices)
    charged = usage
    if not usage.prompt_tokens:
        charged = replace(charged, prompt_tokens=most.prompt_tokens)
    if not usage.completion_tokens and said:
        charged = replace(charged, completion_tokens=min(said, most.completion_tokens))
    return charged, "" if charged == usage else "the server counted no tokens: bytes are charged in their place"


class Expectation:
    """Running means: tokens per prompt byte for each model, completion tokens for each kind of prompt."""

    def __init__(self) -> None:
        self._per_byte: dict[tuple[str, str], float] = {}
        self._completion: dict[tuple[str, str, str], float] = {}

    def tokens(self, call: Call, purpose: Purpose) -> int:
        per_byte = self._per_byte.get((call.endpoint, call.model), _TOKENS_PER_BYTE)
        first = (call.max_tokens or 0) * _SHARE_OF_LIMIT
        completion = self._completion.get((call.endpoint, call.model, purpose.kind), first) * call.n
        return max(1, round(call.size * per_byte + completion))

    def learn(self, call: Call, purpose: Purpose, usage: Usage) -> None:
        if call.size and usage.prompt_tokens:
            _move(self._per_byte, (call.endpoint, call.model), usage.prompt_tokens / call.size)
        if usage.completion_tokens:
            _move(self._completion, (call.endpoint, call.model, purpose.kind), usage.completion_tokens / call.n)


def _move(means: dict[Any, float], name: Any, value: float) -> None:
    known = means.get(name)
    means[name] = value if known is None else known + _WEIGHT * (value - known)
