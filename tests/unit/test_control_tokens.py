"""Control tokens that a text spells out are letters for a server of one's own."""

import dataclasses
from pathlib import Path

import pytest

import lrq.recipes
from lrq.calls.estimates import at_most
from lrq.calls.keys import call_key
from lrq.calls.transport import _request, _way_to
from lrq.config import Endpoint
from lrq.domain.control_tokens import break_control_tokens, count_control_tokens
from lrq.domain.origin import is_private
from lrq.domain.records import Call

TOKENS = [
    "<|im_start|>",
    "<|endoftext|>",
    "<|start_header_id|>",
    "<|eot_id|>",
    "<｜User｜>",
    "<｜end▁of▁sentence｜>",
    "<|turn>",
    "<channel|>",
    "[|user|]",
    "<start_of_turn>",
    "<end_of_turn>",
    "<bos>",
    "</s>",
    "<s>",
    "[INST]",
    "[/INST]",
    "[TOOL_CALLS]",
    "<think>",
    "</think>",
    "<unused12>",
    "<BOS_TOKEN>",
    "<reserved_106>",
    "<seed:bos>",
    "]~b]",
    "[e~[",
    "<image>",
]
TEXTS = [
    "a < b | c > d",
    "[1] [x|y] List[int]",
    "<p>one</p> <b>",
    "if a <| b",
    "[[7]] <statement>x</statement>",
    "港口",
]


@pytest.mark.parametrize("token", TOKENS)
def test_a_control_token_is_broken_and_known_again(token: str) -> None:
    """Also one that was broken before: what is taken back is the text as it was."""
    once = break_control_tokens(f"a{token}b")
    assert token not in once
    assert once == f"a{token[0]} {token[1:]}b"
    assert break_control_tokens(once) == f"a{token[0]}  {token[1:]}b"
    assert count_control_tokens(f"{token}{token}") == 2


@pytest.mark.parametrize("text", TEXTS)
def test_other_texts_stay(text: str) -> None:
    """Comparisons, HTML, citations, and the marks that judges write."""
    assert break_control_tokens(text) == text


def test_our_own_prompts_hold_none() -> None:
    """Else judges would read other words than were written for them."""
    files = sorted(Path(lrq.recipes.__file__).parent.rglob("*.txt"))
    texts = [file.read_text(encoding="utf-8") for file in files]
    assert [text for text in texts if break_control_tokens(text) != text] == []
    assert len(texts) > 10


def test_many_brackets_take_linear_time() -> None:
    """A megabyte that nearly holds tokens is looked at once."""
    for piece in ("<|", "<" + "a" * 59, "[|", "<｜", "< ", "[ "):
        text = piece * (1_000_000 // len(piece))
        assert count_control_tokens(text) == 0


@pytest.mark.parametrize(
    ("host", "private"),
    [
        ("localhost", True),
        ("127.0.0.1", True),
        ("::1", True),
        ("10.1.2.3", True),
        ("192.168.0.9", True),
        ("gpu-1", True),
        ("vllm.models.svc.cluster.local", True),
        ("box.lan", True),
        ("api.openai.com", False),
        ("8.8.8.8", False),
        ("10.example.org", False),
    ],
)
def test_servers_of_ones_own_are_told_by_their_host(host: str, private: bool) -> None:
    """By address, or by a name that only the own network knows."""
    assert is_private(host) is private
    url = f"http://[{host}]/v1" if ":" in host else f"http://{host}/v1"
    assert _way_to(Endpoint(url=url, model="m")).breaks is private
    assert _way_to(Endpoint(url=url, model="m", break_control_tokens=not private)).breaks is not private


def test_the_question_and_its_key_stay_and_the_bound_holds() -> None:
    """What is broken is what is sent; a run that asked before finds its replies, and pays for no more than reserved."""
    text = "<|im_end|><s>" * 1000
    call = Call(role="judge", endpoint="e", model="m", messages=({"role": "user", "content": text},))
    _, sent = _request(call, breaks=True)
    _, plain = _request(call)
    assert plain["messages"] == list(call.messages)
    assert sent["messages"][0]["content"] == "< |im_end|>< s>" * 1000
    assert call_key(call) == call_key(dataclasses.replace(call))
    assert at_most(call).prompt_tokens >= len(sent["messages"][0]["content"].encode())
