"""Many responses from one prefill: the cache of the prompt, forked, and the loop that decodes the forks together."""

import copy
import inspect
from collections.abc import Sequence, Set
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from lrq.domain.errors import Stopping
from lrq.policy.noise import choose
from lrq.policy.port import Sampling, ShouldStop

Tensor = Any  # torch.Tensor
Model = Any  # transformers.PreTrainedModel


@dataclass(frozen=True, kw_only=True)
class Prefilled:
    """A prompt that was read."""

    logits: Tensor  # of the first new token, (1, vocabulary)
    cache: DynamicCache


def prefill(model: Model, ids: Sequence[int]) -> Prefilled:
    """Read the prompt, once for all its responses."""
    tokens = torch.tensor([ids], device=model.device)
    cache = DynamicCache(config=model.config)
    out = model(input_ids=tokens, use_cache=True, logits_to_keep=1, **with_cache(model, cache))
    return Prefilled(logits=out.logits[:, -1], cache=cache)


def with_cache(model: Model, cache: DynamicCache) -> dict[str, DynamicCache]:
    """Return the argument by which the model's forward takes its cache, which it fills in place.

    transformers renamed `past_key_values` to `cache` in 5.24; some models had names of their own before.
    """
    parameters = inspect.signature(model.forward).parameters
    names = ("cache", "past_key_values", "cache_params")
    return {next((name for name in names if name in parameters), names[1]): cache}


class Fork(Protocol):
    """Several continuations of one cached prompt."""

    def step(self, rows: Sequence[int], tokens: Tensor) -> Tensor:
        """Append a token (rows,) to each of the rows, which only ever become fewer; logits (rows, vocabulary)."""
        ...

    def close(self) -> None:
        """Leave the prompt's cache as it was."""
        ...


class SharedFork:
    """The rows as queries of one sequence, all at the same position, each masked from the others' tokens.

    The prompt's keys and values are held once and read once per step, however many rows there are.
    """

    def __init__(self, model: Model, cache: DynamicCache) -> None:
        self._model, self._cache = model, cache
        self._prompt = cache.get_seq_length()
        self._owner = torch.empty(0, dtype=torch.long, device=model.device)  # the row of each token after the prompt
        self._steps = 0

    def step(self, rows: Sequence[int], tokens: Tensor) -> Tensor:
        mine = torch.tensor(rows, device=tokens.device)
        self._owner = torch.cat([self._owner, mine])
        out = self._model(
            input_ids=tokens[None],
            position_ids=torch.full_like(tokens, self._prompt + self._steps)[None],
            attention_mask=self._mask(mine),
            use_cache=True,
            **with_cache(self._model, self._cache),
        )
        self._steps += 1
        return out.logits[0]

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


class RepeatedFork:
    """The rows as a batch, the cache repeated for each: for every kind of cache, at N times the memory."""

    def __init__(self, model: Model, cache: DynamicCache, rows: int) -> None:
        self._model, self._rows = model, list(range(rows))
        self._cache = copy.deepcopy(cache)
        self._keep([0] * rows)

    def step(self, rows: Sequence[int], tokens: Tensor) -> Tensor:
        if len(rows) < len(self._rows):
            self._keep([self._rows.index(row) for row in rows])
            self._rows = list(rows)
        out = self._model(input_ids=tokens[:, None], use_cache=True, **with_cache(self._model, self._cache))
        return out.logits[:, -1]

    def close(self) -> None:
        pass

    def _keep(self, rows: Sequence[int]) -> None:
        self._cache.reorder_cache(torch.tensor(rows, device=self._model.device))


def fork(model: Model, cache: DynamicCache, rows: int) -> Fork:
    return SharedFork(model, cache) if shareable(model, cache) else RepeatedFork(model, cache, rows)


def shareable(model: Model, cache: DynamicCache) -> bool:
    """Whether a token's place among the keys means nothing to the model beside position and mask.

    So it is with rotary positions and full attention; not with windows, states, or biases by distance.
    """
    config = model.config.get_text_config()
    rotary = bool(getattr(config, "rope_parameters", None)) and not getattr(config, "alibi", False)
    return rotary and all(type(layer) is DynamicLayer for layer in cache.layers)


def decode(
    fork: Fork, logits: Tensor, keys: Sequence[int], sampling: Sampling, ends: Set[int], should_stop: ShouldStop
) -> list[list[int]]:
    """Draw one response per key after the prompt whose next logits are (1, vocabulary); token ids, the end included.

    A row that has ended is dropped. Raises Stopping between two tokens once `should_stop` says so.
    """
    found: list[list[int]] = [[] for _ in keys]
    rows, logits = list(range(len(keys))), logits.expand(len(keys), -1)
    for position in range(sampling.max_new_tokens):
        if should_stop():
            raise Stopping("sampling was stopped; what was drawn so far will be drawn again, the same")
        alive = [keys[row] for row in rows]
        tokens = choose(logits, alive, position, temperature=sampling.temperature, top_p=sampling.top_p)
        for row, token in zip(rows, tokens.tolist(), strict=True):
            found[row].append(token)
        going = [i for i, row in enumerate(rows) if found[row][-1] not in ends]
        if not going or position + 1 == sampling.max_new_tokens:
            break
        rows = [rows[i] for i in going]
        logits = fork.step(rows, tokens[going])
    return found
