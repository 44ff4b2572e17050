"""Preference rows: what counts as one, and what a bad line costs."""

import json
from typing import Any

import pytest

from lrq.trainer.rows import BadRow, PreferenceRow, read_row


def read(row: Any) -> PreferenceRow | BadRow:
    return read_row(json.dumps(row).encode(), 3)


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def test_a_conversational_row_keeps_its_messages() -> None:
    """Prompt and responses as lists of messages are taken as they are."""
    row = read({"prompt": [user("q")], "chosen": [assistant("a")], "rejected": [assistant("b")], "id": "x"})
    assert row == PreferenceRow(line=3, prompt=[user("q")], chosen=[assistant("a")], rejected=[assistant("b")])


def test_a_plain_row_keeps_its_texts() -> None:
    """Texts stay texts, and lrq's own mark of a cut prompt is read."""
    row = read({"prompt": "q ", "chosen": "a", "rejected": "b", "cut": True})
    assert row == PreferenceRow(line=3, prompt="q ", chosen="a", rejected="b", cut=True)


@pytest.mark.parametrize(
    ("chosen", "rejected", "prompt"),
    [
        ([user("q"), assistant("a")], [user("q"), assistant("b")], [user("q")]),
        ("The sky is blue", "The sky is brown", "The sky is"),  # not "The sky is b"
        ("The sky is blue", "The sky is", None),  # nothing is left of the rejected response
        ("the cat sat", "the cats", "the"),  # not "the cat": a word of the other goes on
        ("the cats", "the cat sat", "the"),
        ("yes", "no", None),
    ],
)
def test_without_a_prompt_the_common_beginning_is_it(chosen: Any, rejected: Any, prompt: Any) -> None:
    """TRL's implicit prompts: the messages, or whole words, that both sides share."""
    row = read({"chosen": chosen, "rejected": rejected})
    assert (row.prompt if isinstance(row, PreferenceRow) else None) == prompt
    if isinstance(row, PreferenceRow):
        assert (row.prompt + row.chosen, row.prompt + row.rejected) == (chosen, rejected)


def test_tools_may_be_given_as_text() -> None:
    """A list or its JSON, as TRL takes them; they go to the chat template beside its other arguments."""
    tools = [{"type": "function"}]
    for given in (tools, json.dumps(tools)):
        row = read({"prompt": "q", "chosen": "a", "rejected": "b", "tools": given, "chat_template_kwargs": {"x": 1}})
        assert isinstance(row, PreferenceRow)
        assert row.template == {"tools": tools, "x": 1}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"prompt": "q", "chos', "is not JSON"),
        (b"[1]", "is no JSON object"),
        (b'{"chosen": "a"}', "has no 'prompt'"),
        (b'{"prompt": "q", "chosen": "a", "rejected": 7}', "has no 'rejected'"),
        (b'{"prompt": "q", "chosen": [{"role": "assistant"}], "rejected": "b"}', "has no 'chosen'"),
        (b'{"prompt": "q", "chosen": "", "rejected": "b"}', "has an empty 'chosen'"),
        (b'{"prompt": "q", "chosen": "a", "rejected": "a"}', "has the same text"),
        (b'{"prompt": "q", "chosen": [{"role": "assistant", "content": "a"}], "rejected": "b"}', "mixes"),
        (b'{"prompt": [{"role": "user", "content": "q"}], "chosen": "a", "rejected": "b"}', "mixes"),
        (b'{"prompt": "q", "chosen": "a", "rejected": "b", "p_w": 1.5}', "has a 'p_w' that is no number from 0 to 1"),
        (b'{"prompt": "q", "chosen": "a", "rejected": "b", "chat_template_kwargs": "x"}', "has 'chat_template_kwargs'"),
        (b'{"prompt": "q", "chosen": "a", "rejected": "b", "chat_template_kwargs": [1]}', "has 'chat_template_kwargs'"),
        (b'{"prompt": "q", "chosen": "a", "rejected": "b", "chat_template_kwargs": 0}', "has 'chat_template_kwargs'"),
        (
            b'{"prompt": "q", "chosen": "a", "rejected": "b", "chat_template_kwargs": {"chat_template": "{{ 1 }}"}}',
            "has 'chat_template_kwargs' that set 'chat_template'",
        ),
        (
            b'{"prompt": "q", "chosen": "a", "rejected": "b", "chat_template_kwargs": {"tokenize": false}}',
            "has 'chat_template_kwargs' that set",
        ),
        (
            b'{"prompt": "q", "chosen": "a", "rejected": "b", "chat_template_kwargs": {"tools": []}}',
            "has 'chat_template_kwargs' that set",
        ),
        (
            b'{"prompt": "q", "chosen": "a", "rejected": "b", "chat_template_kwargs": {"eos_token": "x"}}',
            "has 'chat_template_kwargs' that set",
        ),
        (b'{"prompt": [{"role": "user|>", "content": "q"}], "chosen": "a", "rejected": "b"}', "has no 'prompt'"),
        (b'{"prompt": "q", "chosen": "a", "rejected": "b", "tools": "[{"}', "has 'tools' that are no list"),
        (b'{"prompt": "q", "chosen": "a", "rejected": "b", "tools": "{}"}', "has 'tools' that are no list"),
        (b'{"prompt": "q", "chosen": "a", "rejected": "b", "tools": 5}', "has 'tools' that are no list"),
        (b'{"prompt": "q\xff", "chosen": "a", "rejected": "b"}', "is not JSON"),
    ],
)
def test_a_bad_line_says_why(line: bytes, reason: str) -> None:
    """Whatever is wrong with a line becomes a reason with its number, never an exception."""
    row = read_row(line, 9)
    assert isinstance(row, BadRow)
    assert row.line == 9
    assert row.reason.startswith(reason)


SYSTEM, USER = {"role": "system", "content": "You are brief."}, {"role": "user", "content": "Why?"}
ONE, TWO = ({"role": "assistant", "content": text} for text in ("Because.", "It is a long story."))


@pytest.mark.parametrize(
    ("before", "read"),
    [([], [SYSTEM, USER]), ([USER], [SYSTEM, USER]), ([SYSTEM, USER], [SYSTEM, USER]),
     ([{"role": "user", "content": "You are brief.\nWhy?"}], [SYSTEM, USER]),
     ([SYSTEM, USER, ONE, USER], [SYSTEM, USER, ONE, USER])],
    ids=["answer alone", "prompt", "system and prompt", "in one text", "earlier turns"],
)  # fmt: skip
def test_multifaceted_pairs_are_read_whatever_precedes_the_answers(
    before: list[dict[str, str]], read: list[dict[str, str]]
) -> None:
    """The last message answers; what only repeats system message and prompt is left out, earlier turns stay."""
    line = {"system": "You are brief.", "prompt": "Why?", "chosen": [*before, ONE], "rejected": [*before, TWO]}
    row = read_row({"main_source": "m", **line}, 1)
    assert isinstance(row, PreferenceRow)
    assert (row.prompt, row.chosen, row.rejected) == (read, [ONE], [TWO])


def test_multifaceted_outputs_are_demonstrations_and_reward_pairs_are_messages() -> None:
    row = read_row({"system": "You are brief.", "prompt": "Why?", "output": "Because."}, 1)
    assert isinstance(row, PreferenceRow)
    assert (row.prompt, row.chosen, row.rejected) == ([SYSTEM, USER], [ONE], None)
    row = read_row({"input": "You are brief.\nWhy?", "chosen": ONE["content"], "rejected": TWO["content"]}, 1)
    assert isinstance(row, PreferenceRow)
    asked = [{"role": "user", "content": "You are brief.\nWhy?"}]
    assert (row.prompt, row.chosen, row.rejected) == (asked, [ONE], [TWO])


@pytest.mark.parametrize(
    ("chosen", "rejected", "reason"),
    [([USER], [ONE], "has messages as 'chosen' whose last is not the assistant's"),
     ([SYSTEM, ONE, USER, ONE], [SYSTEM, TWO, USER, TWO], "answer different messages")],
)  # fmt: skip
def test_multifaceted_pairs_that_do_not_answer_the_same_say_so(chosen: Any, rejected: Any, reason: str) -> None:
    row = read_row({"system": "You are brief.", "prompt": "Why?", "chosen": chosen, "rejected": rejected}, 1)
    assert isinstance(row, BadRow)
    assert reason in row.reason
