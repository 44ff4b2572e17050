"""Ten responses to one long prompt: one prefill and a shared cache, a repeated cache, and num_return_sequences.

    python benchmarks/sampling.py [--prompts 1024 4096] [--new 32] [--responses 10]

Each way runs in a process of its own, on one thread, with the same random Llama of 10M parameters in fp32. CPU-seconds
and peak memory are those of sampling alone: what the process had used when the model stood is taken off. Ratios are to
`num_return_sequences` of the same run.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from lrq.policy.decoding import decode
from lrq.policy.forks import fork, prefill
from lrq.policy.port import Sampling

WAYS = ("num_return_sequences", "repeated cache", "shared cache")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, nargs="+", default=[1024, 4096], help="prompt lengths in tokens")
    parser.add_argument("--new", type=int, default=32, help="new tokens per response")
    parser.add_argument("--responses", type=int, default=10)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one[0], int(options.one[1]), options.new, options.responses)))
        return
    print(f"{'prompt':>6}  {'way':<22}{'CPU s':>8}{'ratio':>8}{'MB':>8}{'ratio':>8}")
    for prompt in options.prompts:
        found = {way: run(way, prompt, options) for way in WAYS}
        cpu, memory = found[WAYS[0]]
        for way, (seconds, megabytes) in found.items():
            figures = f"{seconds:>8.2f}{cpu / seconds:>7.1f}x{megabytes:>8.0f}{memory / megabytes:>7.1f}x"
            print(f"{prompt:>6}  {way:<22}{figures}", flush=True)


def run(way: str, prompt: int, options: argparse.Namespace) -> tuple[float, float]:
    size = ["--new", str(options.new), "--responses", str(options.responses)]
    command = [sys.executable, __file__, "--one", way, str(prompt), *size]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    seconds, megabytes = json.loads(subprocess.run(command, env=env, stdout=subprocess.PIPE, check=True).stdout)
    return seconds, megabytes


def measure(way: str, prompt: int, new: int, responses: int) -> tuple[float, float]:
    """CPU-seconds and peak megabytes of one way, over those of the process with the model built and warm."""
    torch.manual_seed(0)
    model = build()
    ids = torch.randint(3, model.config.vocab_size, (prompt,)).tolist()
    with torch.inference_mode():
        sample(model, way, ids[:8], 2, responses)
        seconds, memory = time.process_time(), peak()
        sample(model, way, ids, new, responses)
    return time.process_time() - seconds, peak() - memory


def build():
    config = LlamaConfig(
        vocab_size=4096,
        hidden_size=384,
        intermediate_size=1024,
        num_hidden_layers=4,
        num_attention_heads=6,
        num_key_value_heads=6,
        max_position_embeddings=65536,
    )
    return LlamaForCausalLM(config).eval()


def sample(model, way: str, ids: list[int], new: int, responses: int) -> None:
    if way == "num_return_sequences":
        several = {"num_return_sequences": responses, "max_new_tokens": new, "min_new_tokens": new}
        tokens = torch.tensor([ids])
        ones = torch.ones_like(tokens)
        model.generate(tokens, attention_mask=ones, do_sample=True, top_k=0, pad_token_id=0, **several)
        return
    read = prefill(model, ids)
    forked = fork(model, read, responses, "shared" if way == "shared cache" else "repeated")
    sampling = Sampling(max_new_tokens=new)
    drawn = decode(forked, read.logits, range(responses), sampling, frozenset(), lambda: False)
    assert [len(one.ids) for one in drawn] == [new] * responses


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
