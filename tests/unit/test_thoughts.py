"""Thoughts of a model, parted from its answer."""

import pytest

from lrq.domain.thoughts import split_thoughts


@pytest.mark.parametrize(
    "reply",
    [
        "<think>T</think>\n\nA",
        "T</think>A",
        "<thinking>T</thinking>A",
        "<Thought>T</Thought> A",
        "<reasoning>T</reasoning>A",
        "<seed:think>T</seed:think>A",
        "<ant_thinking>T</ant_thinking>A",
        '<think duration="3">T</think>A',
        "<scratchpad>T</scratchpad>\n<answer>A</answer>",
        "[THINK]T[/THINK]A",
        "◁think▷T◁/think▷A",
        "<|begin_of_thought|>T<|end_of_thought|><|begin_of_solution|>A<|end_of_solution|>",
        "<|START_THINKING|>T<|END_THINKING|><|START_RESPONSE|>A<|END_RESPONSE|>",
        "<|inner_prefix|>T<|inner_suffix|>A",
        "<unused94>thought\nT<unused95>A",
        "<|channel>thought\nT<channel|>A",
        "<|channel|>analysis<|message|>T<|end|><|start|>assistant<|channel|>final<|message|>A<|return|>",
        "T<|end|><|start|>assistant<|channel|>final<|message|>A",
        "A\n<think>T</think>",
        "<think>T</thinking>A",
        "<thinking_process>T</thinking_process>A",
        "<chain_of_thought>T</chain_of_thought>A",
        "<思考>T</思考>A",
        "<think>T<\\think>A",
        "&lt;think&gt;T&lt;/think&gt;A",
        "<|start_of_reasoning|>T<|end_of_reasoning|>A",
        "<analysis>T</analysis>A",
        "<reflect>T</reflect>A",
        "<rationale>T</rationale>A",
        "<scratch_pad>T</scratch_pad>A",
        "<inner_monologue>T</inner_monologue>A",
        "<ThinkingBlock>T</ThinkingBlock>A",
        "<think_never_used_51bce0c785ca2f68081bfa7d91973934>T</think_never_used_51bce0c785ca2f68081bfa7d91973934>A",
        "<思考过程>T</思考过程>A",
        "【思考】T【/思考】A",
        "[BEGIN THOUGHT]T[END THOUGHT]A",
        '<details type="reasoning" done="true">\nT</details>\nA',
        "```thinking\nT\n```\nA",
        "<|im_start|>think\nT<|im_end|>\n<|im_start|>answer\nA<|im_end|>",
        "<|channel|>commentary<|message|>T<|end|><|start|>assistant<|channel|>final<|message|>A",
    ],
)
def test_a_thought_is_parted_from_the_answer(reply: str) -> None:
    """In every common tag, token and channel, before or after the answer, opened by the reply or by its prompt."""
    parted = split_thoughts(reply)
    assert (parted.thought, parted.answer, parted.closed) == ("T", "A", True)


@pytest.mark.parametrize(
    "reply",
    [
        "<think>T",
        "\n<thinking>T <reflection>Hm.</reflection> more",
        "[THINK]T",
        "◁think▷T",
        "<|START_THINKING|>T",
        "<|channel|>analysis<|message|>T",
        "analysisThe user asks for T",
        "Here is my thought process:\nT",
        "<analysis>T",
        '<details type="reasoning">T',
        "```thinking\nT",
        "<|im_start|>think\nT",
    ],
)
def test_a_thought_that_never_ends_leaves_no_answer(reply: str) -> None:
    """The reply was cut within it."""
    parted = split_thoughts(reply)
    assert not parted.closed
    assert parted.answer == ""
    assert "T" in parted.thought


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        ("analysisThe user asks.assistantfinalFour.", "Four."),
        ("Here's my thought process: Hm.\n\nHere's my response: Four.", "Four."),
        ("<think>a<think>b</think>c</think>Four.", "Four."),
        ("<thinking>a <reflection>b</reflection> c</thinking>Four.", "Four."),
        ("<think>I close with `</think>`, later.</think>Four.", "Four."),
        ("<think></think>\n\nFour.", "Four."),
        ("Four.\n<think>Or five", "Four."),
    ],
)
def test_nested_empty_and_plain_thoughts_are_parted_too(reply: str, answer: str) -> None:
    """Channels that lost their tokens, headings, thoughts in thoughts, and marks in quotes inside a thought."""
    assert split_thoughts(reply).answer == answer


@pytest.mark.parametrize(
    "reply",
    [
        " A plain answer.\n",
        "The tag <think> opens a thought.",
        "Write `<think>` first and `</think>` last.",
        "He said [thinking of home]: no.",
        "<p>thought</p>",
        "",
    ],
)
def test_a_reply_without_thoughts_is_its_own_answer(reply: str) -> None:
    """To the letter; a mark that is spoken of parts nothing."""
    parted = split_thoughts(reply)
    assert (parted.thought, parted.answer, parted.closed) == ("", reply, True)


def test_a_page_s_fold_that_is_no_thought_is_an_answer() -> None:
    """Only a fold that names reasoning, at the head of a reply, is a thought."""
    reply = "It holds.\n<details><summary>Proof</summary>[[3]]</details>\n[[7]]"
    assert split_thoughts(reply).answer == reply
