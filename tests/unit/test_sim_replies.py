"""Replies: the policy's manners, honest truncation, prompt cache, vectors."""

import re
from dataclasses import replace

import numpy as np
import orjson
import pytest

from lrq.domain.fences import fenced
from lrq.domain.tokens import count_tokens
from lrq.sim.answering import MANNERS, manner, respond, take_apart
from lrq.sim.embedding import embed
from lrq.sim.options import Options
from lrq.sim.prefix import PrefixCache, cut, tokenise
from lrq.sim.replies import Outcome, answer_chat
from lrq.sim.requests import BadRequest, read_chat, read_embedding

DOCUMENT = (
    "The colour of Anna is red . The size of Anna is large . The colour of Ben is blue . The size of Ben is small ."
)
QUESTION = "What is the colour of Anna and the size of Ben ?"
RIGHT = "The colour of Anna is red . The size of Ben is small ."
STATEMENTS = f"Task: statements\n[Answer]\n~~~~\n{RIGHT}\n~~~~"
PLAIN = Options()


def asked(content: str = f"{DOCUMENT}\n\n{QUESTION}", options: Options = PLAIN, **fields: object) -> Outcome:
    body = orjson.dumps({"model": "m", "messages": [{"role": "user", "content": content}], **fields})
    return answer_chat(read_chat(body, options), options)


def texts(outcome: Outcome) -> list[str]:
    return [choice.text for choice in outcome.choices]


def test_at_temperature_0_the_policy_answers_right() -> None:
    """Every choice is the best answer."""
    assert texts(asked(temperature=0, n=3, seed=7)) == [RIGHT] * 3


def test_sampled_responses_differ_and_come_again_the_same() -> None:
    """Ten choices show several manners; another seed deals them otherwise."""
    first = texts(asked(n=10, seed=1))
    assert len(set(first)) >= 4
    assert first == texts(asked(n=10, seed=1))
    assert len({texts(asked(seed=seed))[0] for seed in range(20)}) >= 4


def test_manners_are_what_they_are_called() -> None:
    """Partial leaves a part out, wrong changes a value, refusal says that it cannot say."""
    parts = take_apart([{"role": "user", "content": f"{DOCUMENT}\n{QUESTION}"}])
    assert parts.question == QUESTION
    answers = {name: respond(parts, name, 0) for name, _ in MANNERS}
    assert answers["right"] == RIGHT
    assert answers["partial"] == "The colour of Anna is red ."
    assert answers["refusal"] == "I cannot tell ."
    assert re.fullmatch(r"The colour of Anna is (large|blue|small) \. The size of Ben is small \.", answers["wrong"])


def test_the_policy_answers_chinese_in_chinese() -> None:
    """The sentences that answer the two parts, or a refusal."""
    outcome = asked(
        "安娜的颜色是红色，本的颜色是蓝色。本的大小是小号。\n安娜的颜色和本的大小分别是什么？", temperature=0
    )
    assert texts(outcome) == ["安娜的颜色是红色。本的大小是小号。"]
    assert texts(asked("下雨了。\n安娜的颜色是什么？", temperature=0)) == ["文档中没有提到。"]


def test_a_fenced_document_ends_with_its_fence() -> None:
    """What follows the fence is the question, of however many lines."""
    parts = take_apart([{"role": "user", "content": f"{fenced('One ~~~~ .' + chr(10) + 'Two .')}\n\nWhat is\nthis?"}])
    assert (parts.document, parts.question) == ("One ~~~~ .\nTwo .", "What is\nthis?")


def test_shares_of_manners_add_up() -> None:
    """0.4 + 0.25 + 0.2 + 0.15 = 1, and a draw finds its share."""
    assert sum(share for _, share in MANNERS) == pytest.approx(1)
    assert [manner(draw) for draw in (0.0, 0.39, 0.41, 0.66, 0.86, 0.999)] == [
        "right", "right", "partial", "wrong", "refusal", "refusal",
    ]  # fmt: skip


def test_a_reply_is_cut_at_the_limit_and_says_so() -> None:
    """The first tokens of the whole reply, no more, with finish_reason "length"."""
    whole, cut_short = asked(STATEMENTS).choices[0], asked(STATEMENTS, max_tokens=12)
    choice = cut_short.choices[0]
    assert whole.text.startswith(choice.text)
    assert count_tokens(choice.text) == cut_short.completion_tokens == 12
    assert (whole.finish, choice.finish) == ("stop", "length")


def test_reasoning_kept_apart_uses_the_limit_up_first() -> None:
    """A reasoning judge out of tokens has thought and said nothing."""
    apart = Options(reasoning=True)
    choice = asked(STATEMENTS, apart).choices[0]
    assert choice.reasoning
    assert choice.text.startswith("<statement>")
    short = asked(STATEMENTS, apart, max_tokens=3)
    assert (short.choices[0].text, short.choices[0].finish, short.reasoning_tokens) == ("", "length", 3)


def test_an_unknown_task_and_too_long_a_prompt_are_refused() -> None:
    """Asking again would not help."""
    with pytest.raises(BadRequest, match="does not know the task"):
        asked("Task: poetry\nWrite.")
    with pytest.raises(BadRequest) as refused:
        asked("word " * 100, Options(max_context=150), max_tokens=60)
    assert refused.value.code == "context_length_exceeded"


@pytest.mark.parametrize(
    "fields",
    [
        {"messages": []},
        {"messages": [{"role": "user", "content": None}]},
        {"n": 0},
        {"n": True},
        {"temperature": "hot"},
        {"max_tokens": -1},
        {"stream": True},
    ],
)
def test_malformed_requests_are_refused(fields: dict[str, object]) -> None:
    """Each names what is wrong with one field."""
    with pytest.raises(BadRequest):
        asked(**fields)


def test_the_prompt_cache_counts_whole_blocks_of_a_known_prefix() -> None:
    """1,500 common tokens are 11 blocks of 128; under 1,024 nothing is cached; another model shares nothing."""
    cache, head = PrefixCache(), " tide" * 1500
    first, second = (tokenise("m", head + tail) for tail in (" red" * 300, " blue" * 300))
    assert first.tokens == 1800
    assert cache.cached(first.chain) == 0
    cache.add(first.chain)
    assert cache.cached(first.chain) == 14 * 128
    assert cache.cached(second.chain) == 11 * 128
    assert cache.cached(tokenise("m", " tide" * 1000 + " red" * 800).chain) == 0
    assert cache.cached(tokenise("other", head).chain) == 0


def test_the_oldest_prefixes_are_forgotten() -> None:
    """A full cache loses the prompt that was not used for longest."""
    cache = PrefixCache(blocks=20)
    old, new = (tokenise("m", word * 1280).chain for word in (" tide", " ebb"))
    for chain in (old, new, tokenise("m", " surf" * 1280).chain):
        cache.add(chain)
    assert (cache.cached(old), cache.cached(new)) == (0, 1280)


@pytest.mark.parametrize("text", ["", "one", " tide" * 128, " tide" * 300 + "潮水"])
def test_prompt_tokens_are_ours(text: str) -> None:
    """The usage agrees with the token rule, and a cut text with its limit."""
    assert tokenise("m", text).tokens == count_tokens(text)
    assert count_tokens(cut(text, 7)) == min(7, count_tokens(text))


def test_near_texts_have_near_vectors() -> None:
    """The sentence on the subject is the nearest, in English and in Chinese; every length is 1."""
    for query, texts_ in (
        ("Which colour is Anna ?", DOCUMENT.split(" . ")),
        ("安娜的颜色", ["安娜的颜色是红色", "本的大小是小号", "下雨了"]),
    ):
        vectors = np.array([embed(text, 256) for text in texts_])
        assert int(np.argmax(vectors @ embed(query, 256))) == 0
        assert np.allclose(np.linalg.norm(vectors, axis=1), 1)
    assert embed("the of", 8).tolist() == [1, 0, 0, 0, 0, 0, 0, 0]


def test_embedding_requests_are_checked() -> None:
    """A text or a list of them, none empty."""
    assert read_embedding(b'{"model":"m","input":"a"}', Options()).texts == ["a"]
    for bad in (
        b'{"model":"m","input":[]}',
        b'{"model":"m","input":[""]}',
        b'{"model":"m","input":[[1]]}',
        b"[",
        b"[]",
    ):
        with pytest.raises(BadRequest):
            read_embedding(bad, Options())


def test_only_named_models_are_served() -> None:
    """A server told its models refuses others with 404."""
    with pytest.raises(BadRequest) as refused:
        asked("Hello.", replace(Options(), models=("other",)))
    assert refused.value.status == 404
