"""PairRM (LLM-Blender, arXiv 2306.02561): a DeBERTa that reads a prompt with two responses and gives one logit.

Three pieces, each between its own [CLS] and [SEP]: `<|source|>` and the prompt, `<|candidate1|>` and one response,
`<|candidate2|>` and the other. The logit is head(source; candidate1) - head(source; candidate2), by the vectors at the
three marks; above 0 the first response is the better one.
"""

from collections.abc import Mapping, Sequence
from itertools import permutations
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoTokenizer, DebertaV2Config, DebertaV2Model

from lrq.domain.errors import UsageError
from lrq.scorer.models import OFFLINE, read_weights, require_keys

SOURCE_TOKENS = 1224  # of the prompt at most
PAIR_TOKENS = 2048  # of all three pieces; what the prompt leaves is halved between the candidates
_BATCH = 8  # pairs at once
_MARKS = ("<|source|>", "<|candidate1|>", "<|candidate2|>")
_HEAD_SIZE = 64  # of an attention head, in every DeBERTa v3
_DROPPED = {"pretrained_model.embeddings.position_ids"}  # a buffer that older releases saved


def is_pairrm(config: Mapping[str, Any]) -> bool:
    """Tell PairRM by `config`, its config.json: of the layout for transformers, or of LLM-Blender's own."""
    return "DebertaV2PairRM" in config.get("architectures", ()) or config.get("ranker_type") == "pairranker"


class PairRMModel(nn.Module):  # type: ignore[misc]
    """The network, with the names that the published weights have."""

    def __init__(self, config: DebertaV2Config, tasks: int) -> None:
        super().__init__()
        self.pretrained_model = DebertaV2Model(config)
        size = config.hidden_size
        self.head_layer = nn.Sequential(
            nn.Identity(), nn.Linear(2 * size, size), nn.Tanh(), nn.Identity(), nn.Linear(size, tasks)
        )

    def forward(self, ids: Tensor, mask: Tensor, marks: Tensor) -> Tensor:
        """Return the logits, [B], of token ids [B, T] with the places of their three marks [B, 3]."""
        states = self.pretrained_model(input_ids=ids, attention_mask=mask).last_hidden_state
        source, first, second = states[torch.arange(len(ids))[:, None], marks].unbind(dim=1)
        heads = [self.head_layer(torch.cat([source, candidate], dim=-1)) for candidate in (first, second)]
        return (heads[0] - heads[1]).mean(dim=-1)


class PairRM:
    """Fulfils Scorer: the logit of every ordered pair of responses."""

    kind = "pairwise preference model"

    def __init__(self, model: PairRMModel, tokenizer: Any, device: str) -> None:
        self._model, self._tokenizer, self._device = model, tokenizer, device
        self._special = sorted(tokenizer.get_added_vocab(), key=len, reverse=True)
        pieces = {mark: tokenizer(mark)["input_ids"] for mark in _MARKS}
        if any(len(ids) != 3 or ids[1] == tokenizer.unk_token_id for ids in pieces.values()):
            raise UsageError(f"the tokenizer of a PairRM has the tokens {', '.join(_MARKS)}, and [CLS] and [SEP]")

    def score(
        self,
        prompt: str,
        responses: Sequence[str],
        *,
        source_tokens: int = SOURCE_TOKENS,
        pair_tokens: int = PAIR_TOKENS,
    ) -> tuple[list[list[float]], int]:
        """Return the logits of i over j with i shown first, [K, K], 0 on the diagonal; texts are cut on the right."""
        orders = list(permutations(range(len(responses)), 2))
        pairs = [(responses[i], responses[j]) for i, j in orders]
        encoded = [self.encode(prompt, *pair, source_tokens=source_tokens, pair_tokens=pair_tokens) for pair in pairs]
        logits = [
            logit for start in range(0, len(pairs), _BATCH) for logit in self.logits(encoded[start : start + _BATCH])
        ]
        rows = [[0.0] * len(responses) for _ in responses]
        for (i, j), logit in zip(orders, logits, strict=True):
            rows[i][j] = logit
        count = sum(len(self._tokenizer(text)["input_ids"]) for text in (prompt, *responses))
        return rows, count

    def encode(
        self, prompt: str, first: str, second: str, *, source_tokens: int, pair_tokens: int
    ) -> tuple[list[int], ...]:
        """Return the token ids of the three pieces: at most `source_tokens` of the prompt, `pair_tokens` in all."""
        source = self._piece(_MARKS[0], prompt, source_tokens)
        left = (pair_tokens - len(source)) // 2
        return source, self._piece(_MARKS[1], first, left), self._piece(_MARKS[2], second, left)

    def _piece(self, mark: str, text: str, most: int) -> list[int]:
        """Return [CLS], the mark, as many tokens of the text as fit, [SEP]; its own control tokens are broken."""
        for token in self._special:
            text = text.replace(token, f"{token[0]} {token[1:]}")
        ids: list[int] = self._tokenizer(mark + text, truncation=True, max_length=most)["input_ids"]
        return ids

    def logits(self, encoded: Sequence[tuple[list[int], ...]]) -> list[float]:
        """Return the logit of each pair of the batch `encoded`: the three pieces of each, as `encode` gives them."""
        ids = [[token for piece in pieces for token in piece] for pieces in encoded]
        marks = [[1, 1 + len(source), 1 + len(source) + len(first)] for source, first, _ in encoded]
        longest = max(map(len, ids))
        padded = [row + [self._tokenizer.pad_token_id] * (longest - len(row)) for row in ids]
        mask = [[1] * len(row) + [0] * (longest - len(row)) for row in ids]
        tensors = (torch.tensor(rows, device=self._device) for rows in (padded, mask, marks))
        with torch.inference_mode():
            values: list[float] = self._model(*tensors).double().tolist()
        return values


def load_pairrm(folder: Path, config: dict[str, Any], device: str, dtype: Any) -> PairRM:
    """Load PairRM; `dtype` is one of torch's or "auto". Raises UsageError where weights or marks are missing."""
    weights = read_weights(folder)
    backbone = _backbone(folder, config, weights)
    model = PairRMModel(backbone, int(config.get("n_tasks", 1)))
    report = model.load_state_dict(weights, strict=False)
    require_keys(folder, report.missing_keys, set(report.unexpected_keys) - _DROPPED)
    tokenizer = AutoTokenizer.from_pretrained(folder, **OFFLINE)
    if isinstance(dtype, torch.dtype):
        model = model.to(dtype)
    return PairRM(model.to(device).eval(), tokenizer, device)


def _backbone(folder: Path, config: dict[str, Any], weights: Mapping[str, Tensor]) -> DebertaV2Config:
    """Return the DeBERTa's configuration; LLM-Blender's own layout only names it, and its sizes are the weights'."""
    if config.get("model_type") == "deberta-v2":
        return DebertaV2Config.from_pretrained(folder, **OFFLINE)
    name = str(config.get("model_name"))
    if "deberta-v3" not in name:
        raise UsageError(f"{folder} is a ranker on {name}; the published PairRM stands on microsoft/deberta-v3-large")
    prefix = "pretrained_model."
    shapes = {key.removeprefix(prefix): tensor.shape for key, tensor in weights.items() if key.startswith(prefix)}
    needed = ("embeddings.word_embeddings.weight", "encoder.rel_embeddings.weight")
    require_keys(folder, [prefix + key for key in needed if key not in shapes])
    vocabulary, size = shapes[needed[0]]
    layers = {key.split(".")[2] for key in shapes if key.startswith("encoder.layer.")}
    return DebertaV2Config(
        vocab_size=vocabulary,
        hidden_size=size,
        num_hidden_layers=len(layers),
        num_attention_heads=max(1, size // _HEAD_SIZE),
        intermediate_size=shapes["encoder.layer.0.intermediate.dense.weight"][0],
        max_position_embeddings=512,
        type_vocab_size=0,
        relative_attention=True,
        max_relative_positions=-1,
        position_buckets=shapes[needed[1]][0] // 2,
        norm_rel_ebd="layer_norm",
        share_att_key=True,
        pos_att_type=["p2c", "c2p"],
        position_biased_input=False,
        layer_norm_eps=1e-7,
    )
