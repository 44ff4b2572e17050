"""The policy in this process: transformers, on a CPU or one GPU."""

import asyncio
import gc
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import torch

from lrq.domain.errors import Stopping, UsageError
from lrq.domain.records import UNFINISHED_THOUGHT, UNRENDERABLE, Message
from lrq.policy.cut import Fitted, OverLong, fit
from lrq.policy.decoding import Drawn, decode
from lrq.policy.fingerprint import tokenizer_fingerprint
from lrq.policy.folder import fingerprint
from lrq.policy.forks import Prefilled, fork, prefill
from lrq.policy.isolated import IsolatedRendering, Unrenderable
from lrq.policy.loading import end_tokens, load_model
from lrq.policy.noise import stream
from lrq.policy.port import Prompt, Sampled, Samples, Sampling, ShouldStop, never
from lrq.policy.probing import probe
from lrq.policy.rendering import Rendering, ids_hash
from lrq.policy.tokenizer import load_tokenizer

_log = logging.getLogger(__name__)
P = ParamSpec("P")
T = TypeVar("T")


class LocalPolicy:
    """A model folder: safetensors, a chat template, no code of its own, nothing fetched.

    One prompt at a time: further callers wait.
    """

    def __init__(
        self, folder: Path, *, device: str = "auto", dtype: str = "auto", template: Mapping[str, Any] | None = None
    ) -> None:
        self.fingerprint = fingerprint(folder)
        self._device = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
        self._tokenizer = load_tokenizer(folder)
        self._rendering: Rendering | IsolatedRendering = IsolatedRendering(folder=folder, template=dict(template or {}))
        try:
            template_ends = self._rendering.end_ids()
        except Unrenderable as error:
            raise UsageError(f"{folder} cannot be sampled: {error}") from None
        self._model = load_model(folder, dtype).to(self._device)
        self._ends = end_tokens(self._model, self._tokenizer) | template_ends
        self.probed = probe(self._model)
        if self.probed.reason:
            _log.info("%s is sampled by a %s cache: %s", folder, self.probed.way, self.probed.reason)
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
            self._rendering = replace(self._rendering, at=time.time() if prompt.at is None else prompt.at)
            try:
                fitted = self._fit(prompt, sampling)
                ids = self._ids(fitted.messages)
                rendered = self._rendered(fitted.messages, ids)
            except OverLong:
                return Samples(responses=tuple(_none(k, "over_long") for k in ks), messages=tuple(prompt.messages))
            except Unrenderable as error:
                _log.warning("a prompt of item %s cannot be rendered: %s", prompt.item, error)
                return Samples(responses=tuple(_none(k, UNRENDERABLE) for k in ks), messages=tuple(prompt.messages))
            responses = self._draw(prompt, ids, sampling, ks, should_stop)
            return Samples(
                responses=responses,
                rendering=rendered,
                messages=fitted.messages,
                cut=fitted.cut,
                prompt_tokens=fitted.tokens,
                completion_tokens=sum(response.tokens or 0 for response in responses),
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
        """Return the tokens that a prompt may have; None: any. Raises UsageError where a reply leaves no room."""
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
        return self._rendering.prompt_ids(messages)

    def _rendered(self, messages: Sequence[Message], ids: Sequence[int]) -> dict[str, Any]:
        """Return what is needed to render the prompt again, and to know whether it is the same."""
        hashes = {"ids_hash": ids_hash(ids), "tokenizer": self._tokenizer_fingerprint}
        return hashes | self._rendering.describe(messages)

    @cached_property
    def _tokenizer_fingerprint(self) -> str:
        return tokenizer_fingerprint(self._tokenizer)

    def _draw(
        self, prompt: Prompt, ids: Sequence[int], sampling: Sampling, ks: Sequence[int], should_stop: ShouldStop
    ) -> tuple[Sampled, ...]:
        """Read the prompt once, then draw as many responses at once as memory holds."""
        read = or_out_of_memory(prefill, self._model, ids)
        if read is None:
            return tuple(_none(k, "out_of_memory") for k in ks)
        responses: list[Sampled] = []
        width = len(ks)
        while len(responses) < len(ks):
            group = ks[len(responses) : len(responses) + width]
            keys = [stream(sampling.seed, prompt.item, prompt.round, prompt.index, k) for k in group]
            group_drawn = or_out_of_memory(self._decode, read, keys, sampling, should_stop)
            if group_drawn is not None:
                responses += [self._read(k, response) for k, response in zip(group, group_drawn, strict=True)]
            elif width > 1:
                width = (width + 1) // 2
            else:
                responses.append(_none(group[0], "out_of_memory"))
        return tuple(responses)

    def _decode(self, read: Prefilled, keys: Sequence[int], sampling: Sampling, should_stop: ShouldStop) -> list[Drawn]:
        forked = fork(self._model, read, len(keys), self.probed.way)
        try:
            return decode(forked, read.logits, keys, sampling, self._ends, should_stop)
        finally:
            forked.close()

    def _read(self, k: int, drawn: Drawn) -> Sampled:
        try:
            return self._response(k, drawn)
        except Unrenderable as error:
            _log.warning("response %d cannot be read: %s", k, error)
            return _none(k, UNRENDERABLE)

    def _response(self, k: int, drawn: Drawn) -> Sampled:
        if drawn.failure:
            return _none(k, drawn.failure)
        ended = drawn.ids[-1] in self._ends
        body = drawn.ids[:-1] if ended else drawn.ids
        rendering = self._rendering
        parts = rendering.split(body)
        reason = "" if parts.answer.strip() else "empty" if parts.is_closed else UNFINISHED_THOUGHT
        written = rendering.written(body)
        return Sampled(
            k=k,
            text=None if reason else parts.answer,
            reason=reason,
            finish="stop" if ended else "length",
            tokens=len(drawn.ids),
            ids=tuple(drawn.ids),
            written=None if written == parts.answer else written,
            form=rendering.form(drawn.ids) if ended else "",
        )


def or_out_of_memory(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | None:
    """Return what `work` returns, or None where it ran out of memory, with its tensors freed."""
    try:
        return work(*args, **kwargs)
    except (RuntimeError, MemoryError) as error:
        is_torch_error = isinstance(error, torch.OutOfMemoryError | MemoryError)
        if not is_torch_error and "can't allocate memory" not in str(error):  # torch on a CPU
            raise
    _free()  # outside the handler: until its end the error keeps the tensors of its frames alive
    return None


def _free() -> None:
    gc.collect()
    torch.cuda.empty_cache()


def _none(k: int, reason: str) -> Sampled:
    return Sampled(k=k, text=None, reason=reason)
