"""Every parser of replies takes time in proportion to the reply, whatever it holds."""

import time
from collections.abc import Callable
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lrq.calls.errors import read_error
from lrq.calls.outcomes import _parse as _parse_body
from lrq.domain.control_tokens import break_control_tokens
from lrq.domain.errors import Unreadable
from lrq.domain.marks import LONGEST_REPLY, read_extraction, read_score, read_statements, read_support, read_supports
from lrq.domain.printable import printable
from lrq.domain.rubrics import read_result
from lrq.domain.thoughts import split_thoughts
from lrq.policy.thoughts import split_thought
from lrq.recipes.longpo_filters import read_questions, unfit
from lrq.recipes.pairwise import read_preference

PARSERS: dict[str, Callable[[str], object]] = {
    "score": read_score,
    "support": read_support,
    "supports": lambda reply: read_supports(reply, 9),
    "statements": read_statements,
    "extraction": read_extraction,
    "thoughts": split_thoughts,
    "questions": lambda reply: read_questions(reply, 5),
    "preference": read_preference,
    "result": read_result,
    "fitness": unfit,
    "thought of a policy": split_thought,
    "control tokens": break_control_tokens,
    "printable": printable,
    "error": lambda text: read_error({"error": {"message": text}}, text.encode()),
    "body": lambda text: _parse_body(text.encode()),
}
CAPPED = ("score", "support", "supports", "statements", "extraction")  # a reply beyond the longest is not read
FRAGMENTS = [
    *(
        "<statement>",
        "</statement>",
        "<",
        "＜",
        "[[",
        "]]",
        "[[8]] ",
        "[[8]",
        "((",
        "<<8",
        "{{",
        "\\[",
        "\\",
        "&lt;",
        "&",
    ),
    *(
        "\\boxed{",
        "\\text{",
        "<think>",
        "</think>",
        "<a:think>",
        "[THINK]",
        "<|channel|>",
        "assistantfinal",
        "analysisA",
    ),
    *("<|channel|>analysis<|message|>", "here is my thought process", "- a\n", "- \n", "1. ", "| a |\n", "```\n", "\n"),
    *(
        " ",
        "\t",
        "Score: ",
        "Score:\n",
        "the final ",
        "passage ",
        "[[1]], ",
        "No relevant information ",
        "没有",
        "error: ",
    ),
    *("I'm sorry ", "1: ", "[[1: No support]]", '"a":', "{", "~~", "**", "_", "ﷺ", "½", "８", "8", "8/", "a", "aB "),
    *("\u200b", "'", "[RESULT] ", "[[A]]", "<|im_end|>", "<|", "retry after 5 s ", ": \n", '{"error":', "\ufe0f"),
]
SHORT, LONG = 15_000, 120_000  # characters; eight times as many


def seconds(parser: Callable[[str], object], text: str) -> float:
    started = time.process_time()
    with suppress(Unreadable):
        parser(text)
    return time.process_time() - started


def assert_grows_in_proportion(name: str, fragment: str) -> None:
    """Eight times the text may take 24 times as long; what grows with the square takes 64 times."""
    texts = [(fragment * (length // len(fragment) + 1))[:length] for length in (SHORT, LONG)]
    short, long = (min(seconds(PARSERS[name], text) for _ in range(2)) for text in texts)
    assert long < 24 * max(short, 0.02), f"{name}: {fragment!r} {short:.3f} s, then {long:.3f} s"


@pytest.mark.parametrize("name", PARSERS)
@given(fragments=st.lists(st.sampled_from(FRAGMENTS), min_size=1, max_size=4))
@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
def test_time_grows_in_proportion_to_the_text(name: str, fragments: list[str]) -> None:
    """Fragments of what is looked for, repeated in any combination."""
    assert_grows_in_proportion(name, "".join(fragments))


@pytest.mark.parametrize("name", CAPPED)
@given(fragment=st.sampled_from(FRAGMENTS))
@settings(max_examples=8, deadline=None)
def test_a_reply_beyond_the_longest_is_unreadable(name: str, fragment: str) -> None:
    """A megabyte is not looked at."""
    text = (fragment * (1_000_000 // len(fragment) + 1))[:1_000_000]
    assert len(text) > LONGEST_REPLY
    with pytest.raises(Unreadable, match="1000000 characters"):
        PARSERS[name](text)
