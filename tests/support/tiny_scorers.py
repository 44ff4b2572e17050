"""Preference and reward models far too small to be good, made on the spot."""

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import DebertaV2Config, DebertaV2ForSequenceClassification, PreTrainedTokenizerFast

from lrq.scorer.pairrm import PairRMModel

SPECIAL = ("[PAD]", "[CLS]", "[SEP]", "[UNK]")
MARKS = ("<|source|>", "<|candidate1|>", "<|candidate2|>", "<|candidate|>")


def make_tokenizer(words: Sequence[str]) -> PreTrainedTokenizerFast:
    """Return a tokenizer of `words` that puts a text between [CLS] and [SEP]."""
    words = list(dict.fromkeys((*SPECIAL, *words)))
    raw = Tokenizer(WordLevel({word: number for number, word in enumerate(words)}, unk_token="[UNK]"))
    raw.pre_tokenizer = Whitespace()
    raw.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    raw.add_tokens(list(MARKS))
    return PreTrainedTokenizerFast(
        tokenizer_object=raw,
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        unk_token="[UNK]",
        model_max_length=2048,
    )


def _config(vocabulary: int) -> DebertaV2Config:
    return DebertaV2Config(
        vocab_size=vocabulary,
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=1,
        intermediate_size=96,
        max_position_embeddings=512,
        type_vocab_size=0,
        relative_attention=True,
        position_buckets=16,
        norm_rel_ebd="layer_norm",
        share_att_key=True,
        pos_att_type=["p2c", "c2p"],
        position_biased_input=False,
        initializer_range=0.3,  # the usual 0.02 leaves so small a model without opinions
        num_labels=1,
    )


def make_pairrm(folder: Path, words: Sequence[str], *, layout: str = "transformers", seed: int = 0) -> Path:
    """Save a random PairRM and return its folder.

    Args:
        layout: "transformers", as llm-blender/PairRM-hf, or "blender", as llm-blender/PairRM.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = make_tokenizer(words)
    config = _config(len(tokenizer))
    torch.manual_seed(seed)
    model = PairRMModel(config, 1)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, folder / "model.safetensors")
    tokenizer.save_pretrained(folder)
    if layout == "blender":
        text: dict[str, object] = {
            "ranker_type": "pairranker",
            "model_type": "deberta",
            "model_name": "microsoft/deberta-v3-large",
        }
        text |= {"source_maxlength": 1224, "candidate_maxlength": 412, "n_tasks": 1, "drop_out": 0.05}
    else:
        ids = dict(zip(("source", "cand1", "cand2", "cand"), tokenizer.convert_tokens_to_ids(list(MARKS)), strict=True))
        text = {**config.to_dict(), "architectures": ["DebertaV2PairRM"], "n_tasks": 1, "drop_out": 0.05}
        text |= {f"{name}_prefix_id": number for name, number in ids.items()}
    (folder / "config.json").write_text(json.dumps(text, indent=2))
    return folder


def make_reward_model(folder: Path, words: Sequence[str], *, seed: int = 0) -> Path:
    """Save a random sequence classifier with one label and return its folder."""
    tokenizer = make_tokenizer(words)
    torch.manual_seed(seed)
    DebertaV2ForSequenceClassification(_config(len(tokenizer))).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
