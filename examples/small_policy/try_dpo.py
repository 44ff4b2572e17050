"""Whether DPO on its own pairs improves the small policy: `python examples/small_policy/try_dpo.py`.

Ten responses per demo item, best against worst by a rule that knows the right answer, a plain DPO loop, and held-out
questions before and after. It says whether the settings of demo.yaml can work, without queue, judge or trainer.
"""

import random
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).parents[1]))

from grade import prompt, reward, sample
from make_dataset import sampled_items
from transformers import AutoTokenizer, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.utils.logging import disable_progress_bar

HERE = Path(__file__).parent
Line = Mapping[str, Any]
Pair = tuple[Line, str, str]  # item, chosen, rejected


def best_against_worst(lines: Sequence[Line], told: Sequence[Sequence[str]]) -> list[Pair]:
    """Return the pairs of the items whose responses differ in reward; the first wins among equals."""
    pairs = []
    for line, texts in zip(lines, told, strict=True):
        rewards = [reward(line["answer"], text) for text in texts]
        if max(rewards) > min(rewards):
            pairs.append((line, texts[rewards.index(max(rewards))], texts[rewards.index(min(rewards))]))
    return pairs


def any_two(rng: random.Random, lines: Sequence[Line], told: Sequence[Sequence[str]]) -> list[Pair]:
    """Return the control: of each item two responses that differ, in either order."""
    pairs = []
    for line, texts in zip(lines, told, strict=True):
        if len(set(texts)) > 1:
            ordered = [(one, other) for one in texts for other in texts if one != other]
            pairs.append((line, *rng.choice(ordered)))
    return pairs


def log_probabilities(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, pairs: Sequence[Pair]
) -> tuple[Tensor, Tensor]:
    """Return the responses' summed log-probabilities and their lengths, the chosen first, [2 * pairs]."""
    answers = [(line, chosen) for line, chosen, _ in pairs] + [(line, rejected) for line, _, rejected in pairs]
    asked = tokenizer.apply_chat_template(
        [prompt(line) for line, _ in answers], tokenize=False, add_generation_prompt=True
    )
    whole = [text + told + tokenizer.eos_token for text, (_, told) in zip(asked, answers, strict=True)]
    rows = tokenizer(whole, padding=True, return_tensors="pt", return_token_type_ids=False)  # padded on the left
    sizes = torch.tensor([len(tokenizer(told)["input_ids"]) + 1 for _, told in answers])
    longest = int(sizes.max())
    logits = model(**rows, logits_to_keep=longest + 1).logits[:, :-1]
    said = rows["input_ids"][:, -longest:]
    each = -functional.cross_entropy(logits.transpose(1, 2), said, reduction="none")
    return (each * (torch.arange(longest) >= longest - sizes[:, None])).sum(1), sizes


def train(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    pairs: list[Pair],
    *,
    epochs: int,
    lr: float,
    beta: float,
    sft: float,
    batch: int,
    seed: int,
) -> None:
    """Run DPO (Rafailov et al. 2023, equation 7) plus `sft` times the token-mean cross-entropy of the chosen."""
    batches = [pairs[at : at + batch] for at in range(0, len(pairs), batch)]
    with torch.no_grad():
        base = {
            id(pair): value
            for group in batches
            for pair, value in zip(group, _paired(model, tokenizer, group), strict=True)
        }
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.0)
    steps, step = epochs * -(-len(pairs) // batch), 0
    for epoch in range(epochs):
        order = random.Random(f"{seed}-{epoch}").sample(pairs, len(pairs))
        for at in range(0, len(order), batch):
            group = order[at : at + batch]
            values, sizes = log_probabilities(model, tokenizer, group)
            chosen, rejected = values.chunk(2)
            reference = torch.stack([base[id(pair)] for pair in group], 1)
            margin = (chosen - reference[0]) - (rejected - reference[1])
            loss = -functional.logsigmoid(beta * margin).mean() - sft * chosen.sum() / sizes[: len(group)].sum()
            for each in optimizer.param_groups:
                each["lr"] = lr * min((step + 1) / max(1, 0.1 * steps), 0.5 * (1 + np.cos(np.pi * step / steps)))
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            step += 1


def _paired(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, group: Sequence[Pair]) -> list[Tensor]:
    values, _ = log_probabilities(model, tokenizer, group)
    return list(values.view(2, -1).T)


def measure(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, lines: Sequence[Line], seed: int
) -> dict[str, np.ndarray]:
    """Return the mean reward of each item, and the share of exact answers, greedy and at temperature 1."""
    torch.manual_seed(seed)
    found = {}
    for name, responses, temperature in (("greedy", 1, 0.0), ("sampled", 8, 1.0)):
        told = sample(model, tokenizer, lines, responses=responses, temperature=temperature)
        both = [[(line["answer"], text) for text in texts] for line, texts in zip(lines, told, strict=True)]
        found[f"{name} reward"] = np.array([np.mean([reward(*pair) for pair in pairs]) for pairs in both])
        found[f"{name} exact"] = np.array([np.mean([wanted == text for wanted, text in pairs]) for pairs in both])
    return found


def interval(difference: np.ndarray, draws: int = 5000) -> tuple[float, float]:
    """Return the 95 % interval of the mean by a paired bootstrap over the items."""
    picks = np.random.default_rng(0).integers(len(difference), size=(draws, len(difference)))
    low, high = np.quantile(difference[picks].mean(1), [0.025, 0.975])
    return float(low), float(high)


@click.command()
@click.option("--model", "folder", type=click.Path(exists=True, path_type=Path), default=HERE / "model")
@click.option("--seeds", default="1,2,3", show_default=True, help="Each has its own documents and responses.")
@click.option("--items", default=48, show_default=True)
@click.option("--held-out", default=60, show_default=True)
@click.option("--epochs", default=3, show_default=True)
@click.option("--lr", default=3e-4, show_default=True)
@click.option("--beta", default=0.1, show_default=True)
@click.option("--sft", default=0.3, show_default=True, help="Weight of the cross-entropy of the chosen.")
@click.option("--batch", default=8, show_default=True)
@click.option("--control", is_flag=True, help="Also train on pairs drawn at random.")
def main(folder: Path, seeds: str, items: int, held_out: int, control: bool, **settings: Any) -> None:
    """Print reward and exact answers on held-out questions, before and after DPO."""
    disable_progress_bar()
    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for seed in map(int, seeds.split(",")):
        lines = list(sampled_items(random.Random(f"try-{seed}"), "try", items))
        others = list(sampled_items(random.Random(f"try-held-out-{seed}"), "held-out", held_out))
        start = time.monotonic()
        model = LlamaForCausalLM.from_pretrained(folder).eval()
        torch.manual_seed(seed)
        told = sample(model, tokenizer, lines, responses=10)
        before, sampled = measure(model, tokenizer, others, seed), time.monotonic() - start
        kinds = {"best against worst": best_against_worst(lines, told)}
        if control:
            kinds["any two"] = any_two(random.Random(seed), lines, told)
        for name, pairs in kinds.items():
            start = time.monotonic()
            trained = LlamaForCausalLM.from_pretrained(folder)
            train(trained, tokenizer, pairs, seed=seed, **settings)
            trained.eval()
            seconds = time.monotonic() - start
            after = measure(trained, tokenizer, others, seed)
            click.echo(
                f"seed {seed}, {name}: {len(pairs)} pairs, sampled in {sampled:.0f} s, trained in {seconds:.0f} s"
            )
            for what in before:
                low, high = interval(after[what] - before[what])
                figures = f"{before[what].mean():.3f} -> {after[what].mean():.3f}"
                click.echo(f"  {what}: {figures}, {(after[what] - before[what]).mean():+.3f} [{low:+.3f}, {high:+.3f}]")


if __name__ == "__main__":
    main()
