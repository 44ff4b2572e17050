# ruff: noqa: S106 - names of special tokens, no passwords
"""A policy far too small to be good, and pairs for it: for tests and benchmarks, made on the spot, no download."""

import json
import random
from pathlib import Path

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

SPECIAL = ("<pad>", "<unk>", "<bos>", "<eos>", "<user>", "<assistant>")
WORDS = tuple(f"w{number}" for number in range(58))
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %} <{{ m.role }}> {{ m.content }} {{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %} <assistant>{% endif %}"
)


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Return a word-level tokenizer with a chat template, of 64 words."""
    words = (*SPECIAL, *WORDS)
    raw = Tokenizer(WordLevel({word: number for number, word in enumerate(words)}, unk_token="<unk>"))
    raw.pre_tokenizer = WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw,
        pad_token="<pad>",
        unk_token="<unk>",
        bos_token="<bos>",
        eos_token="<eos>",
    )
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def make_policy(folder: Path, *, hidden: int = 64, layers: int = 2, positions: int = 4096, seed: int = 0) -> Path:
    """Save a random Llama with a word-level tokenizer and a chat template; returns the folder."""
    config = LlamaConfig(
        vocab_size=len(SPECIAL) + len(WORDS),
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=positions,
        initializer_range=0.1,  # the usual 0.02 leaves so small a model near the uniform distribution
        pad_token_id=0,
        bos_token_id=2,
        eos_token_id=3,
    )
    torch.manual_seed(seed)
    LlamaForCausalLM(config).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder


def make_rows(file: Path, *, rows: int, prompt: int = 24, chosen: int = 8, rejected: int = 4, seed: int = 0) -> Path:
    """Write conversational pairs of random words; lengths in words."""
    draw = random.Random(seed)

    def message(role: str, words: int) -> list[dict[str, str]]:
        return [{"role": role, "content": " ".join(draw.choices(WORDS, k=words))}]

    with file.open("w") as stream:
        for _ in range(rows):
            row = {
                "prompt": message("user", prompt),
                "chosen": message("assistant", chosen),
                "rejected": message("assistant", rejected),
            }
            stream.write(json.dumps(row) + "\n")
    return file
