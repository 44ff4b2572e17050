"""The passages of a context that are nearest to a query: by BM25, or by an embedding endpoint.

LongReward embeds chunks and statements; BM25 needs no endpoint and is our one deviation (Robertson & Zaragoza 2009;
k1 = 1.5, b = 0.75). What belongs to the context is made once and kept for all its responses.
"""

import asyncio
import logging
import re
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

import bm25s
import numpy as np
from numpy.typing import NDArray

from lrq.domain.errors import CallFailed, CallRefused, Unscored
from lrq.domain.records import Call, Passage, Purpose
from lrq.domain.tokens import chunk
from lrq.judge.asking import Obtain, in_series

logging.getLogger("bm25s").setLevel(logging.WARNING)  # it would tell of every index it builds

_CJK = "\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff"
_WORD = re.compile(rf"[^\W_{_CJK}]+|[{_CJK}]+")
_FIRST_CJK = "\u2e80"
_KEPT = 16  # indexes in one process: a handful of items are at work at once
_EMBEDDED_AT_ONCE = 64  # texts in one embedding request


def terms(text: str) -> list[str]:
    """Words in lower case; of Chinese, Japanese and Korean text every two neighbouring characters."""
    found: list[str] = []
    for word in _WORD.findall(text.lower()):
        if word[0] < _FIRST_CJK or len(word) == 1:
            found.append(word)
        else:
            found.extend(word[at : at + 2] for at in range(len(word) - 1))
    return found


class Index(Protocol):
    """Says how near each passage is to each query."""

    async def nearness(self, queries: Sequence[str]) -> NDArray[np.float32]:
        """Shape (queries, passages); larger is nearer."""
        ...


class WordIndex:
    """BM25 over the passages of one context."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._count = len(texts)
        self._bm25 = bm25s.BM25()
        corpus = [terms(text) for text in texts]
        self._empty = not any(corpus)
        if not self._empty:
            self._bm25.index(corpus, show_progress=False)

    async def nearness(self, queries: Sequence[str]) -> NDArray[np.float32]:
        return np.stack([self._scores(query) for query in queries])

    def _scores(self, query: str) -> NDArray[np.float32]:
        known = [] if self._empty else [term for term in terms(query) if term in self._bm25.vocab_dict]
        if not known:
            return np.zeros(self._count, dtype=np.float32)
        return np.asarray(self._bm25.get_scores(known), dtype=np.float32)


@dataclass(frozen=True, kw_only=True)
class Embedder:
    """Unit vectors of texts, by an endpoint; shape (texts, dimensions)."""

    caller: Obtain
    endpoint: str
    model: str
    purpose: Purpose
    series: int = 0  # how often the run's unscored were retried
    identity: str = ""  # of the endpoint's server

    async def __call__(self, texts: Sequence[str]) -> NDArray[np.float32]:
        parts = [texts[at : at + _EMBEDDED_AT_ONCE] for at in range(0, len(texts), _EMBEDDED_AT_ONCE)]
        found = await asyncio.gather(*(self._embed(part) for part in parts))
        vectors = np.asarray([vector for part in found for vector in part], dtype=np.float32)
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True).astype(np.float32)
        unit: NDArray[np.float32] = vectors / np.maximum(lengths, np.float32(1e-12))
        return unit

    async def _embed(self, texts: Sequence[str]) -> Sequence[Sequence[float]]:
        named = partial(Call, role="embedding", endpoint=self.endpoint, model=self.model, identity=self.identity)
        call = named(input=tuple(texts))
        try:
            return (await in_series(self.caller, call, self.purpose, self.series)).vectors
        except (CallRefused, CallFailed) as failure:
            raise Unscored(f"no embeddings: {failure}") from None


@dataclass(frozen=True, kw_only=True)
class VectorIndex:
    """Cosine similarity to the passages of one context."""

    vectors: NDArray[np.float32]  # shape (passages, dimensions), of length 1
    embed: Embedder  # of the queries

    async def nearness(self, queries: Sequence[str]) -> NDArray[np.float32]:
        nearness: NDArray[np.float32] = await self.embed(queries) @ self.vectors.T
        return nearness


@dataclass(frozen=True, kw_only=True)
class Passages:
    """Fulfils the port `Nearest` for one context."""

    text: str
    passages: Sequence[tuple[int, int]]  # offsets
    index: Index

    async def __call__(self, queries: Sequence[str], *, count: int) -> Sequence[Sequence[Passage]]:
        if not queries or not self.passages:
            return [[] for _ in queries]
        nearness = await self.index.nearness(queries)
        return [[self._passage(at) for at in _best(row, count)] for row in nearness]

    def _passage(self, at: int) -> Passage:
        start, end = self.passages[at]
        return Passage(index=at, start=start, end=end, text=self.text[start:end])


def _best(row: NDArray[np.float32], count: int) -> list[int]:
    """Places of the largest values, the earlier among equals, in document order."""
    return sorted(int(at) for at in np.argsort(-row, kind="stable")[:count])


class PassageCache:
    """The latest contexts' passages of a process; two that want the same wait for one."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[object, ...], asyncio.Future[Passages]] = OrderedDict()

    async def get(self, name: tuple[object, ...], text: str, size: int, embed: Embedder | None) -> Passages:
        """The passages of a text; queries are embedded for whoever asks now, not for whom the index was built."""
        found = self._kept.get(name)
        if found is None:
            found = asyncio.ensure_future(_build(text, size, embed))
            found.add_done_callback(lambda done: self._forget_failed(name, done))
            self._kept[name] = found
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(name)
        built = await asyncio.shield(found)
        if embed is None or not isinstance(built.index, VectorIndex):
            return built
        return replace(built, index=replace(built.index, embed=embed))

    def _forget_failed(self, name: tuple[object, ...], done: "asyncio.Future[Passages]") -> None:
        failed = done.cancelled() or done.exception() is not None
        if failed and self._kept.get(name) is done:
            del self._kept[name]


async def _build(text: str, size: int, embed: Embedder | None) -> Passages:
    offsets = [(one.start, one.end) for one in await asyncio.to_thread(chunk, text, size)]
    texts = [text[start:end] for start, end in offsets]
    index: Index
    if embed is None or not texts:
        index = await asyncio.to_thread(WordIndex, texts)
    else:
        index = VectorIndex(vectors=await embed(texts), embed=embed)
    return Passages(text=text, passages=offsets, index=index)
