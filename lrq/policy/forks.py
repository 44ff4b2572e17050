"""Several continuations of one prompt: ways to read it, and to append a token to each of its continuations.

Three ways, from the cheapest on: the continuations as queries of one sequence over one cache (`shared`), as a batch
whose cache is the prompt's, repeated (`repeated`), and as a batch that reads the prompt once for each (`batched`). All
give the logits of a plain forward pass; `lrq.policy.probing` finds out which of them a model can do.
"""

import copy
import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

Tensor = Any  # torch.Tensor
Model = Any  # transformers.PreTrainedModel
Way = Literal["shared", "repeated", "batched"]
WAYS: tuple[Way, ...] = ("shared", "repeated", "batched")


@dataclass(frozen=True, kw_only=True)
class Prefilled:
    """A prompt that was read."""

    ids: Sequence[int]
    logits: Tensor  # of the first new token, (1, vocabulary)
    cache: DynamicCache


def prefill(model: Model, ids: Sequence[int]) -> Prefilled:
    """Read the prompt of the tokens `ids`, once for all its continuations."""
    cache = new_cache(model)
    tokens = torch.tensor([ids], device=model.device)
    logits = forward(model, tokens, cache, start=0, logits_to_keep=1)[:, -1]
    return Prefilled(ids=ids, logits=logits, cache=cache)


def new_cache(model: Model) -> DynamicCache:
    """Return an empty cache; a window as wide as all positions (Phi-3.5's) is none, and its layers can be shared."""
    cache = DynamicCache(config=model.config)
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if positions is not None:
        cache.layers = [
            DynamicLayer() if type(layer) is DynamicSlidingWindowLayer and layer.sliding_window >= positions else layer
            for layer in cache.layers
        ]
    return cache


def forward(model: Model, tokens: Tensor, cache: DynamicCache, *, start: int, **more: Any) -> Tensor:
    """Return the logits (rows, tokens, vocabulary) of `tokens` (rows, tokens), the first at position `start`.

    Positions are always said: some models (Bamba) otherwise count from 0 whatever the cache holds.
    """
    parameters = inspect.signature(model.forward).parameters
    if "position_ids" in parameters and "position_ids" not in more:
        places = torch.arange(start, start + tokens.shape[1], device=tokens.device)
        more["position_ids"] = places.expand(len(tokens), -1)
    return model(input_ids=tokens, use_cache=True, **more, **with_cache(model, cache)).logits


def with_cache(model: Model, cache: DynamicCache) -> dict[str, DynamicCache]:
    """Return the argument by which the model's forward takes its cache, which it fills in place.

    transformers renamed `past_key_values` to `cache` in 5.24; some models had names of their own before.
    """
    parameters = inspect.signature(model.forward).parameters
    names = ("cache", "past_key_values", "cache_params")
    return {next((name for name in names if name in parameters), names[1]): cache}


class Fork(Protocol):
    """Several continuations of one prompt, known by their rows."""

    def step(self, rows: Sequence[int], tokens: Tensor) -> Tensor:
        """Append `tokens` (rows,) to the `rows`, which only ever become fewer; return logits (rows, vocabulary)."""
        ...

    def close(self) -> None:
        """Leave the prompt's cache as it was."""
        ...


class SharedFork:
    """The rows as queries of one sequence, all at the same position, each masked from the others' tokens.

    The prompt's keys and values are held once and read once per step, however many rows there are.
    """

    def __init__(self, model: Model, read: Prefilled) -> None:
        self._model, self._cache = model, read.cache
        self._prompt = len(read.ids)
        self._owner = torch.empty(0, dtype=torch.long, device=model.device)  # the row of each token after the prompt
        self._steps = 0

    def step(self, rows: Sequence[int], tokens: Tensor) -> Tensor:
        row_ids = torch.tensor(rows, device=tokens.device)
        self._owner = torch.cat([self._owner, row_ids])
        position = self._prompt + self._steps
        positions = torch.full_like(tokens, position)[None]
        mask = self._mask(row_ids)
        logits = forward(
            self._model, tokens[None], self._cache, start=position, position_ids=positions, attention_mask=mask
        )
        self._steps += 1
        return logits[0]

    def close(self) -> None:
        for layer in self._cache.layers:  # each by itself: a step that ran out of memory reached only some of them
            if appended := layer.get_seq_length() - self._prompt:  # crop(0) once meant: remove everything
                layer.crop(-appended)

    def _mask(self, rows: Tensor) -> Tensor:
        """Added to the scores, (1, 1, rows, prompt + own tokens of all rows): 0 to see, the least number to hide."""
        dtype = self._model.dtype
        mask = torch.zeros(len(rows), self._prompt + len(self._owner), dtype=dtype, device=rows.device)
        mask[:, self._prompt :].masked_fill_(self._owner != rows[:, None], torch.finfo(dtype).min)
        return mask[None, None]


class BatchFork:
    """The rows as a batch with a cache of their own: for every kind of cache, at as many times the memory."""

    def __init__(self, model: Model, cache: DynamicCache, rows: Sequence[int], place: int) -> None:
        self._model, self._cache = model, cache
        self._rows, self._place = list(rows), place

    def step(self, rows: Sequence[int], tokens: Tensor) -> Tensor:
        if len(rows) < len(self._rows):
            select(self._model, self._cache, [self._rows.index(row) for row in rows])
            self._rows = list(rows)
        logits = forward(self._model, tokens[:, None], self._cache, start=self._place)
        self._place += 1
        return logits[:, -1]

    def close(self) -> None:
        """Do nothing: the prompt's cache was copied."""


class SwitchingFork:
    """A fork for longrope, which turns all keys otherwise once a sequence is longer than it was first trained for.

    At that step what is cached holds no longer: prompt and tokens of each row are read anew, as generate() does.
    """

    def __init__(self, model: Model, read: Prefilled, inner: Fork, switch: int) -> None:
        self._model, self._ids, self._fork, self._switch = model, list(read.ids), inner, switch
        self._drawn: dict[int, list[int]] = {}
        self._steps = 0

    def step(self, rows: Sequence[int], tokens: Tensor) -> Tensor:
        for row, token in zip(rows, tokens.tolist(), strict=True):
            self._drawn.setdefault(row, []).append(token)
        self._steps += 1
        if len(self._ids) + self._steps != self._switch + 1:
            return self._fork.step(rows, tokens)
        self._fork.close()
        self._fork, logits = read_each(self._model, [self._ids + self._drawn[row] for row in rows], rows)
        return logits

    def close(self) -> None:
        self._fork.close()


def read_each(model: Model, sequences: Sequence[Sequence[int]], rows: Sequence[int]) -> tuple[BatchFork, Tensor]:
    """Read one of the `sequences`, all of one length, for each of `rows`.

    Returns their fork and the next logits (rows, vocabulary).
    """
    cache = new_cache(model)
    tokens = torch.tensor(sequences, device=model.device)
    logits = forward(model, tokens, cache, start=0, logits_to_keep=1)[:, -1]
    return BatchFork(model, cache, rows, tokens.shape[1]), logits


def fork(model: Model, read: Prefilled, rows: int, way: Way) -> Fork:
    """Return `rows` continuations of a prompt that was read, in the `way` that its model can do."""
    branches: Fork
    if way == "shared":
        branches = SharedFork(model, read)
    elif way == "repeated":
        cache = copy.deepcopy(read.cache)
        select(model, cache, [0] * rows)
        branches = BatchFork(model, cache, range(rows), len(read.ids))
    else:
        branches, _ = read_each(model, [list(read.ids)] * rows, range(rows))
    switch = longrope_switch(model)
    return branches if switch is None or len(read.ids) > switch else SwitchingFork(model, read, branches, switch)


def select(model: Model, cache: DynamicCache, rows: Sequence[int]) -> None:
    """Make the rows of `cache` copies of those that `rows` names, in place; one may be named several times."""
    cache.reorder_cache(torch.tensor(rows, device=model.device))


def is_shareable(cache: DynamicCache) -> bool:
    """Tell whether the cache holds nothing but keys and values of all tokens: no window and no state."""
    return all(type(layer) is DynamicLayer for layer in cache.layers)


def longrope_switch(model: Model) -> int | None:
    """Return the tokens up to which longrope turns by its short factors; None for other positions."""
    config = model.config.get_text_config()
    rope = getattr(config, "rope_parameters", None) or {}
    kinds = [rope, *(part for part in rope.values() if isinstance(part, dict))]
    long = [part for part in kinds if part.get("rope_type") == "longrope"]
    return int(long[0]["original_max_position_embeddings"]) if long else None
