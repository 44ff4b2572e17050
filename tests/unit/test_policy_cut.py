"""Cutting over-long contexts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrq.domain.records import Chunk
from lrq.policy.cut import OverLong, fit, middle, without

QUESTION = "\n\nWhat is the end of the middle ?"


def chat(context: str) -> list[dict[str, str]]:
    return [{"role": "system", "content": "Be brief ."}, {"role": "user", "content": context + QUESTION}]


def words(messages) -> int:
    return sum(len(message["content"].split()) for message in messages)


def cut(context: str, limit: int | None, over_long="cut"):
    return fit(chat(context), context, count=words, limit=limit, over_long=over_long)


@pytest.mark.parametrize("limit", [None, 1000])
def test_a_prompt_that_fits_stays_as_it_is(limit):
    """Nothing is cut, and its tokens are told."""
    context = "word " * 100
    fitted = cut(context, limit)
    assert list(fitted.messages) == chat(context)
    assert (fitted.tokens, fitted.cut) == (100 + 3 + 8, None)


def test_the_middle_of_the_context_goes_and_the_question_stays():
    """Beginning and end of the context stay in equal parts; system message and question are whole."""
    context = " ".join(f"w{i:05}" for i in range(10_000))
    fitted = cut(context, 1000)
    content = fitted.messages[1]["content"]
    assert fitted.messages[0] == {"role": "system", "content": "Be brief ."}
    assert content.endswith("w09999" + QUESTION)
    assert content.startswith("w00000 w00001")
    assert content == context[: fitted.cut.start] + context[fitted.cut.end :] + QUESTION
    assert abs(fitted.cut.start - (len(context) - fitted.cut.end)) <= 1


@given(
    st.lists(st.text("abc \n", min_size=1, max_size=12), min_size=1, max_size=200).map(" ".join),
    st.integers(12, 60),
)
def test_what_is_cut_fits_and_wastes_little(context, limit):
    """At most the limit; less than it only by a word, or where the text allows no better."""
    if words(chat(context)) <= limit:
        return
    try:
        fitted = cut(context, limit)
    except OverLong:
        assert limit < 3 + 8 + 2
        return
    assert fitted.tokens == words(fitted.messages) <= limit
    assert fitted.tokens >= limit - 2


def test_uneven_text_is_cut_in_few_measurements():
    """A text whose half has ten times the tokens per character is fitted in a handful of counts."""
    asked = []

    def count(messages):
        asked.append(1)
        return words(messages)

    context = "a " * 50_000 + "incomprehensibilities " * 5_000
    fitted = fit(chat(context), context, count=count, limit=20_000, over_long="cut")
    assert 19_800 <= fitted.tokens <= 20_000
    assert len(asked) <= 12


def test_an_over_long_prompt_is_refused_where_cutting_is_not_wanted():
    """`refuse` raises and says by how much."""
    with pytest.raises(OverLong, match="111 tokens where 50 are allowed"):
        cut("word " * 100, 50, over_long="refuse")


@pytest.mark.parametrize("limit", [5, 11])
def test_a_question_that_fills_the_limit_is_refused(limit):
    """With 11 tokens besides the context nothing of it can stay; the question is never cut."""
    with pytest.raises(OverLong):
        cut("word " * 100, limit)


def test_a_prompt_without_its_context_is_refused():
    """Where the context stands in no message there is nothing that may be cut."""
    with pytest.raises(OverLong):
        fit(chat("word " * 100), "", count=words, limit=50, over_long="cut")
    with pytest.raises(OverLong):
        fit(chat("word " * 100), "another text", count=words, limit=50, over_long="cut")


def test_only_the_first_place_of_the_context_is_cut():
    """A question that quotes the whole context keeps its quotation."""
    messages = [{"role": "user", "content": "abcd\n\nIs abcd a word?"}]
    assert without(messages, "abcd", middle("abcd", 2))[0]["content"] == "ad\n\nIs abcd a word?"


@pytest.mark.parametrize(("kept", "start", "end"), [(0, 0, 5), (1, 1, 5), (2, 1, 4), (3, 2, 4), (5, 3, 3)])
def test_the_odd_character_stays_at_the_beginning(kept, start, end):
    """Of five characters `kept` stay: half at each side, one more before the cut if odd."""
    assert middle("abcde", kept) == Chunk(start=start, end=end)
