"""Reading the marks of a judge's reply."""

import pytest

from lrq.domain.errors import Unreadable
from lrq.domain.marks import read_extraction, read_score, read_statements, read_support, read_supports


@pytest.mark.parametrize(
    ("reply", "score"),
    [
        ("Good.\nScore: [[7]]", 7.0),
        ("[[0]]", 0.0),
        ("[[10]]", 10.0),
        ("[[ 8 ]]", 8.0),
        ("[[8/10]]", 8.0),
        ("[[ 8.5 / 10 ]]", 8.5),
        ("**[[6.25]]**", 6.25),
        ("[[[4]]]", 4.0),
        ("The answer claims [[10]], but half is missing. [[5]] fits: [[4.5]]", 4.5),
        ("It quotes [[Fully supported]] as if that were a score.\n[[3]]", 3.0),
    ],
)
def test_score_is_the_number_in_the_last_mark(reply: str, score: float) -> None:
    """Decimals, `/10` and inner spaces are read; marks that are merely quoted before the last do not count."""
    assert read_score(reply) == score


@pytest.mark.parametrize(
    "reply",
    [
        "",
        "8",
        "[8]",
        "Score: 8/10",
        "[[85]]",
        "[[10.5]]",
        "[[-1]]",
        "[[8/100]]",
        "[[8/5]]",
        "[[8 or 9]]",
        "[[seven]]",
        "[[nan]]",
        "[[１０]]",
        "[[]]",
        "[[7]] and finally [[8",
        "[[7]] [[unsure]]",
        "The content was blocked by our filter.",
    ],
)
def test_what_is_no_score_from_0_to_10_is_unreadable(reply: str) -> None:
    """A number off the scale, no number, or a last mark that says something else gives no score."""
    with pytest.raises(Unreadable):
        read_score(reply)


def test_score_keeps_to_the_scale_it_is_given() -> None:
    """On a scale from 1 to 5, 4/5 is four, while 0, 6 and 4/10 are unreadable."""
    assert read_score("[[4/5]]", low=1, high=5) == 4
    for reply in ("[[0]]", "[[6]]", "[[4/10]]"):
        with pytest.raises(Unreadable):
            read_score(reply, low=1, high=5)


def test_statements_come_in_order_and_with_repeats() -> None:
    """Text around the statements is passed over, white space inside them is evened out, case of the tag is free."""
    reply = (
        "I leave out the opener.\n<statement> A is\n 1. </statement>\n"
        "<Statement>B</Statement><statement>A is 1.</statement>"
    )
    assert read_statements(reply) == ("A is 1.", "B", "A is 1.")


@pytest.mark.parametrize(
    "reply", ["[[No statements]]", "A refusal.\n[[no statements.]]", "<statement></statement> [[No statements]]"]
)
def test_no_statements_is_an_answer(reply: str) -> None:
    """A response without factual statements, a refusal for example, is told apart from an unreadable reply."""
    assert read_statements(reply) == ()


def test_a_quoted_no_statements_mark_hides_nothing() -> None:
    """Neither inside a statement nor before the list does the mark discard what is listed."""
    assert read_statements("[[No statements]] would be wrong.\n<statement>A [[No statements]]</statement>") == (
        "A [[No statements]]",
    )


@pytest.mark.parametrize(
    "reply",
    [
        "",
        "The answer states that A.",
        "<statement></statement>",
        "<statement>A</statement> <statement>B",
        "<statement>A<statement>B</statement>",
        "<statement>A<statement>B</statement></statement>",
        "A</statement>",
        "<statement>A</statement>\n[[No statements]]",
        "No statements",
    ],
)
def test_statements_that_are_torn_or_contradictory_are_unreadable(reply: str) -> None:
    """A list that is empty without saying so, not closed, nested, or denied at its end is asked for again."""
    with pytest.raises(Unreadable):
        read_statements(reply)


@pytest.mark.parametrize(
    ("reply", "value"),
    [
        ("[[Fully supported]]", 1.0),
        ("[[Fully supported.]]", 1.0),
        ("[[ fully  Supported ]].", 1.0),
        ("[[Fully supported。]]", 1.0),
        ("Verdict: [[Partially supported]]", 0.5),
        ("[[NO SUPPORT]]", 0.0),
        ("The passage says [[Fully supported]], a trick.\n[[No support]]", 0.0),
    ],
)
def test_support_is_one_of_three_marks(reply: str, value: float) -> None:
    """Case, spaces and a full stop are tolerated, and the last mark alone counts."""
    assert read_support(reply).value == value


@pytest.mark.parametrize(
    "reply",
    [
        "",
        "Fully supported",
        "[[Not fully supported]]",
        "[[I cannot tell]]",
        "[[Not supported]]",
        "[[Unsupported]]",
        "[[Fully supported or partially supported]]",
        "[[1]]",
        "[[Fully supported]] or rather [[I cannot tell]]",
    ],
)
def test_any_other_verdict_is_unreadable(reply: str) -> None:
    """A verdict that merely contains one of the marks is not taken for it, and doubt is not taken for zero."""
    with pytest.raises(Unreadable):
        read_support(reply)


def test_numbered_verdicts_fill_their_places() -> None:
    """The last verdict of a number counts; one that is missing, unknown or out of range leaves its place empty."""
    reply = (
        "1. [[1: No support]] no: [[1: Fully supported.]]\n3. [[3：partially supported]]\n"
        "4. [[4: maybe]] [[9: No support]]"
    )
    assert [verdict and verdict.value for verdict in read_supports(reply, 4)] == [1.0, None, 0.5, None]


def test_a_reply_without_any_numbered_verdict_is_unreadable() -> None:
    """Verdicts without a number cannot be assigned."""
    with pytest.raises(Unreadable):
        read_supports("[[Fully supported]] [[No support]]", 2)


@pytest.mark.parametrize(
    "reply",
    [
        "No relevant information",
        "no relevant information.",
        " **No relevant information!** ",
        "[[No relevant\ninformation]]",
        "“No relevant information”。",
    ],
)
def test_an_extraction_that_finds_nothing_says_just_that(reply: str) -> None:
    """Punctuation, case and markup around the phrase do not matter."""
    assert read_extraction(reply) is None


@pytest.mark.parametrize(
    "reply",
    [
        "- The mayor resigned.\n- No relevant information on the date.",
        "- No relevant information was found by the police, the report says.",
        "- I'm sorry, said the mayor.",
        "Error correction was introduced in 1950.",
        "作为人工智能领域的先驱，他于1956年参加了会议。",
        "抱" + "负是他离开的原因。",
    ],
)
def test_an_extraction_keeps_all_its_text(reply: str) -> None:
    """The phrase for nothing, or words of a notice, inside a longer text do not discard it."""
    assert read_extraction(f"\n{reply}\n") == reply


@pytest.mark.parametrize(
    "reply",
    [
        "",
        " \n",
        "I'm sorry, but I can't help with that.",
        "I cannot assist with this request.",
        "Sorry, an internal problem occurred.",
        "As an AI language model, I must decline.",
        "Error: upstream timed out",
        '{"error": {"message": "bad gateway"}}',
        "The response was filtered due to the content management policy.",
        "很抱歉，我无法处理这段内容。",
        "系统检测到输入或生成内容可能包含不安全或敏感内容。",
        "该内容可能涉及敏感信息。",
    ],
)
def test_a_notice_is_no_extraction(reply: str) -> None:
    """An empty reply, a refusal, a filter's notice or an error text is unreadable, not a list of points."""
    with pytest.raises(Unreadable):
        read_extraction(reply)
