"""What is made of a server's status, headers and body."""

import copy
import json
import math
import time
from collections.abc import Iterator
from email.utils import formatdate
from typing import Any

import orjson
import pytest

from lrq.calls import replies
from lrq.calls.errors import line_of
from lrq.calls.outcomes import Outcome, read_outcome
from lrq.calls.transport import _request
from lrq.domain.records import Call, Usage

CHAT = Call(role="judge", endpoint="e", model="m", messages=({"role": "user", "content": "q"},), max_tokens=9)
EMBEDDING = Call(role="embedding", endpoint="e", model="m", input=("a", "b"))


def read(body: Any, status: int = 200, call: Call = CHAT, **headers: str) -> Outcome:
    raw = body if isinstance(body, bytes) else orjson.dumps(body)
    return read_outcome(call, status, {name.replace("_", "-"): value for name, value in headers.items()}, raw)


def chat(message: Any, finish: Any = "stop", **more: Any) -> dict[str, Any]:
    return {"choices": [{"message": message, "finish_reason": finish}], **more}


def failed(status: int, code: str = "", message: str = "m", kind: str = "") -> Outcome:
    return read({"error": {"message": message, "code": code, "type": kind}}, status)


def test_a_reply_is_its_text_finish_and_counts() -> None:
    """Usage as OpenAI gives it, with what its cache saved."""
    usage = {"prompt_tokens": 12, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 8}}
    outcome = read(chat({"content": "[[7]]"}, "length", usage=usage))
    assert (outcome.kind, outcome.unknown) == ("ok", False)
    assert [(one.text, one.finish, one.reasoning) for one in outcome.choices] == [("[[7]]", "length", "")]
    assert outcome.usage == Usage(prompt_tokens=12, completion_tokens=3, cached_tokens=8)


@pytest.mark.parametrize(
    ("message", "text", "reasoning"),
    [
        ({"content": "a", "reasoning_content": "r"}, "a", "r"),
        ({"content": "a", "reasoning": "r"}, "a", "r"),
        ({"content": "<think>r</think>\n\na"}, "a", "r"),
        ({"content": "r [[9]]</think>a"}, "a", "r [[9]]"),  # some templates open the mark in the prompt
        ({"content": None}, "", ""),
        ({"content": None, "reasoning_content": "a"}, "a", ""),  # it has ended, so that is the answer
        ({"content": "", "reasoning": "r</think>a"}, "a", "r"),
        ({"content": "[THINK]r[/THINK]a", "reasoning": "q"}, "a", "q\nr"),
        ({"content": "<think>r"}, "", "r"),  # it never ends
        ({"content": "<think>r</think>"}, "<think>r</think>", ""),  # whoever reads it may look into it
        ({"content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}, "ab", ""),
        ({"content": [{"type": "thinking", "thinking": [{"text": "r"}]}, {"type": "text", "text": "a"}]}, "a", "r"),
        ({"content": [{"type": "reasoning", "text": "r"}, {"type": "text", "text": "a"}]}, "a", "r"),
        ({"content": [{"thought": True, "text": "r"}, {"text": "a"}]}, "a", "r"),
        ({"content": "a", "reasoning": {"summary": ["r"]}}, "a", "r"),
        ({"content": "a", "reasoning": 7}, "a", ""),
        ({"content": "a", "thinking": "r"}, "a", "r"),
        ({"content": None, "thinking": "a"}, "a", ""),
        ({}, "", ""),
        (None, "", ""),
    ],
)
def test_reasoning_is_kept_apart_from_the_answer(message: Any, text: str, reasoning: str) -> None:
    """In a field of its own, or left in the text by servers that do not part it."""
    (choice,) = read(chat(message)).choices
    assert (choice.text, choice.reasoning) == (text, reasoning)


def test_reasoning_of_a_reply_that_was_cut_is_no_answer() -> None:
    """The thinking used up its room."""
    (choice,) = read(chat({"content": None, "reasoning_content": "r [[3]]"}, "length")).choices
    assert (choice.text, choice.reasoning, choice.finish) == ("", "r [[3]]", "length")


def test_a_refusal_in_a_field_of_its_own_is_none_of_the_answers() -> None:
    """Its words are kept, under a finish of their own."""
    (choice,) = read(chat({"content": None, "refusal": "I can't help with that."})).choices
    assert (choice.text, choice.finish) == ("I can't help with that.", "refusal")


@pytest.mark.parametrize(
    ("counted", "usage"),
    [
        ({"prompt_tokens": 5}, Usage(prompt_tokens=5)),
        ({"prompt_tokens": 5, "prompt_cache_hit_tokens": 4}, Usage(prompt_tokens=5, cached_tokens=4)),
        ({"prompt_tokens": 5, "prompt_cache_hit_tokens": 9}, Usage(prompt_tokens=5, cached_tokens=5)),
        ({"total_tokens": 7}, Usage(prompt_tokens=7)),
        ({"total_tokens": 7, "completion_tokens": 2}, Usage(prompt_tokens=5, completion_tokens=2)),
        ({"prompt_tokens": -3, "completion_tokens": None}, Usage()),
        ({"prompt_tokens": 10**12}, Usage()),
        ({"prompt_tokens": "many", "completion_tokens": True}, Usage()),
        ({"prompt_tokens": 1e30, "completion_tokens": 2.5}, Usage()),
        ({"prompt_tokens": {"n": 5}, "prompt_tokens_details": [5]}, Usage()),
        ({"prompt_tokens": 5.0, "output_tokens": 2}, Usage(prompt_tokens=5, completion_tokens=2)),
        ({"prompt_tokens": 5, "completion_tokens": 0, "total_tokens": 14}, Usage(prompt_tokens=5, completion_tokens=9)),
        ({"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 14}, Usage(prompt_tokens=5, completion_tokens=9)),
        (
            {"prompt_tokens": 5, "completion_tokens": 9, "completion_tokens_details": {"reasoning_tokens": 7}},
            Usage(prompt_tokens=5, completion_tokens=9, reasoning_tokens=7),
        ),
        ({"input_tokens": 5, "output_tokens": 2}, Usage(prompt_tokens=5, completion_tokens=2)),
        (  # Anthropic's: what the cache holds is beside the input
            {"input_tokens": 5, "cache_read_input_tokens": 90, "cache_creation_input_tokens": 10, "output_tokens": 3},
            Usage(prompt_tokens=105, completion_tokens=3, cached_tokens=90),
        ),
        (  # the same as gateways write it
            {"prompt_tokens": 105, "completion_tokens": 3, "cache_read_input_tokens": 90},
            Usage(prompt_tokens=105, completion_tokens=3, cached_tokens=90),
        ),
        (
            {
                "input_tokens": 50,
                "input_tokens_details": {"cached_tokens": 40},
                "output_tokens": 20,
                "output_tokens_details": {"reasoning_tokens": 15},
            },
            Usage(prompt_tokens=50, completion_tokens=20, cached_tokens=40, reasoning_tokens=15),
        ),
        ({"inputTokens": 5, "outputTokens": 3, "totalTokens": 8}, Usage(prompt_tokens=5, completion_tokens=3)),
        (
            {"promptTokenCount": 50, "candidatesTokenCount": 4, "thoughtsTokenCount": 30, "totalTokenCount": 84},
            Usage(prompt_tokens=50, completion_tokens=34, reasoning_tokens=30),
        ),
        ([1], Usage()),
        (None, Usage()),
    ],
)
def test_counts_are_whole_and_never_negative(counted: Any, usage: Usage) -> None:
    """What is no count is none, and costs no reply; what only the total holds is completion."""
    assert read(chat({"content": "a"}, usage=counted)).usage == usage


def test_google_s_counts_stand_under_a_name_of_their_own() -> None:
    """Some gateways pass them through."""
    counted = {"promptTokenCount": 5, "totalTokenCount": 9, "cachedContentTokenCount": 3}
    outcome = read(chat({"content": "a"}, usageMetadata=counted))
    assert outcome.usage == Usage(prompt_tokens=5, completion_tokens=4, cached_tokens=3)


@pytest.mark.parametrize(
    "body",
    [
        {},
        [],
        {"choices": None},
        {"choices": "a"},
        {"choices": ["a"]},
        chat({"content": 7}),
        chat({"content": {"text": "a"}}),
        b"",
        b"[" * 100_000,
    ],
)
def test_what_is_no_reply_is_a_failure_that_may_be_charged(body: Any) -> None:
    """Nothing is raised, nothing is taken for an empty answer; what came is known by its length."""
    outcome = read(body)
    assert (outcome.kind, outcome.unknown, list(outcome.choices)) == ("failed", False, [])
    assert outcome.unread == len(body if isinstance(body, bytes) else orjson.dumps(body))
    assert outcome.reason


REPLY = {
    "id": "r",
    "object": "chat.completion",
    "model": "m",
    "error": None,
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": [{"type": "text", "text": "[[7]]"}], "reasoning": "r"},
            "finish_reason": "stop",
            "error": None,
        }
    ],
    "usage": {"prompt_tokens": 5, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 1}},
}
ODD = [None, True, 0, -1, 1e300, "", "x", [], [[]], [None], [1], {}, {"type": "stop"}, {"a": {"b": [None]}}]


def variants(body: Any, odd: Any) -> Iterator[Any]:
    """Yield the body with `odd` in the place of each of its values, one after another."""
    yield odd
    for place in body if isinstance(body, dict) else range(len(body)) if isinstance(body, list) else ():
        for value in variants(body[place], odd):
            changed = copy.copy(body)
            changed[place] = value
            yield changed


@pytest.mark.parametrize("odd", ODD, ids=repr)
def test_whatever_stands_in_a_reply_nothing_is_raised(odd: Any) -> None:
    """A reply that was paid for would pass for none, and be asked for again."""
    for body in variants(REPLY, odd):
        outcome = read(body)
        assert outcome.kind in {"ok", "failed"}, body
        assert not outcome.unknown, body
        assert all(isinstance(choice.finish, str) for choice in outcome.choices), body
    for error in variants({"error": {"message": "m", "code": 1, "details": [{"a": 1}]}}, odd):
        assert read(error, 400).kind in {"refused", "account", "denied", "throttled"}, error


@pytest.mark.parametrize(
    ("reason", "finish"), [({"type": "stop", "matched": 2}, "stop"), (None, "stop"), (1, "1"), ({}, "None")]
)
def test_a_finish_reason_is_a_word(reason: Any, finish: str) -> None:
    """In a record it is its type; what has none is no end."""
    assert [choice.finish for choice in read(chat({"content": "a"}, reason)).choices] == [finish]


@pytest.mark.parametrize("form", [{"text": "a"}, {"delta": {"content": "a"}}, {"message": None, "text": "a"}])
def test_a_text_in_another_place_is_a_reply(form: dict[str, Any]) -> None:
    """Gateways answer in the form of completions, or of a stream's one and only piece."""
    assert [choice.text for choice in read({"choices": [form]}).choices] == ["a"]


def test_a_page_instead_of_a_reply_is_charged_to_nobody() -> None:
    """A proxy's or a portal's: no model has answered, and a budget must not go into it."""
    outcome = read(b"\n<!DOCTYPE html><p>Welcome</p>")
    assert (outcome.kind, outcome.unknown) == ("failed", False)
    assert outcome.reason == "HTTP 200: a page in place of a reply: Welcome"


def test_a_reply_without_choices_is_an_empty_one() -> None:
    """Some servers answer so when a filter has struck: it was paid for, and is asked again as unreadable."""
    outcome = read({"choices": [], "usage": {"prompt_tokens": 3}})
    assert [(one.text, one.finish) for one in outcome.choices] == [("", "empty")]


def test_half_a_character_does_not_cost_a_reply() -> None:
    """A text cut within a surrogate pair, or within a byte sequence, is read all the same."""
    half = json.dumps(chat({"content": "[[7]] \ud83d"})).encode()
    assert read(half).choices[0].text == "[[7]] ?"
    torn = orjson.dumps(chat({"content": "[[7]] X"})).replace(b"X", b"\xe4\xbd")
    assert read(torn).choices[0].text == "[[7]] \ufffd"


def test_vectors_come_in_the_order_of_their_texts() -> None:
    """Whatever order the server sends them in."""
    data = [{"index": 1, "embedding": [3, 4]}, {"index": 0, "embedding": [1, 2]}]
    outcome = read({"data": data, "usage": {"total_tokens": 4}}, call=EMBEDDING)
    assert outcome.vectors == [[1.0, 2.0], [3.0, 4.0]]
    assert outcome.usage == Usage(prompt_tokens=4)


@pytest.mark.parametrize("number", ["NaN", "null"])
def test_a_number_that_is_none_is_kept_as_such(number: str) -> None:
    """The reply was paid for, and the other texts have their vectors."""
    body = f'{{"data": [{{"embedding": [1, {number}]}}, {{"embedding": [3, 4]}}]}}'
    outcome = read(body.encode(), call=EMBEDDING)
    assert (outcome.kind, math.isnan(outcome.vectors[0][1]), outcome.vectors[1]) == ("ok", True, [3.0, 4.0])


@pytest.mark.parametrize(
    "data",
    [
        [],
        None,
        [{"embedding": [1]}],  # one of two
        [{"embedding": [1]}, {"embedding": []}],
        [{"embedding": [1]}, {"embedding": [1, 2]}],
        [{"embedding": "AAAA"}, {"embedding": "AAAA"}],
        [{"embedding": [1]}, {"embedding": ["a"]}],
    ],
)
def test_vectors_that_do_not_fit_are_a_failure(data: Any) -> None:
    """One for each text, all of one length: else passages would be matched with others' vectors."""
    outcome = read({"data": data}, call=EMBEDDING)
    assert (outcome.kind, outcome.unknown, list(outcome.vectors)) == ("failed", False, [])
    assert outcome.unread


@pytest.mark.parametrize(
    ("status", "code", "kind", "unknown"),
    [
        (400, "context_length_exceeded", "refused", False),
        (413, "", "refused", False),
        (415, "", "refused", False),
        (422, "", "refused", False),
        (451, "", "refused", False),
        (401, "", "account", False),
        (402, "", "account", False),
        (403, "", "denied", False),
        (404, "model_not_found", "denied", False),
        (405, "", "denied", False),
        (301, "", "account", False),
        (308, "", "account", False),
        (400, "Arrearage", "account", False),
        (429, "insufficient_quota", "account", False),
        (429, "1113", "account", False),
        (429, "1302", "throttled", False),
        (429, "rate_limit_exceeded", "throttled", False),
        (429, "", "throttled", False),
        (408, "", "failed", False),
        (409, "", "failed", False),
        (425, "", "failed", False),
        (500, "", "failed", False),
        (502, "", "failed", False),
        (503, "", "failed", False),
        (504, "", "failed", True),
        (524, "", "failed", True),
        (529, "", "failed", False),
        (202, "", "failed", False),
    ],
)
def test_failures_are_told_apart_by_who_can_mend_them(status: int, code: str, kind: str, unknown: bool) -> None:
    """The request, the account, or time; a gateway that gave up may have been answered."""
    outcome = failed(status, code)
    assert (outcome.kind, outcome.unknown, outcome.status) == (kind, unknown, status)


def test_quota_may_stand_in_the_type() -> None:
    """OpenAI names it twice, others once."""
    assert failed(429, kind="insufficient_quota").kind == "account"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"error": {"message": "too\nlong\x00\x1b[31m"}}, "HTTP 400: too long [31m"),
        ({"error": "plain words"}, "HTTP 400: plain words"),
        ({"message": "without an error"}, "HTTP 400: without an error"),
        ({"error": {"code": "only_code"}}, "HTTP 400: only_code"),
        (b"\xff\xfe nothing", "HTTP 400: \ufffd\ufffd nothing"),
        ([1], "HTTP 400: [1]"),
        (b"", "HTTP 400: "),
    ],
)
def test_the_server_s_words_become_one_printable_line(body: Any, reason: str) -> None:
    """Fit for a log, a terminal and any database."""
    assert read(body, 400).reason == reason


def test_a_reason_is_bounded() -> None:
    """A page of a megabyte is not kept for every call."""
    assert len(read(b"x" * 10**6, 500).reason) < 400
    assert len(line_of("x\n" * 10**6)) <= 300


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("7", 7.0), ("0.5", 0.5), ("-3", 0.0), ("nan", None), ("soon", None), ("", None), ("inf", None)],
)
def test_retry_after_in_seconds(value: str, seconds: float | None) -> None:
    """What is no number is no wish; a negative one is now."""
    assert read({}, 429, Retry_After=value).retry_after == seconds


@pytest.mark.parametrize(("value", "seconds"), [("250", 0.25), ("-3", None), ("9" * 400, None), ("²", None)])
def test_retry_after_in_milliseconds(value: str, seconds: float | None) -> None:
    """A number beyond all numbers would reach the limiter of all processes as none."""
    assert read({}, 429, retry_after_ms=value).retry_after == seconds


@pytest.mark.parametrize(("ahead", "low", "high"), [(100, 98, 101), (-100, 0, 0)])
def test_retry_after_as_a_date(ahead: int, low: float, high: float) -> None:
    """One that is past is now."""
    after = read({}, 503, Retry_After=formatdate(time.time() + ahead, usegmt=True)).retry_after
    assert after is not None
    assert low <= after <= high


def test_no_retry_after_is_none() -> None:
    """The client then waits by its own rule."""
    assert read({}, 429).retry_after is None


def test_the_body_of_a_request_holds_what_is_set() -> None:
    """Parameters that nobody set are left to the server; n stands in it where it is more than one."""
    assert _request(CHAT) == (
        "/chat/completions",
        {"model": "m", "messages": [{"role": "user", "content": "q"}], "max_tokens": 9},
    )
    assert _request(EMBEDDING) == ("/embeddings", {"model": "m", "input": ["a", "b"]})
    several = Call(role="policy", endpoint="e", model="m", n=3, temperature=1.0, top_p=0.9, seed=5)
    assert _request(several)[1] == {"model": "m", "messages": [], "temperature": 1.0, "top_p": 0.9, "seed": 5, "n": 3}


def test_extra_fields_go_over_the_others_and_null_leaves_one_out() -> None:
    """Reasoning models refuse max_tokens and temperatures; the settings can say so."""
    extra = {"max_completion_tokens": 500, "max_tokens": None, "temperature": None, "reasoning_effort": "low"}
    call = Call(role="judge", endpoint="e", model="m", temperature=0.01, max_tokens=9, extra=extra)
    assert _request(call)[1] == {
        "model": "m",
        "messages": [],
        "max_completion_tokens": 500,
        "reasoning_effort": "low",
    }


def test_token_ids_are_read_and_survive_the_ledger() -> None:
    """`token_ids` of a choice, as vLLM and SGLang give them; anything else under that name is none."""
    body = {
        "choices": [
            {"message": {"content": "Seven."}, "token_ids": [5, 6, 7]},
            {"message": {"content": "Eight."}, "token_ids": ["5"]},
            {"message": {"content": "Nine."}},
        ]
    }
    outcome = read_outcome(Call(role="policy", endpoint="e", model="m"), 200, {}, orjson.dumps(body))
    assert [tuple(choice.ids) for choice in outcome.choices] == [(5, 6, 7), (), ()]
    choices, _ = replies.decode_body(replies.encode(outcome.choices))
    assert choices == list(outcome.choices)
