"""Replies as the ledger keeps them: JSON, compressed where that is smaller; vectors as 32-bit floats."""

from array import array
from base64 import b64decode, b64encode
from collections.abc import Sequence

import orjson
import zstandard

from lrq.domain.records import Choice, Reply
from lrq.ledger.calls import CachedReply

_WORTH_COMPRESSING = 400  # bytes; below, a frame's header eats the gain
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"


def encode(choices: Sequence[Choice], vectors: Sequence[Sequence[float]] = ()) -> bytes:
    body: dict[str, object] = {
        "choices": [[choice.text, choice.reasoning, choice.finish, *_ids(choice)] for choice in choices]
    }
    if vectors:
        body["vectors"] = [b64encode(array("f", vector).tobytes()).decode() for vector in vectors]
    raw = orjson.dumps(body)
    return raw if len(raw) < _WORTH_COMPRESSING else zstandard.compress(raw, 3)


def _ids(choice: Choice) -> list[list[int]]:
    """Return the tokens of a choice, where they are known; older replies have none."""
    return [list(choice.ids)] if choice.ids else []


def decode(key: str, known: CachedReply, *, reused: bool = False) -> Reply:
    choices, vectors = decode_body(known.reply)
    return Reply(key=key, choices=choices, vectors=vectors, usage=known.usage, cost_micros=known.cost, reused=reused)


def decode_body(raw: bytes) -> tuple[list[Choice], list[list[float]]]:
    if raw.startswith(_ZSTD_MAGIC):
        raw = zstandard.decompress(raw)
    body = orjson.loads(raw)
    choices = [
        Choice(text=text, reasoning=reasoning, finish=finish, ids=tuple(ids[0]) if ids else ())
        for text, reasoning, finish, *ids in body["choices"]
    ]
    return choices, [list(array("f", b64decode(vector))) for vector in body.get("vectors", ())]
