"""`python -m lrq.policy FOLDER DTYPE`: probe a policy on the CPU, and print as JSON how it is sampled or why not.

Of a large model the first layers are tried, at least one of each kind: that takes seconds, and what an architecture
cannot do it cannot do in any layer.
"""

import logging
import sys
from pathlib import Path
from typing import Any

from lrq.domain.errors import UsageError
from lrq.domain.printable import printable_json

LARGE = 4 << 30  # bytes of weights
FEW_LAYERS = 2


def main() -> int:
    if len(sys.argv) != 3:
        print("usage: python -m lrq.policy FOLDER DTYPE", file=sys.stderr)
        return 2
    logging.disable(logging.WARNING)
    out, sys.stdout = sys.stdout, sys.stderr  # the libraries print there too
    print(printable_json(_probe(Path(sys.argv[1]), sys.argv[2])), file=out)
    return 0


def _probe(folder: Path, dtype: str) -> dict[str, Any]:
    import torch  # noqa: PLC0415
    from transformers.utils import logging as transformers_logging  # noqa: PLC0415

    from lrq.policy.loading import load_model  # noqa: PLC0415
    from lrq.policy.probing import probe  # noqa: PLC0415
    from lrq.policy.rendering import Rendering  # noqa: PLC0415
    from lrq.policy.tokenizer import load_tokenizer  # noqa: PLC0415

    transformers_logging.set_verbosity_error()
    try:
        Rendering(tokenizer=load_tokenizer(folder), template={}).end_ids()
        model = load_model(folder, dtype, config=_shallow(folder))
        if model.dtype == torch.float16:  # no kernels of a CPU
            model = model.float()
        probed = probe(model)
    except UsageError as error:
        return {"refusal": str(error)}
    return {"way": probed.way, "difference": probed.difference, "reason": probed.reason}


def _shallow(folder: Path) -> Any:
    """Return a configuration of the first layers; None: the model is small enough, or an adapter."""
    from transformers import AutoConfig  # noqa: PLC0415

    if sum(path.stat().st_size for path in folder.glob("*.safetensors")) <= LARGE:
        return None
    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    text = config.get_text_config()
    kinds = list(getattr(text, "layer_types", None) or ())
    layers = max([FEW_LAYERS, *(kinds.index(kind) + 1 for kind in set(kinds))])
    text.num_hidden_layers = min(layers, text.num_hidden_layers)
    if kinds:
        text.layer_types = kinds[: text.num_hidden_layers]
    return config


if __name__ == "__main__":
    sys.exit(main())
