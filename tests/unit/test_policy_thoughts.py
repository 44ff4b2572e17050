"""What a policy thought, and what it answers."""

import pytest

from lrq.domain.thoughts import split_thoughts
from lrq.policy.thoughts import MARKS, open_mark, split_thought


@pytest.mark.parametrize(
    ("written", "opened", "thought", "answer"),
    [
        ("Seven.", "", "", "Seven."),
        ("<think>Count.</think>Seven.", "", "Count.", "Seven."),
        ("Count.</think>Seven.", "<think>", "Count.", "Seven."),
        ("Count.</think>Seven.", "", "Count.", "Seven."),
        ("[THINK]Count.[/THINK]Seven.", "", "Count.", "Seven."),
        ("<|START_THINKING|>Count.<|END_THINKING|><|START_RESPONSE|>Seven.<|END_RESPONSE|>", "", "Count.", "Seven."),
        ("<|channel>thought\nCount.<channel|>Seven.", "", "\nCount.", "Seven."),
        (
            "<|channel|>analysis<|message|>Count.<|end|><|start|>assistant<|channel|>final<|message|>Seven.",
            "",
            "Count.",
            "Seven.",
        ),
        ("<think>One <think> more.</think>Seven.", "", "One <think> more.", "Seven."),
    ],
)
def test_the_answer_stands_behind_the_thought(written, opened, thought, answer):
    """Behind the last closing mark of its kind, or in the final channel."""
    parts = split_thought(written, opened=opened)
    assert (parts.thought, parts.answer, parts.is_closed) == (thought, answer, True)


@pytest.mark.parametrize(
    ("written", "opened"),
    [("<think>Count", ""), ("Count", "<think>"), ("<|channel|>analysis<|message|>Count", "")],
)
def test_a_thought_without_an_end_leaves_no_answer(written, opened):
    """It broke off while it thought."""
    parts = split_thought(written, opened=opened)
    assert (parts.thought, parts.answer, parts.is_closed) == ("Count", "", False)


@pytest.mark.parametrize(
    ("prompt", "mark"),
    [("<|im_start|>assistant\n<think>\n", "<think>"), ("<think>\n\n</think>\n\n", ""), ("<|im_start|>assistant\n", "")],
)
def test_a_prompt_may_open_the_thought(prompt, mark):
    """Where it ends in an opening mark, white space aside."""
    assert open_mark(prompt) == mark


@pytest.mark.parametrize(("start", "end"), MARKS)
def test_a_server_s_replies_are_parted_at_the_same_marks(start, end):
    """What is drawn here keeps its white space, since it has to render to the same tokens again."""
    written = f"{start}\nCount.\n{end}\nSeven."
    parts, reply = split_thought(written), split_thoughts(written)
    assert (parts.thought.strip(), parts.answer.strip()) == (reply.thought, reply.answer) == ("Count.", "Seven.")
