"""The shared prefix against the plain forward pass, on one pair of the training, before its first step.

Compared are the log-probabilities of all response tokens and the gradient that reaches the token embeddings: it has
come through every layer, and asks for no memory beyond one sequence's activations.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from lrq.trainer.prefix import layouts, share_prefix

# Largest difference of a log-probability in nats (bf16: their mean, for single tokens scatter), and of the gradient as
# a share of its norm. fp32 leaves 1e-6 on models that agree; a mask that is wrong anywhere leaves 1e-2 and more.
_EXACT = (1e-4, 1e-3)
_BF16 = (5e-2, 1e-1)


@dataclass(frozen=True, kw_only=True)
class PrefixCheck:
    """How far the two passes are apart."""

    log_probs: float  # nats
    gradient: float  # ‖difference‖ / ‖plain‖
    reason: str = ""  # why the prefix is not shared; empty: it is


@dataclass(frozen=True, kw_only=True)
class _Pass:
    log_probs: torch.Tensor  # of the response tokens, chosen then rejected
    gradient: torch.Tensor  # [tokens, hidden]: prompt, chosen, rejected


# A prompt of this many tokens tells as much as a longer one, unless something begins or ends further on.
_ENOUGH = 1024
_BOUNDS = ("sliding_window", "attention_chunk_size", "original_max_position_embeddings")


def compared_tokens(config: Any, longest: int) -> int:
    """Return the tokens of prompt to compare on: few, but beyond every bound of the model that `longest` crosses."""
    settings = (getattr(config, name, None) for name in _BOUNDS)
    bounds = [int(bound) for bound in settings if bound and bound < longest]
    return max([_ENOUGH, *(bound + _ENOUGH // 4 for bound in bounds)])


def share_if_exact(model: Any, call: Callable[..., Any], inputs: dict[str, Any], *, bf16: bool) -> PrefixCheck:
    """Share prefixes in `model` where one pair comes out as it does without; else leave the model plain.

    `call` runs the model, perhaps wrapped by an engine; `inputs` is one pair as [2, L] tensors on the model's device.
    """
    with _as_in_training(model):
        plain = _two_passes(model, call, inputs)
        undo = share_prefix(model)
        try:
            shared = _one_pass(model, call, inputs)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # layers of any architecture, which may refuse in any way
            undo()
            words = str(error).strip().splitlines() or [type(error).__name__]
            return PrefixCheck(log_probs=0, gradient=0, reason=f"the model cannot: {words[0]}")
    check = _compare(plain, shared, bf16=bf16)
    if check.reason:
        undo()
    return check


def _compare(plain: _Pass, shared: _Pass, *, bf16: bool) -> PrefixCheck:
    apart = (plain.log_probs - shared.log_probs).abs()
    difference = float((plain.gradient - shared.gradient).norm() / plain.gradient.norm().clamp(min=1e-30))
    largest = float(apart.mean() if bf16 else apart.max())
    most, most_gradient = _BF16 if bf16 else _EXACT
    agree = largest <= most and difference <= most_gradient  # false for what is no number, too
    reason = "" if agree else f"its log-probabilities differ by {largest:.1e}, its gradient by {difference:.1e}"
    return PrefixCheck(log_probs=largest, gradient=difference, reason=reason)


@contextmanager
def _as_in_training(model: Any) -> Iterator[None]:
    """Recompute activations, as the training will: a pair may be as long as memory allows."""
    training, checkpointing = model.training, model.is_gradient_checkpointing
    model.train()
    if model.supports_gradient_checkpointing and not checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    try:
        yield
    finally:
        if model.supports_gradient_checkpointing and not checkpointing:
            model.gradient_checkpointing_disable()
        model.train(training)


def _two_passes(model: Any, call: Callable[..., Any], inputs: dict[str, Any]) -> _Pass:
    """Run each side by itself, padded as in its batch: half the memory, the same figures."""
    pair = layouts(inputs["attention_mask"], inputs["labels"])[0]
    log_probs, gradients = [], []
    for side in (slice(0, 1), slice(1, 2)):
        part = {name: value[side] if torch.is_tensor(value) else value for name, value in inputs.items()}
        out, gradient = _run(model, call, part, sign=-1.0 if side.start else 1.0)
        log_probs.append(out)
        gradients.append(gradient[0])
    prompt = gradients[0][: pair.prompt] + gradients[1][: pair.prompt]
    tokens = (prompt, gradients[0][pair.prompt : pair.chosen], gradients[1][pair.prompt : pair.rejected])
    return _Pass(log_probs=torch.cat(log_probs), gradient=torch.cat(tokens))


def _one_pass(model: Any, call: Callable[..., Any], inputs: dict[str, Any]) -> _Pass:
    pair = layouts(inputs["attention_mask"], inputs["labels"])[0]
    log_probs, gradient = _run(model, call, inputs, sign=1.0)
    # Undo the packing: the last prompt token stands twice.
    packed = gradient[0]
    prompt = packed[: pair.prompt].clone()
    prompt[-1] += packed[pair.chosen]
    tokens = (prompt, packed[pair.prompt : pair.chosen], packed[pair.chosen + 1 : pair.end])
    return _Pass(log_probs=log_probs, gradient=torch.cat(tokens))


def _run(
    model: Any, call: Callable[..., Any], inputs: dict[str, Any], *, sign: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the response tokens' log-probabilities, and the gradient of chosen minus rejected at the embeddings."""
    leaves: list[torch.Tensor] = []

    def take_leaf(_: Any, __: Any, output: torch.Tensor) -> torch.Tensor:
        leaves.append(output.detach().requires_grad_())
        return leaves[-1]

    hook = model.get_input_embeddings().register_forward_hook(take_leaf)
    try:
        with torch.enable_grad():
            out = call(**inputs).log_probs.float()
            signs = torch.tensor([sign, -sign], device=out.device)[: len(out), None]
            [gradient] = torch.autograd.grad((out * signs).sum(), leaves[:1])
    finally:
        hook.remove()
    return out.detach()[inputs["labels"][:, 1:] != -100], gradient.float()
