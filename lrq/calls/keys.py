"""Same question, same key."""

import hashlib

import orjson

from lrq.domain.records import Call


def call_key(call: Call) -> str:
    """Return 160 bits of SHA-256, in hex, over everything of `call` that the reply depends on.

    What an endpoint was learned to want of requests is not part of it: the question is the same in any form.
    """
    question: tuple[object, ...] = (
        call.role,
        call.endpoint,
        call.model,
        call.messages,
        call.input,
        (call.temperature, call.top_p, call.max_tokens, call.n, call.seed, call.extra),
        (call.draw, call.attempt, call.series),
    )
    if call.identity:
        question = (*question, call.identity)
    return hashlib.sha256(orjson.dumps(question, option=orjson.OPT_SORT_KEYS)).hexdigest()[:40]
