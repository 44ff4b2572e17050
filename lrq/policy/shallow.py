"""A large model by its first layers: what an architecture cannot do, it cannot do in any layer of that kind."""

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModel

from lrq.policy.folder import WEIGHTS, base_of

LARGE = 4 << 30  # bytes of weights
FEW_LAYERS = 2

Kind = tuple[Any, ...]  # what tells a layer from others: the classes of its modules, and its types by the configuration


def shallow_config(folder: Path) -> Any:
    """Return a configuration of the first layers of a model folder, at least one of each kind among them.

    None: the model is small enough to be loaded whole, or cannot be built with fewer layers. Of an adapter it is the
    base's. No weights are read.
    """
    folder = base_of(folder) or folder
    if sum(path.stat().st_size for path in folder.glob(WEIGHTS)) <= LARGE:
        return None
    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    return first_layers(config)


def first_layers(config: Any) -> Any:
    """Keep the first layers of `config`, in place, and return it; None where that makes no model."""
    text = config.get_text_config()
    try:
        kinds = layer_kinds(text)
        count = max([FEW_LAYERS, *(kinds.index(kind) + 1 for kind in set(kinds))])
        if count < len(kinds):
            for name, values in _per_layer(text).items():
                setattr(text, name, values[:count])
            text.num_hidden_layers = count
            layer_kinds(text)
    except Exception:  # an architecture may refuse in any way
        return None
    return config


def layer_kinds(text: Any) -> list[Kind]:
    """Return the kind of each layer of the text configuration `text`, by a model without weights."""
    with torch.device("meta"):
        model = AutoModel.from_config(text)
    lists = (part for part in model.modules() if isinstance(part, torch.nn.ModuleList))
    layers = next(part for part in lists if len(part) == text.num_hidden_layers)
    lists_of_types = [  # names of kinds and flags, not sizes
        values
        for values in _per_layer(text).values()
        if all(isinstance(value, str) or value in (0, 1) for value in values)
    ]
    return [
        (
            *((name, type(part).__name__) for name, part in layer.named_modules()),
            *(types[index] for types in lists_of_types),
        )
        for index, layer in enumerate(layers)
    ]


def _per_layer(text: Any) -> dict[str, list[Any]]:
    """Return the settings that hold a value for each layer."""
    count = text.num_hidden_layers
    lists = {name: value for name, value in vars(text).items() if isinstance(value, list | tuple)}
    return {name: list(value) for name, value in lists.items() if len(value) == count}
