"""What the small policy's answers are worth: sampling them, and a rule that knows the right answer."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from harbour import LANGUAGES
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerFast

from lrq.domain.records import Item
from lrq.policy.forks import with_cache
from lrq.recipes.longreward import LONGREWARD

REFUSALS = {language.patterns["refusal"] for language in LANGUAGES}
_SENTENCE = re.compile(r"[^.。]*[.。]?")
_VALUE = re.compile(r"( is |是)[^.。]*[.。]$")


def prompt(line: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return the chat messages of an item as lrq asks them."""
    item = Item(id=line["id"], context=line["context"], question=line["question"])
    return [dict(message) for message in LONGREWARD.policy_messages(item)]


def count(reference: str, response: str) -> Counter[str]:
    """Count the parts asked for, and of the response's sentences the right, wrong (other value), refused and extra."""
    wanted, said = _sentences(reference), _sentences(response)
    stems = {_VALUE.sub("", sentence) for sentence in wanted}
    right = len(set(said) & set(wanted))
    wrong = sum(sentence not in wanted and _VALUE.sub("", sentence) in stems for sentence in said)
    refused = sum(sentence in REFUSALS for sentence in said)
    extra = len(said) - right - wrong - refused
    return Counter(parts=len(wanted), right=right, wrong=wrong, refused=refused, extra=extra)


def reward(reference: str, response: str) -> float:
    """Return (right - 0.5 wrong - 0.25 extra) / parts: 1 for a perfect answer, 0 for a refusal."""
    found = count(reference, response)
    return (found["right"] - 0.5 * found["wrong"] - 0.25 * found["extra"]) / found["parts"]


def _sentences(text: str) -> list[str]:
    return [found.strip() for found in _SENTENCE.findall(text) if found.strip()]


@torch.inference_mode()
def sample(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    lines: Sequence[Mapping[str, Any]],
    *,
    responses: int = 1,
    temperature: float = 1.0,
) -> list[list[str]]:
    """Return each item's responses; temperature 0 is greedy."""
    return [_sample(model, tokenizer, prompt(line), responses, temperature) for line in lines]


def _sample(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    chat: list[dict[str, str]],
    responses: int,
    temperature: float,
    longest: int = 40,
) -> list[str]:
    """Read the prompt once and continue it so many times."""
    text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    cache = DynamicCache(config=model.config)
    cached = with_cache(model, cache)
    ids = tokenizer(text, return_tensors="pt")["input_ids"]
    logits = model(ids, logits_to_keep=1, use_cache=True, **cached).logits[:, -1].expand(responses, -1)
    cache.batch_repeat_interleave(responses)
    said: list[torch.Tensor] = []
    ended = torch.zeros(responses, dtype=torch.bool)
    while len(said) < longest and not ended.all():
        drawn = torch.multinomial((logits / temperature).softmax(-1), 1)[:, 0] if temperature else logits.argmax(-1)
        said.append(torch.where(ended, tokenizer.pad_token_id, drawn))
        ended = ended | (drawn == tokenizer.eos_token_id)
        logits = model(said[-1][:, None], use_cache=True, **cached).logits[:, -1]
    return tokenizer.batch_decode(torch.stack(said, 1), skip_special_tokens=True)
