"""Sampling noise that is counted, not drawn from a shared stream.

The noise of a token is a pure function of (run seed, item, round, prompt, k), its position and its id. So response k is
the same whichever others are drawn beside it, after a redelivery and after a restart.
Gumbel-max: argmax(logits / T + g) with g = -log(-log(u)) is a draw from softmax(logits / T).
u comes from SplitMix64 (Steele, Lea, Flood 2014, "Fast splittable pseudorandom number generators"), whose i-th output
is a hash of seed + i * GAMMA and so needs no state: the same bits on every device and in every version of torch.
"""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import torch
from transformers import TopPLogitsWarper

Tensor = Any  # torch.Tensor

_64 = 1 << 64
_GAMMA = 0x9E3779B97F4A7C15


def stream(seed: int, item: str, round_: int, prompt: int, k: int) -> int:
    """Return the 64-bit key of the noise of response `k`; `seed` is the run's, `prompt` the prompt's index."""
    name = json.dumps([seed, item, round_, prompt, k]).encode()
    return int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "big")


def choose(logits: Tensor, keys: Sequence[int], position: int, *, temperature: float, top_p: float) -> Tensor:
    """Return the next token of each row, (rows,), from `logits` (rows, vocabulary) and one of `keys` for each.

    `position` counts the tokens drawn before. At `temperature` 0 it is the likeliest.
    """
    if temperature == 0:
        return logits.argmax(-1)
    scores = logits.double() / temperature
    if top_p < 1:
        scores = TopPLogitsWarper(top_p)(None, scores)
    return (scores + gumbel(keys, position, scores.shape[-1], scores.device)).argmax(-1)


def gumbel(keys: Sequence[int], position: int, size: int, device: Any) -> Tensor:
    """Return standard Gumbel noise (rows, `size`): row r, column i depends on `keys[r]`, `position` and i alone."""
    starts = mix(torch.tensor([_signed(key + (position + 1) * _GAMMA) for key in keys], device=device))
    steps = torch.arange(1, size + 1, device=device) * _signed(_GAMMA)
    uniform = (_shift(mix(starts[:, None] + steps), 11).double() + 0.5) * 2.0**-53
    return -torch.log(-torch.log(uniform))


def mix(x: Tensor) -> Tensor:
    """Return SplitMix64's finalizer of 64-bit integers `x`, of any shape, which wrap around."""
    x = (x ^ _shift(x, 30)) * _signed(0xBF58476D1CE4E5B9)
    x = (x ^ _shift(x, 27)) * _signed(0x94D049BB133111EB)
    return x ^ _shift(x, 31)


def _shift(x: Tensor, bits: int) -> Tensor:
    """Shift right and fill with zeros; torch's integers are signed."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _signed(x: int) -> int:
    x %= _64
    return x - _64 if x >= _64 >> 1 else x
