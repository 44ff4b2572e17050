"""How many tokens a call is expected to take, learnt from those that were counted."""

from typing import Any

from lrq.domain.records import Call, Purpose, Usage

_TOKENS_PER_BYTE = 0.28  # of UTF-8, before anything was counted: English about 0.25, Chinese about 0.3
_SHARE_OF_LIMIT = 0.25  # of max_tokens that a completion takes, before anything was counted
_WEIGHT = 0.05  # of the newest count in the running mean


class Expectation:
    """Running means: tokens per prompt byte for each model, completion tokens for each kind of prompt."""

    def __init__(self) -> None:
        self._per_byte: dict[tuple[str, str], float] = {}
        self._completion: dict[tuple[str, str, str], float] = {}

    def tokens(self, call: Call, purpose: Purpose) -> int:
        per_byte = self._per_byte.get((call.endpoint, call.model), _TOKENS_PER_BYTE)
        first = (call.max_tokens or 0) * _SHARE_OF_LIMIT
        completion = self._completion.get((call.endpoint, call.model, purpose.kind), first) * call.n
        return max(1, round(_size(call) * per_byte + completion))

    def learn(self, call: Call, purpose: Purpose, usage: Usage) -> None:
        size = _size(call)
        if size and usage.prompt_tokens:
            _move(self._per_byte, (call.endpoint, call.model), usage.prompt_tokens / size)
        if usage.completion_tokens:
            _move(self._completion, (call.endpoint, call.model, purpose.kind), usage.completion_tokens / call.n)


def _move(means: dict[Any, float], name: Any, value: float) -> None:
    known = means.get(name)
    means[name] = value if known is None else known + _WEIGHT * (value - known)


def _size(call: Call) -> int:
    """Bytes of what is asked."""
    return sum(len(message["content"].encode()) for message in call.messages) + sum(map(len, call.input))
