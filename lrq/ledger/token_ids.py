"""Token ids as the ledger keeps them: 32-bit numbers, their bytes sorted by weight, zstd."""

import struct
from collections.abc import Sequence

import zstandard

_LEVEL = 6
_BYTES = 4  # of an id


def pack_ids(ids: Sequence[int]) -> bytes | None:
    """Return the ids compressed, about 1.5 bytes each; None where there are none."""
    if not ids:
        return None
    raw = struct.pack(f"<{len(ids)}I", *ids)
    planes = b"".join(raw[index::_BYTES] for index in range(_BYTES))  # the higher ones are mostly zeros
    return zstandard.compress(planes, _LEVEL)


def unpack_ids(packed: bytes | None) -> list[int]:
    """Return the ids of `pack_ids`; none where there are none."""
    if packed is None:
        return []
    planes = zstandard.decompress(packed)
    count = len(planes) // _BYTES
    raw = bytearray(len(planes))
    for index in range(_BYTES):
        raw[index::_BYTES] = planes[index * count : (index + 1) * count]
    return list(struct.unpack(f"<{count}I", raw))
