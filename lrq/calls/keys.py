"""Same question, same key."""

import hashlib

import orjson

from lrq.domain.records import Call


def call_key(call: Call) -> str:
    """160 bits of SHA-256 over everything the reply depends on, hex."""
    asked = (
        call.role,
        call.endpoint,
        call.model,
        call.messages,
        call.input,
        (call.temperature, call.top_p, call.max_tokens, call.n, call.seed, call.extra),
        (call.draw, call.attempt, call.series),
    )
    return hashlib.sha256(orjson.dumps(asked, option=orjson.OPT_SORT_KEYS)).hexdigest()[:40]
