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
    """Return the bytes of a reply as the ledger keeps it; `vectors` are those of embeddings, or scores."""
    body: dict[str, object] = {
        "choices": [
            [choice.text, choice.reasoning, choice.finish, *([list(choice.ids)] if choice.ids else [])]
            for choice in choices
        ]  # the tokens where they are known; older replies have none
    }
    if vectors:
        body["vectors"] = [b64encode(array("f", vector).tobytes()).decode() for vector in vectors]
    raw = orjson.dumps(body)
    return raw if len(raw) < _WORTH_COMPRESSING else zstandard.compress(raw, 3)


def decode(key: str, known: CachedReply, *, reused: bool = False) -> Reply:
    """Return the reply that the ledger has under this `key`; `reused`: it was bought before it was asked for here."""
    choices, vectors = decode_body(known.reply)
    return Reply(key=key, choices=choices, vectors=vectors, usage=known.usage, cost_micros=known.cost, reused=reused)


def decode_body(raw: bytes) -> tuple[list[Choice], list[list[float]]]:
    """Return the choices and vectors of what `encode` made, by this release or an earlier one."""
    if raw.startswith(_ZSTD_MAGIC):
        raw = zstandard.decompress(raw)
    body = orjson.loads(raw)
    choices = [
        Choice(text=text, reasoning=reasoning, finish=finish, ids=tuple(ids[0]) if ids else ())
        for text, reasoning, finish, *ids in body["choices"]
    ]
    return choices, [list(array("f", b64decode(vector))) for vector in body.get("vectors", ())]
