"""Train the demo's small policy from scratch: `python examples/small_policy/train.py`.

A plain Llama of two layers learns first to read (to find the value of a ship's attribute in a document) and then, by a
declared mixture of good and bad answers, to answer as a policy does that has much to gain.
"""

import json
import math
import random
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby, islice
from operator import itemgetter
from pathlib import Path

import click
import torch
from torch import Tensor, nn
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).parents[1]))

from grade import count, reward, sample
from lessons import STAGES, Batch, Lookups, Reader, frame, lesson
from make_dataset import MIXTURE, sampled_items, taught_items
from tokenizer import build
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.utils.logging import disable_progress_bar

HERE = Path(__file__).parent
HIDDEN = 128
FADING = 1500  # steps over which the auxiliary losses go to zero
MASTERED = 0.9  # share of values right in the last 40 steps before documents get longer
Say = Callable[[str], None]


def new_policy(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """Return an untrained policy of 475k parameters."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=HIDDEN,
        intermediate_size=384,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        initializer_range=0.08,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
        attn_implementation="eager",  # the auxiliary losses look at the attention
    )
    model = LlamaForCausalLM(config)
    second = model.model.layers[1].self_attn
    second.k_proj.weight.data.copy_(second.q_proj.weight.data)  # like attends to like from the start
    return model


def language_loss(logits: Tensor, batch: Batch, *, text: float = 0.1, value: float = 5.0) -> Tensor:
    """Return the cross-entropy, weighted: the document's tokens by `text`, an answer's by 1, its values by `value`."""
    answer, asked = batch.answer[:, 1:], (batch.answer & batch.value)[:, 1:]
    weight = (text + (1 - text) * answer + (value - 1) * asked) * batch.real[:, 1:]
    losses = functional.cross_entropy(logits[:, :-1].transpose(1, 2), batch.ids[:, 1:], reduction="none")
    return (losses * weight).sum() / weight.sum()


def share_right(logits: Tensor, batch: Batch) -> float:
    """Return the share of the answers' values that the policy would have said itself."""
    asked = (batch.answer & batch.value)[:, 1:]
    return (logits[:, :-1].argmax(-1) == batch.ids[:, 1:])[asked].float().mean().item()


class Hints(nn.Module):
    """Auxiliary losses without which retrieval does not emerge in minutes; no part of the policy.

    The first layer is to know which ship and which attribute were named last. Where the answer's next word is a value,
    the second layer's heads VALUES are to look at it in the document; where it is a name, NAMES at it in the question.
    """

    VALUES, NAMES = slice(0, 2), slice(2, 4)

    def __init__(self, reader: Reader) -> None:
        super().__init__()
        self.ship = nn.Linear(HIDDEN, reader.ships)
        self.attribute = nn.Linear(HIDDEN, reader.attributes)

    def forward(self, hidden: Tensor, attention: Tensor, batch: Batch) -> Tensor:
        """`hidden` [B, T, HIDDEN] of the first layer, `attention` [B, heads, T, T] of the second."""
        known = (batch.ship >= 0) & (batch.attribute >= 0) & batch.real
        named = functional.cross_entropy(self.ship(hidden[known]), batch.ship[known])
        named = named + functional.cross_entropy(self.attribute(hidden[known]), batch.attribute[known])
        looks = _missed(attention[:, self.VALUES], batch.values) + _missed(attention[:, self.NAMES], batch.names)
        return named + looks


def _missed(attention: Tensor, sought: Lookups) -> Tensor:
    """Return the cross-entropy of attention [B, heads, T, T] with where it should look."""
    mass = (attention[sought.rows, :, sought.places] * sought.wanted[:, None]).sum(-1)
    return -(mass + 1e-6).log().mean()


def rate(step: int, steps: int, peak: float) -> float:
    """Return the learning rate: 100 steps of warm-up, then constant, a cosine over the last third."""
    start = 2 * steps // 3
    if step < start:
        return peak * min(1.0, (step + 1) / 100)
    return peak * (0.51 + 0.49 * math.cos(math.pi * (step - start) / (steps - start)))


def draw_lessons(rng: random.Random, stage: int, tokens: int = 2048) -> list[list[dict[str, str]]]:
    """Return conversations of about so many tokens in all; one in five is of an earlier stage."""
    if stage and rng.random() < 0.2:
        stage = rng.randrange(stage)
    sentences = rng.randint(max(4, STAGES[stage] // 2), STAGES[stage])
    questions = 4 + sentences // 4
    number = max(1, round(tokens / (7 * sentences + 32 * questions)))
    return [lesson(rng, sentences, questions=questions) for _ in range(number)]


def update(optimizer: torch.optim.Optimizer, loss: Tensor, lr: float) -> None:
    """Take one step."""
    for group in optimizer.param_groups:
        group["lr"] = lr
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_([weight for group in optimizer.param_groups for weight in group["params"]], 1.0)
    optimizer.step()


def learn_to_read(model: LlamaForCausalLM, reader: Reader, *, steps: int, seed: int, say: Say) -> None:
    """Train on lessons that grow from 6 to 130 sentences."""
    rng, hints = random.Random(f"lessons-{seed}"), Hints(reader)
    weights = [*model.parameters(), *hints.parameters()]
    optimizer = torch.optim.AdamW(weights, betas=(0.9, 0.98), weight_decay=0.01)
    stage, right = 0, deque[float](maxlen=40)
    for step in range(steps):
        fade = max(0.0, 1 - step / FADING)
        if not fade:
            model.set_attn_implementation("sdpa")
        batch = reader.read(draw_lessons(rng, stage))
        seen = model(
            batch.ids, attention_mask=batch.real.long(), output_hidden_states=fade > 0, output_attentions=fade > 0
        )
        loss = language_loss(seen.logits, batch)
        if fade:
            loss = loss + fade * hints(seen.hidden_states[1], seen.attentions[1], batch)
        update(optimizer, loss, rate(step, steps, 2e-3))
        right.append(share_right(seen.logits, batch))
        if step % 100 == 99:
            say(f"reading, step {step + 1} of {steps}: {STAGES[stage]} sentences, {sum(right) / len(right):.1%} right")
        if len(right) == right.maxlen and sum(right) > MASTERED * len(right) and stage < len(STAGES) - 1:
            stage += 1
            right.clear()


def conversations(rng: random.Random, items: Iterable[dict[str, str]]) -> Iterator[list[dict[str, str]]]:
    """Yield a conversation for each document: its questions and their answers in turn."""
    for context, lines in groupby(items, key=itemgetter("context")):
        messages = []
        for line in lines:
            asked = line["question"] if messages else frame(rng, context, line["question"])
            messages.append({"role": "user", "content": asked})
            messages.append({"role": "assistant", "content": line["answer"]})
        yield messages


def learn_to_answer(model: LlamaForCausalLM, reader: Reader, *, steps: int, seed: int, say: Say) -> None:
    """Train on the declared mixture of answers, three documents of eight questions to a step."""
    rng = random.Random(f"sft-{seed}")
    taught = conversations(rng, taught_items(rng, 3 * steps))
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.98), weight_decay=0.01)
    model.set_attn_implementation("sdpa")
    for step in range(steps):
        batch = reader.read(list(islice(taught, 3)))
        loss = language_loss(model(batch.ids, attention_mask=batch.real.long()).logits, batch, text=0.0, value=1.0)
        update(optimizer, loss, rate(step, steps, 5e-4))
        if step % 50 == 49:
            say(f"answering, step {step + 1} of {steps}: loss {loss.item():.3f}")


def report(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, *, seed: int) -> dict[str, dict[str, float]]:
    """Return how new questions are answered, greedily and at temperature 1."""
    lines = list(sampled_items(random.Random(f"check-{seed}"), "check", 60))
    torch.manual_seed(seed)
    found = {}
    for name, responses, temperature in (("greedy", 1, 0.0), ("sampled", 10, 1.0)):
        told = sample(model, tokenizer, lines, responses=responses, temperature=temperature)
        pairs = [(line["answer"], text) for line, texts in zip(lines, told, strict=True) for text in texts]
        counts = [count(*pair) for pair in pairs]
        found[name] = {
            "reward": sum(reward(*pair) for pair in pairs) / len(pairs),
            "exact": sum(wanted == text for wanted, text in pairs) / len(pairs),
            "wrong": sum(each["wrong"] > 0 for each in counts) / len(pairs),
            "malformed": sum(each["extra"] > 0 for each in counts) / len(pairs),
        }
    return found


@click.command(epilog="Example: python examples/small_policy/train.py --output /tmp/policy --seed 1")
@click.option("--output", type=click.Path(path_type=Path), default=HERE / "model", show_default="beside this script")
@click.option("--seed", default=0, show_default=True)
@click.option("--reading", default=2600, show_default=True, help="Steps of learning to read.")
@click.option("--answering", default=200, show_default=True, help="Steps on the mixture of answers.")
@click.option("--base", type=click.Path(exists=True, path_type=Path), help="Skip reading: start from this folder.")
@click.option("--threads", default=1, show_default=True, help="Another number may give slightly other weights.")
def main(output: Path, seed: int, reading: int, answering: int, base: Path | None, threads: int) -> None:
    """Train the small policy and write it to a folder."""
    start = time.monotonic()
    say = lambda text: click.echo(f"{time.monotonic() - start:6.0f} s  {text}")  # noqa: E731
    disable_progress_bar()
    click.echo("This takes about 14 minutes on one CPU core.")
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    tokenizer = build()
    reader = Reader(tokenizer)
    if base is None:
        model = new_policy(tokenizer)
        learn_to_read(model, reader, steps=reading, seed=seed, say=say)
    else:
        model = LlamaForCausalLM.from_pretrained(base, attn_implementation="sdpa")
    if answering:
        say(f"taught to answer by this mixture: {json.dumps(MIXTURE)}")
        learn_to_answer(model, reader, steps=answering, seed=seed, say=say)
    model.eval().save_pretrained(output)
    tokenizer.save_pretrained(output)
    for name, figures in report(model, tokenizer, seed=seed).items():
        say(f"{name}: " + ", ".join(f"{what} {share:.3f}" for what, share in figures.items()))


if __name__ == "__main__":
    main()
