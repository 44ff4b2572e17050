"""Reading the marks of a judge's reply."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrq.domain.errors import Unreadable
from lrq.domain.marks import read_score, read_statements, read_support, read_supports


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
        ("[[４]]", 4.0),
        ("[[④]]", 4.0),
        ("[[Ⅳ]]", 4.0),
        ("[[4½]]", 4.5),
        ("[[4 1/2]]", 4.5),
        ("[[4,5]]", 4.5),
        ("[[四点五]]", 4.5),
        ("[[four]]", 4.0),
        ("得分：[[4分／10分]]", 4.0),
        ("[[4 out of 10]]", 4.0),
        ("[[rating = 4]]", 4.0),
        ("[[`4`]]", 4.0),
        ("[[“4”]]", 4.0),
        ("⟦4⟧", 4.0),
        ("【【4】】", 4.0),
        ("((4))", 4.0),
        ("{{4}}", 4.0),
        ("[\u200b[4]]", 4.0),
        ("\\[\\[4\\]\\]", 4.0),
        ("$\\boxed{\\text{4}}$", 4.0),
        ("[[\\frac{4}{10}]]", 4.0),
        ("[[4]", 4.0),
        ("[[4]] / [[10]]", 4.0),
        ("[[4]]/10", 4.0),
        ("4", 4.0),
        ("[4]", 4.0),
        ("The answer is thin.\n4 / 10", 4.0),
        ("Rating: **4**", 4.0),
        ("**Final score:** 4 out of 10", 4.0),
        ("### Score\n\n4", 4.0),
        ("评分：4分（满分10分）", 4.0),
        ("<rating>4</rating>", 4.0),
        ('{"reason": "2 slips", "score": 4}', 4.0),
        ("Score: 4 (half of it is missing)", 4.0),
        ("<thinking>Is it [[9]]?</thinking>[[4]]", 4.0),
        ("[[4]]\n<think>Or [[9]]?</think>", 4.0),
        ("<think>So it is [[4]].</think>", 4.0),
        ("Score: [[9]]\n\nWait, the date is wrong, so I lower it.\n\nScore: [[4]]", 4.0),
        ("Clarity [[9]], depth [[7]].\nScore: [[4]]", 4.0),
        ("Score: [[4]]\nSee passages [[1]], [[2]].", 4.0),
        ("[[4]]\nThe text has [[links]](http://a.example) and [[File:Map.png]].", 4.0),
        ("[[4]]</s><|im_end|>", 4.0),
    ],
)
def test_score_is_the_number_in_the_last_mark(reply: str, score: float) -> None:
    """What a person would read is read, in any dress; marks that are merely quoted before the last do not count."""
    assert read_score(reply) == score


@pytest.mark.parametrize(
    "reply",
    [
        "",
        "[[85]]",
        "[[10.5]]",
        "[[-1]]",
        "[[8/100]]",
        "[[8/5]]",
        "[[8 or 9]]",
        "[[nan]]",
        "[[]]",
        "[[4]]%",
        "[[4]]/5",
        "[[4 - 5]]",
        "[[4]] to [[5]]",
        "[[4]] / [[5]]",
        "[[about 4]]",
        "[[4,000]]",
        "[[4¹]]",
        "[[V]]",
        "[[4][5]]",
        "[[1]0]",
        "Score: 4-5",
        "Score: 4%",
        "Score: 40",
        "Passage [4] and passage [[5]] agree.",
        "Errors: 3\n4",
        "<think>Perhaps [[4]]",
        "<|channel|>analysis<|message|>Perhaps [[4]]",
        "Final score: [[4]]\nMy first impression: [[6]]",
        "Overall: [[4]]\nStyle: [[5]] Depth: [[3]]",
        "Style: [[5]], depth: [[3]]",
        "Rating: [[4]]. A perfect answer would get [[10]].",
        "[[4]]\nFinal score: 6",
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
    "reply",
    [
        "[[No statements]]",
        "A refusal.\n[[no statements.]]",
        "A refusal, hence [[No statements]].",
        "<statement></statement> [[No statements]]",
        "<statement>[[No statements]]</statement>",
        "<statement>none</statement>",
        "No factual statements.",
        "The answer contains no factual statements.",
        "该回答没有事实陈述。",
        "**【【没有陈述】】**",
    ],
)
def test_no_statements_is_an_answer(reply: str) -> None:
    """A response without factual statements, a refusal for example, is told apart from an unreadable reply."""
    assert read_statements(reply) == ()


@pytest.mark.parametrize(
    "reply",
    [
        "<STATEMENT>A.</STATEMENT><statement>B &amp; C.</statement>",
        "1. <statement>A.</statement>\n2. < statement >B &amp; C.</ statement >",
        '<statement n="1">A.</statement>\n<statement n="2">B & C.</statement>',
        "\\<statement\\>A.\\</statement\\>\n＜statement＞B & C.＜/statement＞",
        "<陈述>A.</陈述>\n<陈述>B & C.</陈述>",
        "<statements>\n<statement>A.</statement>\n<statement>B & C.</statement>\n</statements>",
        "<statement>A.<statement>\n<statement>B & C.<statement>",
        "&lt;statement&gt;A.&lt;/statement&gt;\n&lt;statement&gt;B &amp; C.&lt;/statement&gt;",
        "Each stands between <statement> and </statement>:\n<statement>A.</statement>\n<statement>B & C.</statement>",
        "A `<statement>` for each:\n<statement>A.</statement>\n<statement>B & C.</statement>",
        "<think><statement>X</statement></think><statement>A.</statement><statement>B & C.</statement>",
        "<statement>A.</statement>\n<statement>B & C.</statement>\nAs there are some, no [[No statements]] here.",
    ],
)
def test_statements_are_read_in_any_dress(reply: str) -> None:
    """Tags as models write them; tags and marks that are only spoken of do not count."""
    assert read_statements(reply) == ("A.", "B & C.")


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
        "<statement>…</statement>",
        "<statement>A<statement>\n<statement>B",
        "I cannot list them.",
        "- A\n- B",
        "<think><statement>A</statement>",
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
        ("Partially supported", 0.5),
        ("Verdict: No support - the year differs", 0.0),
        ("[[Not supported]]", 0.0),
        ("[[unsupported]]", 0.0),
        ("[[partially_supported]]", 0.5),
        ("【【部分支持】】", 0.5),
        ("[[Partial support / 部分支持]]", 0.5),
        ("[[Fully supported (passages 1 and 4)]]", 1.0),
        ("[[3: No support]]", 0.0),
        ("\\boxed{\\text{No support}}", 0.0),
        ("<verdict>No support</verdict>", 0.0),
        ('{"verdict": "No support"}', 0.0),
        ("[[No support]]\nSee passage [[3]].", 0.0),
    ],
)
def test_support_is_one_of_three_marks(reply: str, value: float) -> None:
    """The three verdicts in their usual forms and dress are read, and the last mark alone counts."""
    assert read_support(reply).value == value


@pytest.mark.parametrize(
    "reply",
    [
        "",
        "[[Not fully supported]]",
        "[[I cannot tell]]",
        "[[Partly]]",
        "[[Mostly supported]]",
        "[[Refuted]]",
        "[[Fully supported / No support]]",
        "The statement is hardly fully supported.",
        "Final verdict: [[No support]] (I first thought [[Fully supported]])",
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


@pytest.mark.parametrize(
    "reply",
    [
        "[[01: Fully supported]][[03: No support]]",
        "[[1 - **Fully supported**]] [[3. No support]]",
        "[[陈述1：完全支持]]\n[[陈述3：没有支持]]",
        "1. Passage 2 has it. [[Fully supported]]\n3. Nothing. [[No support]]",
        "Statement 1: Fully supported\nStatement 3: No support",
        "| 1 | [[Fully supported]] |\n| 3 | [[No support]] |",
    ],
)
def test_the_number_stands_in_the_mark_or_heads_its_line(reply: str) -> None:
    """Statement 2 has no verdict in any of them."""
    assert [verdict and verdict.value for verdict in read_supports(reply, 3)] == [1.0, None, 0.0]


def test_a_reply_without_any_numbered_verdict_is_unreadable() -> None:
    """Verdicts without a number cannot be assigned."""
    with pytest.raises(Unreadable):
        read_supports("[[Fully supported]] [[No support]]", 2)
    with pytest.raises(Unreadable):
        read_supports("[[1] Fully supported]", 2)


_WORDS = st.sampled_from(
    ("score", "final", "if", "would be", "passage", "8", "Score: 9/10", "not", "see section", "\n")
)


@given(words=st.lists(_WORDS, max_size=8), mark=st.sampled_from(["7", "10", "x", "seven", "Score 7", "n", "12"]))
def test_a_lone_mark_at_the_end_is_read_as_in_any_other_reply(words: list[str], mark: str) -> None:
    """Brackets ahead of it send the reply the long way round."""
    text = " ".join([*words, f"[[{mark}]]"])
    assert _score_or_none(text) == _score_or_none(f"()\n{text}")


def _score_or_none(reply: str) -> float | None:
    try:
        return read_score(reply)
    except Unreadable:
        return None
