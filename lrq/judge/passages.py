"""The passages of a context that are nearest to a query: by BM25, or by an embedding endpoint.

LongReward embeds chunks and statements; BM25 needs no endpoint and is our one deviation (Robertson & Zaragoza 2009;
k1 = 1.5, b = 0.75). What belongs to the context is made once and kept for all its responses.
"""

import asyncio
import logging
import math
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
from lrq.recipes.fanout import gather_all

Vector = Sequence[float]

logging.getLogger("bm25s").setLevel(logging.WARNING)  # it would tell of every index it builds

_CJK = "\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff"
_WORD = re.compile(rf"[^\W_{_CJK}]+|[{_CJK}]+")
_FIRST_CJK = "\u2e80"
_KEPT = 16  # indexes in one process: a handful of items are at work at once
_EMBEDDED_AT_ONCE = 64  # texts in one embedding request, at most; a power of two
_EMBEDDING_ATTEMPTS = 2  # for a vector that holds no number
_HOPELESS = 4  # single texts that are refused one after another, with none taken: the endpoint takes nothing
_SPEAKS_OF_SIZE = re.compile(r"too (?:large|long|many)|maximum|exceed|at most|batch|limit|length", re.IGNORECASE)


def terms(text: str) -> list[str]:
    """Return words in lower case; of Chinese, Japanese and Korean text every two neighbouring characters."""
    words: list[str] = []
    for word in _WORD.findall(text.lower()):
        if word[0] < _FIRST_CJK or len(word) == 1:
            words.append(word)
        else:
            words.extend(word[start : start + 2] for start in range(len(word) - 1))
    return words


class Index(Protocol):
    """Says how near each passage is to each query."""

    async def nearness(self, queries: Sequence[str]) -> NDArray[np.float32]:
        """Return how near each passage is, larger is nearer, as an array of shape (`queries`, passages)."""
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
        words = [] if self._empty else [term for term in terms(query) if term in self._bm25.vocab_dict]
        if not words:
            return np.zeros(self._count, dtype=np.float32)
        return np.asarray(self._bm25.get_scores(words), dtype=np.float32)


class BatchSizes:
    """How many texts embedding servers take at once: learned from what they refuse, kept for the process."""

    def __init__(self) -> None:
        self._refused: dict[tuple[str, str], int] = {}  # endpoint and model → fewest texts refused for their number
        self._taken: set[tuple[str, str]] = set()

    def is_known(self, server: tuple[str, str]) -> bool:
        return server in self._taken

    def is_too_many(self, server: tuple[str, str], count: int) -> bool:
        return count >= self._refused.get(server, count + 1)

    def note_taken(self, server: tuple[str, str]) -> None:
        self._taken.add(server)

    def note_refused(self, server: tuple[str, str], count: int) -> None:
        self._refused[server] = min(count, self._refused.get(server, count))


BATCH_SIZES = BatchSizes()  # of this process


@dataclass(frozen=True, kw_only=True)
class Embedder:
    """Unit vectors of texts, by an endpoint.

    What a server refuses is halved, always at the same places, so that after a restart the same requests are made
    and found again in the ledger.
    """

    caller: Obtain
    endpoint: str
    model: str
    purpose: Purpose
    series: int = 0  # how often the run's unscored were retried
    sizes: BatchSizes = BATCH_SIZES
    identity: str = ""  # of the endpoint's server

    @property
    def server(self) -> tuple[str, str]:
        return self.endpoint, self.model

    async def __call__(self, texts: Sequence[str], dimensions: int = 0) -> NDArray[np.float32]:
        """Return vectors of shape (texts, dimensions); a row of NaN for a text that the server cannot take.

        Raises Unscored where no text has a vector, unless it is known how long one would be.
        """
        parts = [texts[start : start + _EMBEDDED_AT_ONCE] for start in range(0, len(texts), _EMBEDDED_AT_ONCE)]
        tree = _Tree(embed=self)
        vectors: list[Vector | None] = []
        if parts and not self.sizes.is_known(self.server):  # one part teaches what all may hold
            vectors += await tree.embed_part(parts.pop(0))
        vectors += [vector for part in await gather_all(map(tree.embed_part, parts)) for vector in part]
        length = next((len(vector) for vector in vectors if vector), dimensions)
        if not length:
            raise Unscored(f"no embeddings: {tree.reason}")
        rows = [vector if vector and len(vector) == length else [math.nan] * length for vector in vectors]
        array = np.asarray(rows, dtype=np.float32)
        lengths = np.linalg.norm(array, axis=1, keepdims=True).astype(np.float32)
        unit: NDArray[np.float32] = array / np.maximum(lengths, np.float32(1e-12))
        return unit

    async def request(self, texts: Sequence[str], attempt: int) -> Sequence[Vector]:
        """Ask for the vectors of `texts` in one request. Raises CallRefused or CallFailed."""
        make_call = partial(Call, role="embedding", endpoint=self.endpoint, model=self.model, identity=self.identity)
        call = make_call(input=tuple(texts), attempt=attempt)
        return (await in_series(self.caller, call, self.purpose, self.series)).vectors


@dataclass
class _Tree:
    """The requests for one set of texts, each refused one in two halves."""

    embed: Embedder
    reason: str = "the vectors hold no numbers"
    any_taken: bool = False
    refused: int = 0  # texts that are refused alone

    async def embed_part(self, texts: Sequence[str], attempt: int = 0) -> list[Vector | None]:
        vectors = await self._embed(texts, attempt)
        broken = [index for index, vector in enumerate(vectors) if vector is not None and not _is_finite(vector)]
        if broken:
            self.reason = "the vectors hold no numbers"
            again: list[Vector | None] = [None] * len(broken)
            if attempt + 1 < _EMBEDDING_ATTEMPTS:
                again = await self.embed_part([texts[index] for index in broken], attempt + 1)
            for index, vector in zip(broken, again, strict=True):
                vectors[index] = vector
        return vectors

    async def _embed(self, texts: Sequence[str], attempt: int) -> list[Vector | None]:
        sizes, server = self.embed.sizes, self.embed.server
        is_too_many = sizes.is_too_many(server, len(texts))
        if not is_too_many or len(texts) == 1:
            try:
                vectors = await self.embed.request(texts, attempt)
            except (CallRefused, CallFailed) as failure:
                self.reason = str(failure)
                if isinstance(failure, CallFailed) and not _SPEAKS_OF_SIZE.search(self.reason):
                    raise Unscored(f"no embeddings: {failure}") from None
            else:
                self.any_taken = True
                sizes.note_taken(server)
                return list(vectors)
            if len(texts) == 1:
                self.refused += 1
                if self.refused >= _HOPELESS and not self.any_taken:
                    raise Unscored(f"no embeddings: {self.reason}") from None
                return [None]
        half = 1 << ((len(texts) - 1).bit_length() - 1)  # a power of two: the same halves, whatever was learned
        refused = self.refused
        halves = [await self._embed(texts[:half], attempt), await self._embed(texts[half:], attempt)]
        if not is_too_many and refused == self.refused:  # each half was taken whole: the number was too large
            sizes.note_refused(server, len(texts))
        return [*halves[0], *halves[1]]


def _is_finite(vector: Vector) -> bool:
    return bool(np.isfinite(np.asarray(vector, dtype=np.float32)).all())


@dataclass(frozen=True, kw_only=True)
class VectorIndex:
    """Cosine similarity to the passages of one context; NaN to those that have no vector."""

    vectors: NDArray[np.float32]  # shape (passages, dimensions), of length 1
    embed: Embedder  # of the queries

    async def nearness(self, queries: Sequence[str]) -> NDArray[np.float32]:
        vectors = await self.embed(queries, self.vectors.shape[1])
        if vectors.shape[1] != self.vectors.shape[1]:
            raise Unscored(f"embeddings of {vectors.shape[1]} and of {self.vectors.shape[1]} numbers do not compare")
        nearness: NDArray[np.float32] = vectors @ self.vectors.T
        return nearness


@dataclass(frozen=True, kw_only=True)
class Passages:
    """Fulfils the port `Nearest` for one context."""

    text: str
    passages: Sequence[tuple[int, int]]  # offsets
    index: Index
    left_out: Sequence[int] = ()  # passages that have no vector: they are not looked at

    async def __call__(self, queries: Sequence[str], *, count: int) -> Sequence[Sequence[Passage]]:
        if not queries or not self.passages:
            return [[] for _ in queries]
        nearness = await self.index.nearness(queries)
        without = {index for index, row in enumerate(nearness) if np.isnan(row).all()}
        if without:  # a query that the server cannot take is compared by its words
            words = await asyncio.to_thread(WordIndex, [self.text[start:end] for start, end in self.passages])
            nearness[sorted(without)] = await words.nearness([queries[index] for index in sorted(without)])
        return [
            [self._passage(index, by_words=query in without) for index in _best(row, count)]
            for query, row in enumerate(nearness)
        ]

    def _passage(self, index: int, by_words: bool) -> Passage:
        start, end = self.passages[index]
        return Passage(index=index, start=start, end=end, text=self.text[start:end], by_words=by_words)


def _best(row: NDArray[np.float32], count: int) -> list[int]:
    """Places of the largest values, the earlier among equals, in document order; NaN is none."""
    order = np.argsort(-row, kind="stable")[:count]  # NaN comes last
    return sorted(int(index) for index in order if not np.isnan(row[index]))


class PassageCache:
    """The latest contexts' passages of a process; two that want the same wait for one."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[object, ...], asyncio.Future[Passages]] = OrderedDict()

    async def get(self, name: tuple[object, ...], text: str, size: int, embed: Embedder | None) -> Passages:
        """Return the passages of `text`, of `size` tokens each, made once for the key `name`.

        Queries are embedded by `embed`, that of whoever asks now; None: by BM25.
        """
        future = self._kept.get(name)
        if future is None:
            future = asyncio.ensure_future(_build(text, size, embed))
            future.add_done_callback(lambda done: self._forget_failed(name, done))
            self._kept[name] = future
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(name)
        built = await asyncio.shield(future)
        if embed is None or not isinstance(built.index, VectorIndex):
            return built
        return replace(built, index=replace(built.index, embed=embed))

    def _forget_failed(self, name: tuple[object, ...], done: "asyncio.Future[Passages]") -> None:
        failed = done.cancelled() or done.exception() is not None
        if failed and self._kept.get(name) is done:
            del self._kept[name]


async def _build(text: str, size: int, embed: Embedder | None) -> Passages:
    offsets = [(part.start, part.end) for part in await asyncio.to_thread(chunk, text, size)]
    texts = [text[start:end] for start, end in offsets]
    index: Index
    left_out: list[int] = []
    if embed is None or not texts:
        index = await asyncio.to_thread(WordIndex, texts)
    else:
        index = VectorIndex(vectors=await embed(texts), embed=embed)
        left_out = [number for number, vector in enumerate(index.vectors) if np.isnan(vector).any()]
    return Passages(text=text, passages=offsets, index=index, left_out=left_out)
