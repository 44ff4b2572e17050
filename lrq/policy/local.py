"""The policy in this process: transformers, on a CPU or one GPU."""

import asyncio
import gc
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ParamSpec, TypeVar

import torch
from jinja2 import TemplateError

from lrq.domain.errors import Stopping, UsageError
from lrq.domain.records import Message
from lrq.policy.cut import Fitted, OverLong, fit
from lrq.policy.decoding import Prefilled, decode, fork, prefill
from lrq.policy.folder import fingerprint
from lrq.policy.loading import end_tokens, load_model, load_tokenizer
from lrq.policy.noise import stream
from lrq.policy.port import CHAT_TEMPLATE, Prompt, Sampled, Samples, Sampling, ShouldStop, never

P = ParamSpec("P")
T = TypeVar("T")


class LocalPolicy:
    """A model folder: safetensors, a chat template, no code of its own, nothing fetched.

    One prompt at a time: further callers wait.
    """

    def __init__(self, folder: Path, *, device: str = "auto", dtype: str = "auto") -> None:
        self.fingerprint = fingerprint(folder)
        self._device = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
        self._tokenizer = load_tokenizer(folder)
        self._model = load_model(folder, dtype).to(self._device)
        self._ends = end_tokens(self._model, self._tokenizer)
        self._busy = threading.Lock()

    async def sample(
        self, prompt: Prompt, sampling: Sampling, *, ks: Sequence[int] | None = None, should_stop: ShouldStop = never
    ) -> Samples:
        """Draw responses in a thread, so that the event loop stays free; see Policy."""
        return await asyncio.to_thread(self._sample, prompt, sampling, ks, should_stop)

    def release(self) -> None:
        """Move the weights off the GPU and free what was cached there; nothing on a CPU."""
        self._move("cpu")

    def restore(self) -> None:
        """Move the weights back."""
        self._move(self._device)

    def _move(self, device: str) -> None:
        if self._device == "cpu":
            return
        with self._busy:
            self._model.to(device)
            _free()

    def _sample(self, prompt: Prompt, sampling: Sampling, ks: Sequence[int] | None, should_stop: ShouldStop) -> Samples:
        ks = range(sampling.n) if ks is None else ks
        with self._busy, torch.inference_mode():
            if should_stop():  # before a long prefill, too
                raise Stopping("sampling was stopped before it began")
            started = time.perf_counter()
            try:
                fitted = self._fit(prompt, sampling)
            except OverLong:
                return Samples(responses=tuple(_none(k, "over_long") for k in ks), messages=tuple(prompt.messages))
            drawn = self._draw(prompt, fitted, sampling, ks, should_stop)
            return Samples(
                responses=drawn,
                messages=fitted.messages,
                cut=fitted.cut,
                prompt_tokens=fitted.tokens,
                completion_tokens=sum(one.tokens or 0 for one in drawn),
                seconds=time.perf_counter() - started,
            )

    def _fit(self, prompt: Prompt, sampling: Sampling) -> Fitted:
        return fit(
            prompt.messages,
            prompt.context,
            count=lambda messages: len(self._ids(messages)),
            limit=self._room(sampling),
            over_long=sampling.over_long,
        )

    def _room(self, sampling: Sampling) -> int | None:
        """Tokens that a prompt may have."""
        window = getattr(self._model.config.get_text_config(), "max_position_embeddings", None)
        if window is None:
            return sampling.max_prompt_tokens
        if window <= sampling.max_new_tokens:
            raise UsageError(
                f"the policy's window of {window} tokens holds no prompt beside {sampling.max_new_tokens} new ones; "
                "lower sample.max_new_tokens"
            )
        room = int(window) - sampling.max_new_tokens
        return room if sampling.max_prompt_tokens is None else min(room, sampling.max_prompt_tokens)

    def _ids(self, messages: Sequence[Message]) -> list[int]:
        try:
            chat = self._tokenizer.apply_chat_template(list(messages), add_generation_prompt=True, **CHAT_TEMPLATE)
        except TemplateError as error:
            raise UsageError(f"the policy's chat template refuses the recipe's messages: {error}") from None
        return list(chat["input_ids"])

    def _draw(
        self, prompt: Prompt, fitted: Fitted, sampling: Sampling, ks: Sequence[int], should_stop: ShouldStop
    ) -> tuple[Sampled, ...]:
        """One prefill, then as many responses at once as memory holds."""
        read = or_out_of_memory(prefill, self._model, self._ids(fitted.messages))
        if read is None:
            return tuple(_none(k, "out_of_memory") for k in ks)
        found: list[Sampled] = []
        width = len(ks)
        while len(found) < len(ks):
            group = ks[len(found) : len(found) + width]
            keys = [stream(sampling.seed, prompt.item, prompt.round, prompt.index, k) for k in group]
            drawn = or_out_of_memory(self._decode, read, keys, sampling, should_stop)
            if drawn is not None:
                found += [self._response(k, tokens) for k, tokens in zip(group, drawn, strict=True)]
            elif width > 1:
                width = (width + 1) // 2
            else:
                found.append(_none(group[0], "out_of_memory"))
        return tuple(found)

    def _decode(
        self, read: Prefilled, keys: Sequence[int], sampling: Sampling, should_stop: ShouldStop
    ) -> list[list[int]]:
        forked = fork(self._model, read.cache, len(keys))
        try:
            return decode(forked, read.logits, keys, sampling, self._ends, should_stop)
        finally:
            forked.close()

    def _response(self, k: int, tokens: list[int]) -> Sampled:
        ended = tokens[-1] in self._ends
        text = self._tokenizer.decode(tokens[:-1] if ended else tokens, skip_special_tokens=True)
        return Sampled(
            k=k,
            text=text if text.strip() else None,
            reason="" if text.strip() else "empty",
            finish="stop" if ended else "length",
            tokens=len(tokens),
        )


def or_out_of_memory(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | None:
    """What `work` returns, or None where it ran out of memory, with what it held freed."""
    try:
        return work(*args, **kwargs)
    except (RuntimeError, MemoryError) as error:
        if not _is_out_of_memory(error):
            raise
    _free()  # outside the handler: until its end the error keeps the tensors of its frames alive
    return None


def _is_out_of_memory(error: Exception) -> bool:
    known = isinstance(error, torch.OutOfMemoryError | MemoryError)
    return known or "can't allocate memory" in str(error)  # torch on a CPU


def _free() -> None:
    gc.collect()
    torch.cuda.empty_cache()


def _none(k: int, reason: str) -> Sampled:
    return Sampled(k=k, text=None, reason=reason)
