"""How long a prompt may be at a server, by what it says."""

import pytest

from lrq.domain.errors import LrqError
from lrq.policy.window import is_too_long, model_tokens, prompt_room, shorter_limit

# Refusals of a prompt of 9,000 tokens with 1,024 asked for, at a window of 8,192; sent as 10,000 of our tokens.
WITH_COUNT = [
    "This model's maximum context length is 8192 tokens. However, you requested 10024 tokens (9000 in the messages, "
    "1024 in the completion). Please reduce the length of the messages or completion.",
    "'max_tokens' is too large: 1024. This model's maximum context length is 8192 tokens and your request has 9000 "
    "input tokens (1024 > 8192 - 9000).",
    "Requested token count exceeds the model's maximum context length of 8192 tokens. You requested a total of 10024 "
    "tokens: 9000 tokens from the input messages and 1024 tokens for the completion.",
    "The input (9000 tokens) is longer than the model's context length (8192 tokens).",
    "The decoder prompt (length 9000) is longer than the maximum model length of 8192.",
    "prompt is too long: 9,000 tokens > 8,192 maximum",
]


@pytest.mark.parametrize("refusal", WITH_COUNT)
@pytest.mark.parametrize("window", [None, 8192])
def test_numbers_of_a_refusal_say_how_much_to_cut(refusal: str, window: int | None):
    """9,000 of the server's tokens were 10,000 of ours: 0.97 × (8,192 - 1,024) = 6,952 of theirs are 7,724 of ours."""
    assert is_too_long(refusal)
    assert shorter_limit(refusal, 10_000, 1024, window) == 7724


def test_a_refusal_without_a_count_makes_the_prompt_shorter_all_the_same():
    """By a fifth at least, and to the window where it is named."""
    named = "the request exceeds the available context size (8192 tokens), try increasing it"
    assert is_too_long(named)
    assert shorter_limit(named, 10_000, 1024, None) == 6952
    assert shorter_limit("prompt too long", 1000, 10, None) == 800
    assert shorter_limit(named, 5000, 1024, 8192) == 4000


@pytest.mark.parametrize("refusal", ["", "content policy", "n must be 1", "The model `x` does not exist."])
def test_other_refusals_are_not_for_length(refusal: str):
    """They would be refused again at any length."""
    assert not is_too_long(refusal)


def test_a_reply_that_leaves_no_room_is_said():
    """Before anything is sent; an unknown window leaves any."""
    assert prompt_room(None, 1024) is None
    assert prompt_room(4096, 1024) == 2979
    with pytest.raises(LrqError, match=r"takes 1,024 tokens.*sample\.max_new_tokens is 1,024: set it lower"):
        prompt_room(1024, 1024)


def test_chinese_characters_are_less_than_a_token():
    """As today's vocabularies have them; ours counts each as one."""
    assert model_tokens([{"role": "user", "content": "港" * 100}]) == 68
    assert model_tokens([{"role": "user", "content": " word" * 100}]) == 100
