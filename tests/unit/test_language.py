"""The choice between English and Chinese prompts."""

import pytest

from lrq.domain.language import language


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("What did the mayor decide?", "en"),
        ("市长作了什么决定？", "zh"),
        ("What does 道德经 teach about water?", "en"),  # 25 letters, 3 characters
        ("请比较GPT-4o和Llama在这篇文章中的表现", "zh"),  # 9 letters, 15 characters
        ("abcd字", "en"),  # exactly four to one
        ("abc字", "zh"),
        ("", "en"),
        ("Что решил мэр?", "en"),
        ("1 + 1 = ?", "en"),
    ],
)
def test_prompts_are_english_from_four_letters_to_a_character(text: str, expected: str) -> None:
    """Quoted terms do not change the language of a question; neither script means English."""
    assert language(text) == expected
