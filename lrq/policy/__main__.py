"""`python -m lrq.policy FOLDER DTYPE`: probe a policy on the CPU, and print as JSON how it is sampled or why not.

Of a large model the first layers are tried, at least one of each kind (`lrq.policy.shallow`): that takes seconds.
"""

import logging
import sys
from pathlib import Path
from typing import Any

from lrq.domain.errors import UsageError
from lrq.domain.printable import printable_json


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
    from lrq.policy.shallow import shallow_config  # noqa: PLC0415
    from lrq.policy.tokenizer import load_tokenizer  # noqa: PLC0415

    transformers_logging.set_verbosity_error()
    try:
        Rendering(tokenizer=load_tokenizer(folder), template={}).end_ids()
        model = load_model(folder, dtype, config=shallow_config(folder))
        if model.dtype == torch.float16:  # no kernels of a CPU
            model = model.float()
        probed = probe(model)
    except UsageError as error:
        return {"refusal": str(error)}
    return {"way": probed.way, "difference": probed.difference, "reason": probed.reason}


if __name__ == "__main__":
    sys.exit(main())
