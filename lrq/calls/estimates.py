"""How many tokens a call takes: at most, and as expected, learnt from those that were counted."""

from collections.abc import Sequence
from dataclasses import replace
from math import ceil
from typing import Any

from lrq.calls.forms import PLAIN, Form, limit_of, parameters
from lrq.domain.records import Call, Choice, Purpose, Usage, utf8_length

_TOKENS_PER_BYTE = 0.28  # of UTF-8, before anything was counted: English about 0.25, Chinese about 0.3
_SHARE_OF_LIMIT = 0.25  # of max_tokens that a completion takes, before anything was counted
_WEIGHT = 0.05  # of the newest count in the running mean
_MARGIN = 1.1  # above the most tokens to a byte that were counted
_PER_MESSAGE = 64  # tokens that a chat template adds to a message, and more
_HIDDEN_PROMPT = 32_768  # tokens that a gateway may add of its own, beyond all that bytes allow
_HIDDEN_THOUGHT = 131_072  # tokens of one reply's thoughts, which some servers do not hold to its limit
_UNLIMITED = 32_768  # of completion, where the call names no limit: what today's models answer at most


def at_most(call: Call, form: Form = PLAIN) -> Usage:
    """Return an upper bound of what the request in this `form` allows: no tokenizer makes more tokens than bytes.

    Some make the text longer before they cut it: of its normal forms the longest counts. Only `prompt_tokens` and
    `completion_tokens` are set.
    """
    prompt = ceil((call.longest + _PER_MESSAGE * (len(call.messages) + len(call.input))) * form.prompt_factor)
    if call.api != "chat":
        times = max(1, len(call.input) - 1) if call.api == "score" else 1  # the prompt is read with each response
        return Usage(prompt_tokens=prompt * times)
    request = parameters(call, form)
    limit = limit_of(request) or 0
    completions = max(int(request.get("n", 1)), int(request.get("best_of", 1)))  # the best of more may be sent back
    most = (limit if limit > 0 else _UNLIMITED) * max(1, completions)
    return Usage(prompt_tokens=prompt, completion_tokens=ceil(most * form.completion_factor))


def counted(call: Call, choices: Sequence[Choice], usage: Usage, form: Form = PLAIN) -> tuple[Usage, str]:
    """Return what a reply is charged with, and a note where it is not what the server counted: never nothing.

    `usage` is what the server counted, `choices` are the reply, `form` the one that the call was sent in. A count that
    no tokenizer and no hidden words explain is as good as none: bytes take its place.
    """
    if 0 < usage.prompt_tokens <= call.size and 0 < usage.completion_tokens <= (call.max_tokens or 0):
        return usage, ""
    most = at_most(call, form)
    length = sum(utf8_length(choice.text) + utf8_length(choice.reasoning) for choice in choices)
    is_cut = any(choice.finish == "length" for choice in choices)
    charged, note = usage, ""
    if usage.prompt_tokens > call.size + most.prompt_tokens + _HIDDEN_PROMPT:
        charged, note = replace(charged, prompt_tokens=0, cached_tokens=0), "what the server counted cannot be"
    if usage.completion_tokens > call.size + most.completion_tokens + _HIDDEN_THOUGHT * call.n:
        charged, note = replace(charged, completion_tokens=0), "what the server counted cannot be"
    if not charged.prompt_tokens:
        charged = replace(charged, prompt_tokens=most.prompt_tokens)
    if not charged.completion_tokens and (length or is_cut) and call.api == "chat":
        tokens = most.completion_tokens if is_cut else min(length, most.completion_tokens)
        charged = replace(charged, completion_tokens=tokens)
    reasoning = min(charged.reasoning_tokens, charged.completion_tokens)
    note = "" if charged == usage else f"{note or 'the server counted no tokens'}: bytes are charged in their place"
    return replace(charged, reasoning_tokens=reasoning), note


def split_total(call: Call, choices: Sequence[Choice], total: int) -> Usage:
    """Part a sum of tokens: what was written is the completion's by its bytes, or its limit where it was cut.

    The rest is the prompt's, as far as its text can have so many; what is beyond that was thought.
    """
    length = sum(utf8_length(choice.text) + utf8_length(choice.reasoning) for choice in choices)
    is_cut = call.max_tokens and any(choice.finish == "length" for choice in choices)
    written = call.max_tokens * call.n if call.max_tokens and is_cut else round(_TOKENS_PER_BYTE * length)
    prompt = min(max(1, total - written), at_most(call).prompt_tokens)
    return Usage(prompt_tokens=min(prompt, total), completion_tokens=max(0, total - prompt))


class Expectation:
    """Running means: tokens per prompt byte for each model, completion tokens for each kind of prompt."""

    def __init__(self) -> None:
        self._per_byte: dict[tuple[str, str], float] = {}
        self._most_per_byte: dict[tuple[str, str], float] = {}
        self._completion: dict[tuple[str, str, str], float] = {}

    def unread(self, call: Call, usage: Usage, size: int, form: Form) -> Usage:
        """Return what an answer that is no reply is charged with; never more than a reply.

        What it counts itself (`usage`), else its bytes (`size`), and of the prompt as many tokens to a byte as were
        ever counted of this model.
        """
        most = at_most(call, form)
        per_byte = self._most_per_byte.get((call.endpoint, call.model))
        prompt = most.prompt_tokens if per_byte is None else ceil(_MARGIN * per_byte * call.size)
        return Usage(
            prompt_tokens=min(most.prompt_tokens, usage.prompt_tokens or prompt),
            completion_tokens=min(most.completion_tokens, usage.completion_tokens or size),
        )

    def tokens(self, call: Call, purpose: Purpose) -> int:
        """Return the tokens that a call is likely to take, prompt and completion: what the limiter reserves for it."""
        per_byte = self._per_byte.get((call.endpoint, call.model), _TOKENS_PER_BYTE)
        first = (call.max_tokens or 0) * _SHARE_OF_LIMIT
        completion = self._completion.get((call.endpoint, call.model, purpose.kind), first) * call.n
        return max(1, round(call.size * per_byte + completion))

    def learn(self, call: Call, purpose: Purpose, usage: Usage) -> None:
        """Learn from the `usage` that was counted: later calls of the model and kind are expected to take as much."""
        if call.size and usage.prompt_tokens:
            model, ratio = (call.endpoint, call.model), usage.prompt_tokens / call.size
            _move(self._per_byte, model, ratio)
            self._most_per_byte[model] = max(ratio, self._most_per_byte.get(model, 0.0))
        if usage.completion_tokens:
            _move(self._completion, (call.endpoint, call.model, purpose.kind), usage.completion_tokens / call.n)


def _move(means: dict[Any, float], name: Any, value: float) -> None:
    mean = means.get(name)
    means[name] = value if mean is None else mean + _WEIGHT * (value - mean)
