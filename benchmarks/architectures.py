"""A table of architectures: is each sampled and trained exactly, and by which way? Tiny random models, nothing fetched.

    python benchmarks/architectures.py [NAME …] [--write docs/design/training.md]

Δ log p: the largest difference of any token's log-probability, over all steps of ten responses drawn from a prompt of
30 tokens, from a plain forward pass over the tokens so far. Greedy: whether the likeliest tokens are those of
transformers' own generate(). Way: what the probe at loading chose, or why the model is refused before anything is paid.
Training Δ: the largest difference of any step's loss or margin from stock TRL. Path: whether prompts are encoded once
for a pair, or why not.

With --write the table takes the place of the one between the marks in that file.
"""

import argparse
import logging
import re
import warnings
from pathlib import Path
from typing import Any

import torch
from transformers.utils import logging as transformers_logging
from zoo import ZOO, build

from lrq.policy import decoding
from lrq.policy.decoding import decode
from lrq.policy.forks import Way, fork, prefill
from lrq.policy.noise import choose
from lrq.policy.port import Sampling
from lrq.policy.probing import CannotSample, probe

PROMPT = torch.randint(3, 64, (30,), generator=torch.Generator().manual_seed(1)).tolist()
NEW, RESPONSES = 24, 10
EXACT = 1e-4
BEGIN, END = "<!-- architectures: begin -->", "<!-- architectures: end -->"
COLUMNS = ("sampling Δ log p", "greedy", "way", "training Δ", "path")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(ZOO)}; all by default")
    parser.add_argument("--write", type=Path, help="a file to put the table into")
    options = parser.parse_args()
    quiet()
    from zoo_training import training  # noqa: PLC0415 - TRL, for those alone who want the whole table

    torch.set_num_threads(1)
    lines = [f"| architecture | {' | '.join(COLUMNS)} |", f"|{'---|' * (1 + len(COLUMNS))}"]
    for name in options.names or ZOO:
        figures = sampling(name) | training(name)
        lines.append(f"| {name} | {' | '.join(figures[column] for column in COLUMNS)} |")
        print(lines[-1], flush=True)
    if options.write:
        text = options.write.read_text()
        table = "\n".join([BEGIN, *lines, END])
        options.write.write_text(re.sub(f"{BEGIN}.*{END}", lambda _: table, text, flags=re.DOTALL))


def quiet() -> None:
    """Keep what transformers has to say about kernels that are not installed off the screen."""
    warnings.filterwarnings("ignore", category=FutureWarning)  # between the libraries
    transformers_logging.set_verbosity_error()
    logging.disable(logging.WARNING)


def sampling(name: str) -> dict[str, str]:
    """Return the figures of sampling one architecture as text."""
    model = build(name)
    try:
        way = probe(model).way
    except CannotSample as error:
        return dict.fromkeys(COLUMNS[:2], "–") | {"way": f"refused: {error}"}
    with torch.inference_mode():
        difference = largest_difference(model, way)
        greedy = greedy_ids(model, way) == generated(model)
    exact = "" if difference <= EXACT else " **not exact**"
    return {"sampling Δ log p": f"{difference:.0e}{exact}", "greedy": "equal" if greedy else "**differs**", "way": way}


def largest_difference(model: Any, way: Way) -> float:
    """Return the largest |Δ log p| over all steps of all responses, drawn at temperature 1."""
    keys = [1000003 * k for k in range(RESPONSES)]
    seen: dict[int, list[torch.Tensor]] = {key: [] for key in keys}

    def recorded(logits: torch.Tensor, alive: Any, position: int, **named: Any) -> torch.Tensor:
        for key, row in zip(alive, logits, strict=True):
            seen[key].append(row.log_softmax(-1))
        return choose(logits, alive, position, **named)

    read = prefill(model, PROMPT)
    decoding.choose = recorded  # type: ignore[attr-defined]
    try:
        drawn = decode(fork(model, read, RESPONSES, way), read.logits, keys, Sampling(max_new_tokens=NEW), {2}, _never)
    finally:
        decoding.choose = choose  # type: ignore[attr-defined]
    return max(
        float((found - plain(model, one.ids[:step])).abs().max())
        for key, one in zip(keys, drawn, strict=True)
        for step, found in enumerate(seen[key])
    )


def plain(model: Any, ids: list[int]) -> torch.Tensor:
    """Return the log-probabilities after the prompt and these ids, by a forward pass without a cache."""
    return model(input_ids=torch.tensor([PROMPT + ids]), use_cache=False).logits[0, -1].log_softmax(-1)


def greedy_ids(model: Any, way: Way) -> list[int]:
    read = prefill(model, PROMPT)
    likeliest = Sampling(max_new_tokens=NEW, temperature=0)
    return decode(fork(model, read, 1, way), read.logits, [0], likeliest, {2}, _never)[0].ids


def generated(model: Any) -> list[int]:
    """Return what transformers' own loop writes."""
    tokens = torch.tensor([PROMPT])
    options = {"max_new_tokens": NEW, "do_sample": False, "pad_token_id": 0, "eos_token_id": [2]}
    return model.generate(tokens, attention_mask=torch.ones_like(tokens), **options)[0, len(PROMPT) :].tolist()


def _never() -> bool:
    return False


if __name__ == "__main__":
    main()
