"""Our token unit, and chunks made of it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrq.domain.records import Chunk
from lrq.domain.tokens import TOKEN_RULE, chunk, count_tokens


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("", 0),
        ("The cat sat.", 4),  # The| cat| sat|.
        ("antidisestablishments", 3),  # ten letters, ten letters, one
        ("In 1740, bread", 5),  # In| 174|0|,| bread
        ("猫坐在垫子上。", 7),  # one each, the full stop too
        ("用GPT写", 3),
        ("a\n\n\nb", 3),
        ("wait ... --- ____", 5),  # wait| ...| ---| ___|_
        ("привет", 2),  # three letters of another script each
    ],
)
def test_tokens_follow_a_fixed_rule(text: str, tokens: int) -> None:
    """The unit is the same everywhere; a change to it is a new rule, since stored chunks depend on it."""
    assert count_tokens(text) == tokens
    assert TOKEN_RULE == "lrq-1"


@given(st.text(max_size=400), st.integers(1, 40))
def test_chunks_are_the_whole_text_once(text: str, size: int) -> None:
    """Chunks follow each other without gap or overlap, and all but the last hold exactly `size` tokens."""
    chunks = chunk(text, size)
    assert "".join(text[one.start : one.end] for one in chunks) == text
    assert [one.start for one in chunks[1:]] == [one.end for one in chunks[:-1]]
    assert len(chunks) == -(-count_tokens(text) // size)


@given(
    st.lists(st.sampled_from(["word ", "字", "12", ", ", "\n", "é", "~~~~", "日本"]), max_size=300), st.integers(1, 9)
)
def test_a_chunk_by_itself_holds_as_many_tokens(words: list[str], size: int) -> None:
    """A full chunk, taken out of its text, still counts `size` tokens."""
    text = "".join(words)
    for one in chunk(text, size)[:-1]:
        assert count_tokens(text[one.start : one.end]) == size


def test_offsets_are_characters() -> None:
    """Offsets count characters, not bytes, also beyond the basic plane."""
    assert chunk("𠀀𠀁猫cat", 2) == [Chunk(start=0, end=2), Chunk(start=2, end=6)]


def test_an_empty_text_has_no_chunks() -> None:
    """There is nothing to read in an empty text."""
    assert chunk("", 5) == []


def test_a_chunk_of_no_tokens_cannot_be_asked_for() -> None:
    """A size under one would never come to an end."""
    with pytest.raises(ValueError, match="at least one token"):
        chunk("text", 0)
