"""Asking a loaded model whether it can be sampled, and how: a few short forward passes, no list of architectures.

A cached step has to give the logits of a plain forward pass, and a fork of the prompt's cache the same for each of its
rows. What disagrees falls back to the next way; a model that can do none of them is refused, and so is one whose
logits are not finite.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from lrq.domain.errors import UsageError
from lrq.policy.attention_window import narrowed, windows
from lrq.policy.forks import WAYS, Model, Tensor, Way, fork, is_shareable, longrope_switch, prefill

PROMPT, NEW, ROWS = 24, 6, 3  # tokens, tokens, continuations
WINDOW = 12  # tokens that windows are made as short as for the probe
# Largest |Δ log p| of a token. In bfloat16 two right passes that add in another order differ by some hundredths of a
# logit; what is wrong differs by tenths and more.
_TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-3, torch.float16: 0.05, torch.bfloat16: 0.25}
_NOISE = 4  # and so many times what a batch differs from its rows by themselves (experts change with the last bit)
# On the probe's ids: spread over the vocabulary, so that no token repeats, and away from control tokens at its ends.
_STRIDE = 7919


@dataclass(frozen=True, kw_only=True)
class Probed:
    """How a model is to be sampled."""

    way: Way
    difference: float  # largest |Δ log p| against a plain forward pass
    reason: str = ""  # why no cheaper way is taken; one line


class CannotSample(UsageError):
    """The model gives no logits to sample from, or not those of its own forward pass."""


class _NotFinite(CannotSample):
    """No attention mends that."""


def probe(model: Model) -> Probed:
    """Return the cheapest way that agrees with a plain forward pass; raises CannotSample with what disagrees.

    A model that agrees in no way is asked once more with eager attention, which it keeps if that helps.
    """
    try:
        return _probe(model)
    except CannotSample as error:
        if isinstance(error, _NotFinite) or getattr(model.config, "_attn_implementation", "eager") == "eager":
            raise
        model.set_attn_implementation("eager")
        probed = _probe(model)
        return replace(probed, reason=f"eager attention, because {error}")


def _probe(model: Model) -> Probed:
    """Probe beyond every window: with windows made short, and where that disagrees, beyond those the model has."""
    # Longrope's switch must not part the prompt from its continuation: those are two models, and both are right.
    switch = longrope_switch(model) or 0
    length = switch + 1 if PROMPT <= switch < PROMPT + NEW else PROMPT
    sizes = windows(model.config.get_text_config()).values()
    try:
        with narrowed(model, WINDOW):
            return _probe_at(model, length)
    except _NotFinite:
        raise
    except CannotSample:
        if max(sizes, default=0) <= WINDOW:
            raise
        return _probe_at(model, max(sizes) + length)


def _probe_at(model: Model, length: int) -> Probed:
    """Probe with a prompt of so many tokens."""
    size = model.get_input_embeddings().num_embeddings
    prompt, new = _ids(size, length), [_ids(size, NEW, start=length + row) for row in range(ROWS)]
    with torch.inference_mode():
        # Log-probabilities (rows, 1 + new tokens, vocabulary), each row by a forward pass of its own, uncached.
        rows = [model(input_ids=row[None], use_cache=False).logits[0] for row in _rows(model, prompt, new)]
        plain = torch.stack(rows)[:, len(prompt) - 1 :].float().log_softmax(-1)
        if not plain.isfinite().all():
            raise _NotFinite("the policy's logits are not finite: its weights hold a NaN, or overflow in this dtype")
        together = model(input_ids=_rows(model, prompt, new), use_cache=False).logits[:, length - 1 :]
        noise = (together.float().log_softmax(-1) - plain).abs().max().item()
        return _cheapest(model, prompt, new, plain, max(_TOLERANCE.get(model.dtype, 0.25), _NOISE * noise))


def _cheapest(
    model: Model, prompt: Sequence[int], new: Sequence[Sequence[int]], plain: Tensor, tolerance: float
) -> Probed:
    reasons = []
    for way in WAYS:
        try:
            difference = _difference(model, prompt, new, plain, way)
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, ValueError, TypeError, IndexError, AttributeError, NotImplementedError) as error:
            reasons.append(f"{way}: {type(error).__name__}: {(str(error).strip() or '?').splitlines()[0]}")
            continue
        if difference is not None and difference <= tolerance:
            return Probed(way=way, difference=difference, reason="; ".join(reasons))
        wrong = "its cache keeps windows or states" if difference is None else f"|Δ log p| {difference:.2g}"
        reasons.append(f"{way}: {wrong}")
    raise CannotSample(
        f"{type(model).__name__} cannot be sampled with a cache: its steps differ from its own forward pass "
        f"({'; '.join(reasons)})"
    )


def _ids(size: int, count: int, start: int = 0) -> list[int]:
    """Return token ids from the middle half of the vocabulary."""
    return [size // 4 + (start + i) * _STRIDE % max(1, size // 2) for i in range(count)]


def _rows(model: Model, prompt: Sequence[int], new: Sequence[Sequence[int]]) -> Tensor:
    return torch.tensor([[*prompt, *tokens] for tokens in new], device=model.device)


def _difference(
    model: Model, prompt: Sequence[int], new: Sequence[Sequence[int]], plain: Tensor, way: Way
) -> float | None:
    """Return the largest |Δ log p| of all rows and steps; None where the way does not fit the cache."""
    read = prefill(model, prompt)
    if way == "shared" and not is_shareable(read.cache):
        return None
    forked = fork(model, read, ROWS, way)
    worst = [(read.logits.float().log_softmax(-1) - plain[0, :1]).abs().max().item()]
    try:
        for step, rows in enumerate(_alive(len(new[0]))):
            tokens = torch.tensor([new[row][step] for row in rows], device=model.device)
            log_probs = forked.step(rows, tokens).float().log_softmax(-1)
            worst.append((log_probs - plain[rows, step + 1]).abs().max().item())
    finally:
        forked.close()
    return float("inf") if any(map(math.isnan, worst)) else max(worst)


def _alive(steps: int) -> Iterator[list[int]]:
    """Yield the rows of each step: the one in the middle ends after half of them."""
    for step in range(steps):
        yield list(range(ROWS)) if step < steps // 2 else [row for row in range(ROWS) if row != 1]
