"""Reading an extraction: a list of points, the phrase for nothing, and nothing else."""

import pytest

from lrq.domain.errors import Unreadable
from lrq.domain.marks import read_extraction


@pytest.mark.parametrize(
    "reply",
    [
        "No relevant information",
        "no relevant information.",
        " **No relevant information!** ",
        "[[No relevant\ninformation]]",
        "“No relevant information”。",
        "ＮＯ ＲＥＬＥＶＡＮＴ ＩＮＦＯＲＭＡＴＩＯＮ",
        "no-relevant-information",
        "> No relevant information",
        "- No relevant information",
        "Points:\nNo relevant information.",
        "Answer: No relevant information",
        "```text\nNo relevant information\n```",
        "<output>No relevant information</output>",
        "No relevant information<|eot_id|>",
        "No relevant information (the part is about the organ).",
        "No relevant information.\n\n(It is about the organ.)",
        "There is nothing relevant in this part.",
        "This passage does not contain any information relevant to the question.",
        "No relevant information was found in the document.",
        "None.",
        "该段没有与问题有关的信息。",
        "文中未提到相关内容",
        "答案：无相关信息",
        "関連する情報はありません。",
        "Keine relevanten Informationen.",
        "<reasoning>The organ.</reasoning>\nNo relevant information",
        "[THINK]The organ.[/THINK]No relevant information",
        "◁think▷The organ.◁/think▷No relevant information",
        "<|channel|>analysis<|message|>The organ.<|end|><|start|>assistant<|channel|>final<|message|>"
        "No relevant information<|return|>",
    ],
)
def test_an_extraction_that_finds_nothing_says_just_that(reply: str) -> None:
    """Punctuation, case, markup, a label, a remark in brackets, other wordings and thoughts do not matter."""
    assert read_extraction(reply) is None


@pytest.mark.parametrize(
    "reply",
    [
        "- The mayor resigned.\n- No relevant information on the date.",
        "- No relevant information was found by the police, the report says.",
        "- I'm sorry, said the mayor.",
        "* Error correction was introduced in 1950.",
        "• 作为人工智能领域的先驱，他于1956年参加了会议。",
        "1. The harbour froze.\n2. Bread rose.",
        "1）港口封冻。\n2）面包涨价。",
        "① The harbour froze.",
        "一、港口封冻。",
        "– The harbour froze.",
        "-港口封冻。",
        "> - The harbour froze.",
        "**1. The harbour froze.**",
        "Here are the points:\n\n- The harbour froze.",
        "| What | When |\n|---|---|\n| The harbour froze | 1740 |",
        "No relevant information on the mayor, but on the harbour:\n- It froze.",
    ],
)
def test_an_extraction_keeps_all_its_text(reply: str) -> None:
    """Bullets of any kind, numbers and rows of a table are points; words of a notice inside a point are the text's."""
    assert read_extraction(f"\n{reply}\n") == reply


def test_what_wraps_a_list_is_left_away() -> None:
    """Code fences, tags of an answer, tokens of a template and thoughts are none of the points."""
    reply = "<thought>Two.</thought>\n<points>\n```\n- A\n- B\n```\n</points><|im_end|>"
    assert read_extraction(reply) == "- A\n- B"


@pytest.mark.parametrize(
    "reply",
    [
        "",
        " \n",
        "I'm sorry, but I can't help with that.",
        "I must decline to read this.",
        "As an AI language model, I must decline.",
        "I'm sorry, I can't help. What I can do:\n- summarise\n- translate",
        "- I'm sorry, but I can't help with that.",
        "- The harbour froze.\n\nI'm sorry, but I cannot continue.",
        "Please paste the document:\n1. Copy it.\n2. Send it.",
        "Error: upstream timed out",
        "- Error: 502",
        '{"error": {"message": "bad gateway"}}',
        "<html><body>Bad gateway</body></html>",
        "Too many requests",
        "Your message was flagged by our filter.",
        "很抱歉，我无法处理这段内容。",
        "换个话题吧。",
        "お答えできません。",
        "Lo siento, no puedo ayudar.",
        "The harbour froze, and bread rose.",
        "The user asks for points. First I read the part.",
        "Of course!",
        "Points:",
        "要点：",
        "None",
        "null",
        "{}",
        "[]",
        '{"points": []}',
        "```json\n```",
        "- ",
        "-\n-",
        "- ...",
        "- None",
        "---",
        "…",
        "No relevant information\n- The harbour froze.",
        "<think>- The harbour froze.",
        "<think>- The harbour froze.</think>",
    ],
)
def test_anything_else_is_no_extraction(reply: str) -> None:
    """A refusal, a notice, an error text, an empty shell, prose or thoughts alone would become the yardstick."""
    with pytest.raises(Unreadable):
        read_extraction(reply)
