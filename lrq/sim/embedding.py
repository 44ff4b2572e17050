"""Deterministic vectors: hashed bags of content units, length 1."""

import base64
import math
from collections import Counter
from functools import lru_cache
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from lrq.sim.text import words


@lru_cache(maxsize=65536)
def _place(unit: str) -> tuple[int, float]:
    digest = crc32(unit.encode())
    return digest >> 1, 1.0 if digest & 1 else -1.0


def embed(text: str, dimensions: int) -> NDArray[np.float32]:
    """Return the vector of `text`, [`dimensions`]: each unit adds ±(1 + ln count) at its hashed place; its length is 1.

    A text without content gets the first unit vector, so that every cosine is defined.
    """
    vector = np.zeros(dimensions, dtype=np.float32)
    for unit, count in Counter(words(text)).items():
        index, sign = _place(unit)
        vector[index % dimensions] += sign * (1 + math.log(count))
    length = float(np.linalg.norm(vector))
    if not length:
        vector[0] = length = 1.0
    return vector / np.float32(length)


def encoded(vector: NDArray[np.float32], encoding: str) -> object:
    """Return `vector` as the API sends it: a list of numbers, or as `encoding` "base64" of little-endian floats."""
    if encoding == "base64":
        return base64.b64encode(vector.astype("<f4").tobytes()).decode()
    return vector
