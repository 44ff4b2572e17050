"""Passages of a context: by words, by vectors, and kept for all who ask."""

import asyncio
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from lrq.domain.errors import CallFailed, CallRefused, RunHalted, Unscored
from lrq.domain.records import Call, Purpose, Reply
from lrq.judge.passages import _KEPT, BatchSizes, Embedder, PassageCache, Passages, WordIndex, terms

TEXT = "\n".join(
    f"The ship {name} left {port} with {cargo}."
    for name, port, cargo in [
        ("Aurora", "Bergen", "salt"),
        ("Meridian", "Lisbon", "cork"),
        ("Halcyon", "Riga", "timber"),
        ("Petrel", "Cadiz", "wine"),
    ]
)
LINES = TEXT.split("\n")


def offsets() -> list[tuple[int, int]]:
    found, start = [], 0
    for line in LINES:
        found.append((start, start + len(line)))
        start += len(line) + 1
    return found


def by_words() -> Passages:
    return Passages(text=TEXT, passages=offsets(), index=WordIndex(LINES))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("The ship's 3 masts, OLD", ["the", "ship", "s", "3", "masts", "old"]),
        ("货轮离港", ["货轮", "轮离", "离港"]),
        ("船", ["船"]),
        ("载货500吨 from Köln", ["载货", "500", "吨", "from", "köln"]),
        ("", []),
        ("…!?", []),
    ],
)
def test_terms_are_words_and_pairs_of_characters(text: str, found: list[str]) -> None:
    """Latin words in lower case, numbers, and of Chinese every two neighbouring characters."""
    assert terms(text) == found


async def test_the_nearest_passages_come_in_document_order() -> None:
    """Two are asked for: the two that share its words, the earlier first, as exact stretches of the text."""
    ((first, second),) = await by_words()(["Petrel carried wine; Meridian carried cork"], count=2)
    assert (first.text, second.text) == (LINES[1], LINES[3])
    assert (first.index, second.index) == (1, 3)
    assert TEXT[first.start : first.end] == LINES[1]


async def test_a_query_without_a_known_word_gets_the_first_passages() -> None:
    """Evidence there must be; it is the same for everyone."""
    ((first, second),) = await by_words()(["xyzzy"], count=2)
    assert (first.index, second.index) == (0, 1)


async def test_chinese_is_found_by_pairs_of_characters() -> None:
    """No word boundaries are needed."""
    texts = ["货轮曙光号从卑尔根出发", "货轮子午号从里斯本出发", "它载着木材"]
    passages = Passages(text="".join(texts), passages=[(0, 11), (11, 22), (22, 27)], index=WordIndex(texts))
    ((found,),) = await passages(["子午号的港口是里斯本"], count=1)
    assert found.text == texts[1]


@pytest.mark.parametrize(("texts", "queries"), [([], ["q"]), (["…", "!"], ["q"]), (["a"], [])])
async def test_nothing_to_find_is_no_error(texts: list[str], queries: list[str]) -> None:
    """Empty contexts, contexts without words, no queries."""
    passages = Passages(text="".join(texts), passages=[(n, n + 1) for n in range(len(texts))], index=WordIndex(texts))
    found = await passages(queries, count=5)
    assert [len(each) for each in found] == [min(5, len(texts))] * len(queries)


@dataclass
class Server:
    """Embeds a text as its counts of four letters; keeps who asked for what."""

    asked: list[tuple[int, tuple[str, ...]]] = field(default_factory=list)
    fails: Exception | None = None

    async def call(self, call: Call, purpose: Purpose) -> Reply:
        await asyncio.sleep(0)
        self.asked.append((purpose.run, tuple(call.input)))
        if self.fails:
            raise self.fails
        return Reply(key="k", vectors=[[float(text.count(letter)) for letter in "abcd"] for text in call.input])


def embedder(server: Server, run: int = 1) -> Embedder:
    return Embedder(caller=server, endpoint="e", model="m", purpose=Purpose(run=run), sizes=BatchSizes())


async def get(
    cache: PassageCache, embed: Embedder | None, text: str = "aa aa bb bb cc cc", name: Any = "n"
) -> Passages:
    return await cache.get((name, 1), text, 1, embed)


async def test_vectors_are_compared_by_their_angle() -> None:
    """Length does not count: the passage of b's is nearest to many b's."""
    ((found,),) = await (await get(PassageCache(), embedder(Server())))(["bbbbbbbb"], count=1)
    assert "b" in found.text
    assert "a" not in found.text


async def test_a_text_without_a_direction_is_no_division_by_zero() -> None:
    """A vector of zeros is near to nothing."""
    ((found,),) = await (await get(PassageCache(), embedder(Server())))(["zzz"], count=1)
    assert found.index == 0


async def test_texts_are_embedded_sixty_four_at_once() -> None:
    """A hundred texts take two requests, and come back in their order."""
    server = Server()
    vectors = await embedder(server)([f"{'a' * (n % 3)}b" for n in range(100)])
    assert [len(texts) for _, texts in server.asked] == [64, 36]
    assert vectors.shape == (100, 4)
    assert [round(float(row[0]), 4) for row in vectors[:3]] == [0.0, 0.7071, 0.8944]


@dataclass
class Strict(Server):
    """Takes so many texts at once, and none that holds "x"; what holds "n" has no number in its first vectors.

    `ledger` keeps what was refused and paid for: neither is asked again.
    """

    most: int = 10
    ledger: dict[tuple[Any, ...], Any] = field(default_factory=dict)

    async def call(self, call: Call, purpose: Purpose) -> Reply:
        key = (tuple(call.input), call.attempt)
        if key not in self.ledger:
            if len(call.input) > self.most or any("x" in text for text in call.input):
                self.asked.append((purpose.run, tuple(call.input)))
                self.ledger[key] = CallRefused("HTTP 422: batch size")
            else:
                reply = await super().call(call, purpose)
                broken = [float("nan")] * 4
                vectors = [
                    broken if "n" in text and call.attempt < text.count("n") else vector
                    for text, vector in zip(call.input, reply.vectors, strict=True)
                ]
                self.ledger[key] = replace(reply, vectors=vectors)
        if isinstance(self.ledger[key], Exception):
            raise self.ledger[key]
        return self.ledger[key]

    def sizes(self) -> list[int]:
        return [len(texts) for _, texts in self.asked]


async def test_the_number_of_texts_that_a_server_takes_is_learned() -> None:
    """A refused request is halved, at powers of two; the next document is asked for in sizes that are taken."""
    server = Strict()
    embed = embedder(server)
    assert (await embed([f"{'a' * n}b" for n in range(61)])).shape == (61, 4)
    assert server.sizes() == [61, 32, 16, 8, 8, 8, 8, 8, 8, 13, 8, 5]
    server.asked.clear()
    await embed([f"{'a' * n}c" for n in range(61)])
    assert server.sizes() == [8] * 7 + [5]


@pytest.mark.parametrize("learned", [False, True])
async def test_after_a_restart_no_text_is_paid_for_again(learned: bool) -> None:
    """Whatever the process had learned when it began, the requests are the same ones."""
    server = Strict()
    embed = embedder(server)
    if learned:
        await embed(["b"] * 64)
    texts = [f"{'a' * n}b" for n in range(61)]
    await embed(texts)
    paid = {key for key, reply in server.ledger.items() if isinstance(reply, Reply)}
    await embedder(server)(texts)
    assert {key for key, reply in server.ledger.items() if isinstance(reply, Reply)} == paid


async def test_a_text_that_is_never_taken_is_left_out_alone() -> None:
    """The others have their vectors, and nothing is learned of how many are taken at once."""
    server = Strict(most=64)
    embed = embedder(server)
    vectors = await embed(["b", "b", "x", "b", "b"])
    assert [bool(row[1] == 1) for row in vectors] == [True, True, False, True, True]
    server.asked.clear()
    await embed(["a"] * 64)
    assert server.sizes() == [64]


async def test_a_server_that_takes_nothing_is_given_up_soon() -> None:
    """After a few single texts; the reason is the server's."""
    server = Strict(most=0)
    with pytest.raises(Unscored, match="no embeddings: HTTP 422"):
        await embedder(server)([f"{'a' * n}b" for n in range(64)])
    assert len(server.asked) < 16


async def test_vectors_without_numbers_are_asked_for_again_and_then_left_out() -> None:
    """One that is broken once has its vector from the second request; one that stays broken has none."""
    server = Strict(most=64)
    vectors = await embedder(server)(["b", "nb", "nnb"])
    assert [bool(row[1] == 1) for row in vectors] == [True, True, False]
    assert server.asked == [(1, ("b", "nb", "nnb")), (1, ("nb", "nnb"))]


async def test_passages_without_a_vector_are_not_found_and_are_named() -> None:
    """An item is judged from the passages there are."""
    passages = await PassageCache().get(("n",), "aa xx bb", 1, embedder(Strict(most=64)))
    ((*found,),) = await passages(["b"], count=9)
    assert [one.text.strip() for one in found] == ["aa", "bb"]
    assert [passages.text[slice(*passages.passages[at])].strip() for at in passages.left_out] == ["xx"]


async def test_a_query_without_a_vector_is_compared_by_its_words() -> None:
    """It says so; another query beside it, or none, changes nothing."""
    passages = await PassageCache().get(("n",), "aa xylo bb", 1, embedder(Strict(most=64)))
    for queries in (["xylo"], ["xylo", "b"]):
        (found,), *_ = await passages(queries, count=1)
        assert (found.text.strip(), found.by_words) == ("xylo", True)


async def test_a_context_is_indexed_once_for_all_who_ask() -> None:
    """Also when they ask at the same moment."""
    server, cache = Server(), PassageCache()
    found = await asyncio.gather(*(get(cache, embedder(server)) for _ in range(5)))
    assert len(server.asked) == 1
    assert len({id(one.passages) for one in found}) == 1


async def test_queries_are_asked_for_the_run_that_has_them() -> None:
    """The context was indexed for another run, which may be done or paused by now."""
    server, cache = Server(), PassageCache()
    await get(cache, embedder(server, run=1))
    second = await get(cache, embedder(server, run=2))
    server.asked.clear()
    await second(["b"], count=1)
    assert server.asked == [(2, ("b",))]


@pytest.mark.parametrize("error", [CallFailed("down"), RunHalted("paused")])
async def test_an_index_that_could_not_be_made_is_made_again(error: Exception) -> None:
    """A failure is told to all who waited, and not kept."""
    server, cache = Server(fails=error), PassageCache()
    for failed in await asyncio.gather(*(get(cache, embedder(server)) for _ in range(2)), return_exceptions=True):
        assert isinstance(failed, Unscored if isinstance(error, CallFailed) else RunHalted)
    server.fails = None
    assert (await get(cache, embedder(server))).passages


async def test_a_failure_nobody_waits_for_is_not_kept() -> None:
    """Its only asker was cancelled meanwhile."""
    server, cache = Server(fails=CallFailed("down")), PassageCache()
    only = asyncio.create_task(get(cache, embedder(server)))
    await asyncio.sleep(0)
    only.cancel()
    await asyncio.gather(only, return_exceptions=True)
    async with asyncio.timeout(5):
        while not server.asked:  # noqa: ASYNC110 - the build tells nobody
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.01)
    server.fails = None
    assert (await get(cache, embedder(server))).passages


async def test_only_the_latest_contexts_are_kept() -> None:
    """The first is forgotten when more than so many others were asked for; one that is asked for again stays."""
    server, cache = Server(), PassageCache()
    for name in range(_KEPT):
        await get(cache, embedder(server), name=name)
    await get(cache, embedder(server), name=0)
    await get(cache, embedder(server), name="one more")
    asked = len(server.asked)
    await get(cache, embedder(server), name=0)
    assert len(server.asked) == asked
    await get(cache, embedder(server), name=1)
    assert len(server.asked) == asked + 1


async def test_words_need_no_endpoint() -> None:
    """Without an embedder nothing is asked of anyone."""
    ((found,),) = await (await get(PassageCache(), None, text="red apple. green pear."))(["pear"], count=1)
    assert "pear" in found.text
    assert replace(found, text="").index >= 0
