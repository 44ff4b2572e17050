"""Shared prefix: one forward pass over prompt + chosen + rejected instead of two over prompt + response.

A pair is laid out in one row as two branches behind one prompt of P tokens::

    index     0 … P-1   P … P+C-1   P+C                 P+C+1 … P+C+R
    token     prompt    chosen      last prompt token   rejected
    position  0 … P-1   P … P+C-1   P-1                 P … P+R-1

Prompt and chosen are an ordinary causal sequence. The rejected branch attends to the prompt and to itself, never to
the chosen one; it starts with the last prompt token once more, whose logits predict the first rejected token.

The forward pass computes P + C + R + 1 positions instead of 2P + C + R, with the same log-probabilities. Whether so for
the model at hand is asked of the model itself, before its first step: see `prefix_check`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward

ATTENTION = "lrq_shared_prefix"

# Arguments by which an architecture asks of its attention what PyTorch's does not do.
_BEYOND_SDPA = ("softcap", "s_aux")


class Unshareable(Exception):
    """The model's layers ask for what the shared prefix does not do; the message names it."""


@dataclass(frozen=True, kw_only=True)
class PairLayout:
    """Where one pair's tokens lie in its row."""

    prompt: int  # P, tokens
    chosen: int  # P + C: end of the chosen branch
    rejected: int  # P + R: length of prompt and rejected, unpacked
    mask: torch.Tensor  # [R + 1, P + R] bool: which keys the rejected branch sees

    @property
    def end(self) -> int:
        """Length of the packed row."""
        return self.chosen + self.rejected - self.prompt + 1


def shared_prefix_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    pairs: Sequence[PairLayout] | None = None,
    sliding_window: int | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attend within each pair: SDPA calls over what each branch sees, no N×N mask.

    Shapes: query [B, heads, N, d], key and value [B, groups, N, d]; returns [B, N, heads, d]. Without `pairs` the batch
    is taken as plain causal sequences padded on the right. Raises Unshareable.
    """
    if extras := [name for name in _BEYOND_SDPA if kwargs.get(name) is not None]:
        raise Unshareable(f"its attention has {extras[0]!r}")
    if pairs is None:
        return _causal(module, query, key, value, sliding_window, **kwargs), None
    rows = []
    for row, pair in enumerate(pairs):
        q, k, v = query[row : row + 1], key[row : row + 1], value[row : row + 1]
        rows.append(_attend_pair(module, q, k, v, pair, sliding_window, **kwargs))
    return torch.cat(rows), None


def _attend_pair(
    module: torch.nn.Module,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    pair: PairLayout,
    window: int | None,
    **kwargs: Any,
) -> torch.Tensor:
    first, branch = slice(pair.chosen), slice(pair.chosen, pair.end)
    chosen = _causal(module, q[:, :, first], k[:, :, first], v[:, :, first], window, **kwargs)
    start = max(0, pair.prompt - window) if window else 0  # the branch's first query, at P - 1, sees no key before it
    visible = slice(start, pair.prompt - 1)  # the branch brings its own last prompt token
    keys, values = (torch.cat((x[:, :, visible], x[:, :, branch]), dim=2) for x in (k, v))
    mask = pair.mask[:, start:]
    if window:
        mask = mask & ~torch.ones_like(mask).tril(pair.prompt - 1 - start - window)
    rejected, _ = sdpa_attention_forward(module, q[:, :, branch], keys, values, mask[None, None], **kwargs)
    return F.pad(torch.cat((chosen, rejected), dim=1), (0, 0, 0, 0, 0, q.shape[2] - pair.end))


def _causal(
    module: torch.nn.Module, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, window: int | None, **kwargs: Any
) -> torch.Tensor:
    """Attend causally, each query to itself and the `window - 1` keys before it; in blocks as long as the window."""
    length = q.shape[2]
    if not window or length <= window:
        return sdpa_attention_forward(module, q, k, v, None, **kwargs)[0]
    blocks = []
    for start in range(0, length, window):
        end, oldest = min(start + window, length), max(0, start - window + 1)
        mask = torch.ones(end - start, end - oldest, dtype=torch.bool, device=q.device)
        mask = (mask.tril(start - oldest) & ~mask.tril(start - oldest - window))[None, None]
        part = sdpa_attention_forward(
            module, q[:, :, start:end], k[:, :, oldest:end], v[:, :, oldest:end], mask, **kwargs
        )
        blocks.append(part[0])
    return torch.cat(blocks, dim=1)


AttentionInterface.register(ATTENTION, shared_prefix_attention)


def share_prefix(model: PreTrainedModel) -> Callable[[], None]:
    """Make the model's fused forward pass compute each pair of a TRL preference batch with a shared prefix.

    The model must carry TRL's fused head. Callers see no difference: they pass [2B, L] token ids, chosen first, and
    receive [2B, L - 1] per-token figures. `prompts`, tokens of each pair's prompt, goes with labels that prompts have
    too. Returns what makes the model plain again.
    """
    plain, attention = model.forward, model.config._attn_implementation

    def forward(*args: Any, **kwargs: Any) -> Any:
        prompts = kwargs.pop("prompts", None)
        if args or not kwargs.get("fused_lm_head") or not (prompts or _has_prompts(kwargs["labels"])):
            return plain(*args, **kwargs)
        return _forward_pairs(plain, prompts=prompts, **kwargs)

    def undo() -> None:
        model.forward = plain
        model.set_attn_implementation(attention)

    model.forward = forward
    model.set_attn_implementation(ATTENTION)
    return undo


def _has_prompts(labels: torch.Tensor) -> bool:
    return bool((labels[:, 0] == -100).all() and (labels != -100).any(dim=1).all())


def _forward_pairs(
    plain: Callable[..., Any],
    *,
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor,
    labels: torch.Tensor,
    prompts: Sequence[int] | None,
    **kwargs: Any,
) -> Any:
    pairs = layouts(attention_mask, labels, prompts)
    width = max(pair.end for pair in pairs)
    positions = torch.arange(input_ids.shape[1], device=input_ids.device).expand_as(input_ids)
    packed = plain(
        input_ids=_pack(input_ids, pairs, width, fill=0),
        labels=_pack(labels, pairs, width, fill=-100),
        position_ids=_pack(positions, pairs, width, fill=0),
        attention_mask=None,
        pairs=pairs,
        **kwargs,
    )
    fields = {name: _unpack(getattr(packed, name), pairs, labels.shape[1] - 1) for name in _PER_TOKEN}
    return replace(packed, **fields, label_mask=labels[:, 1:] != -100)


_PER_TOKEN = ("log_probs", "entropy", "log_sum_sq_probs", "mean_logits", "is_top1")


def layouts(
    attention_mask: torch.Tensor, labels: torch.Tensor, prompts: Sequence[int] | None = None
) -> list[PairLayout]:
    """Read the layout of each pair off a right-padded batch; both arguments are [2B, L], labels -100 on prompts.

    `prompts`: their lengths, where labels do not tell.
    """
    prompts = prompts or (labels != -100).int().argmax(dim=1).tolist()
    lengths = attention_mask.sum(dim=1).tolist()
    half = len(lengths) // 2
    return [_layout(prompts[i], lengths[i], lengths[half + i], labels.device) for i in range(half)]


def _layout(prompt: int, chosen: int, rejected: int, device: torch.device) -> PairLayout:
    branch = rejected - prompt + 1
    mask = torch.ones(branch, rejected, dtype=torch.bool, device=device).tril(prompt - 1)
    return PairLayout(prompt=prompt, chosen=chosen, rejected=rejected, mask=mask)


def _pack(batch: torch.Tensor, pairs: Sequence[PairLayout], width: int, *, fill: int) -> torch.Tensor:
    """[2B, L] to [B, width]: the chosen sequence, then the rejected one from its last prompt token on."""
    rows = []
    for chosen, rejected, pair in zip(*batch.chunk(2), pairs, strict=True):
        row = torch.cat((chosen[: pair.chosen], rejected[pair.prompt - 1 : pair.rejected]))
        rows.append(F.pad(row, (0, width - pair.end), value=fill))
    return torch.stack(rows)


def _unpack(field: torch.Tensor | None, pairs: Sequence[PairLayout], width: int) -> torch.Tensor | None:
    """[B, N - 1] to [2B, width]: what is not a response stays 0."""
    if field is None:
        return None
    chosen = [row[: pair.chosen - 1] for row, pair in zip(field, pairs, strict=True)]
    rejected = [
        F.pad(row[pair.chosen : pair.end - 1], (pair.prompt - 1, 0)) for row, pair in zip(field, pairs, strict=True)
    ]
    return torch.stack([F.pad(row, (0, width - len(row))) for row in chosen + rejected])
