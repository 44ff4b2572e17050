"""Another base of rotary positions for a model that is loaded, so that it can be trained on longer contexts."""

from typing import Any

from lrq.domain.errors import UsageError


def set_rope_theta(model: Any, theta: float) -> None:
    """Set `theta` as the base in the configuration of `model` and in all its rotary tables, in place.

    Raises UsageError where a model has not just one base.
    """
    config = model.config.get_text_config()
    rope = getattr(config, "rope_parameters", None)
    if not isinstance(rope, dict) or "rope_theta" not in rope:
        raise UsageError("rope_theta: this model has no single base of rotary positions to set")
    tables = [part for part in model.modules() if hasattr(part, "inv_freq") and hasattr(part, "rope_type")]
    if not tables:
        raise UsageError("rope_theta: this model computes its rotary positions in a way of its own")
    config.rope_parameters = {**rope, "rope_theta": float(theta)}
    for table in tables:
        device = table.inv_freq.device
        fresh = type(table)(config=config)
        for name, buffer in fresh.named_buffers(recurse=False):
            table.register_buffer(name, buffer.to(device), persistent=False)
        table.attention_scaling = fresh.attention_scaling
        table.config = config
