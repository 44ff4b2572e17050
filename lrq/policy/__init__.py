"""The model that answers: in this process, or behind a server."""

from collections.abc import Mapping
from typing import Any

from lrq.domain.errors import LrqError, UsageError
from lrq.policy.port import CHAT_TEMPLATE, Policy, Prompt, Sampled, Samples, Sampling
from lrq.policy.server import Ask, ContextLength, ServerPolicy

__all__ = ["CHAT_TEMPLATE", "Policy", "Prompt", "Sampled", "Samples", "Sampling", "open_policy"]


def open_policy(
    spec: str,
    *,
    device: str = "auto",
    dtype: str = "auto",
    model: str = "",
    endpoint: str = "default",
    ask: Ask | None = None,
    template: Mapping[str, Any] | None = None,
    context_length: ContextLength | None = None,
) -> Policy:
    """Open `spec`: a folder, a name in the local hub cache, or a server's URL.

    `device` ("auto", "cpu", "cuda", "cuda:1") and `dtype` ("auto": the folder's own) are for the first two. For the
    last: `model`, `endpoint`, `ask`, which makes the paid requests, and `context_length`, which asks for the model's
    window. `template`, arguments of the chat template such as enable_thinking, is for all. Raises UsageError with what
    to do.
    """
    if spec.startswith(("http://", "https://")):
        if not model or ask is None:
            raise UsageError("a policy behind a URL needs its model's name; set policy.model or LRQ_POLICY_MODEL")
        return ServerPolicy(
            spec, model=model, endpoint=endpoint, ask=ask, template=template, context_length=context_length
        )
    try:
        from lrq.policy.local import LocalPolicy  # noqa: PLC0415  loads torch
    except ModuleNotFoundError as error:
        raise LrqError(f"sampling here needs {error.name}; install it with: pip install 'lrq[train]'") from None
    from lrq.policy.folder import find  # noqa: PLC0415

    return LocalPolicy(find(spec), device=device, dtype=dtype, template=template)
