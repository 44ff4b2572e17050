"""How many tokens a call takes at most, and as expected."""

from dataclasses import replace

import orjson
import pytest

from lrq.calls.estimates import Expectation, at_most, counted
from lrq.calls.forms import Form
from lrq.calls.outcomes import read_outcome
from lrq.domain.records import Call, Choice, Purpose, Usage

CALL = Call(role="judge", endpoint="e", model="m", messages=({"role": "user", "content": "x" * 100},), max_tokens=40)
PURPOSE = Purpose(run=1, kind="support")


@pytest.mark.parametrize(
    ("call", "prompt", "completion"),
    [
        (CALL, 164, 40),  # a byte a token, and 64 for the template
        (replace(CALL, messages=({"role": "user", "content": "货轮"},)), 70, 40),  # six bytes
        (replace(CALL, messages=({"role": "user", "content": "\ufdfa"},)), 97, 40),  # one character, 33 bytes in NFKC
        (replace(CALL, messages=({"role": "user", "content": "\uff21\u8d27"},)), 70, 40),  # shorter in NFKC
        (replace(CALL, messages=({"role": "user", "content": "\u00e9"},)), 67, 40),  # three bytes in NFD
        (replace(CALL, messages=CALL.messages * 2), 328, 40),
        (replace(CALL, n=3), 164, 120),
        (replace(CALL, extra={"max_tokens": 500}), 182, 500),  # the settings' own fields go over ours
        (replace(CALL, extra={"max_tokens": None, "max_completion_tokens": 900}), 211, 900),
        (replace(CALL, extra={"n": 5}), 171, 200),
        (replace(CALL, extra={"best_of": 5}), 177, 200),
        (replace(CALL, extra={"max_tokens": -5, "n": -1}), 188, 32_768),  # of a run frozen before such were refused
        (replace(CALL, extra={"tools": ["x" * 1000]}), 1178, 40),  # read by the model, and charged
        (replace(CALL, max_tokens=None), 164, 32_768),  # without a limit: never nothing
        (Call(role="embedding", endpoint="e", model="m", input=("ab", "c")), 131, 0),
    ],
)
def test_the_bound_covers_what_the_request_allows(call: Call, prompt: int, completion: int) -> None:
    """A budget that holds is reserved at it."""
    assert at_most(call) == Usage(prompt_tokens=prompt, completion_tokens=completion)


REPLY = [Choice(text="[[7]]", reasoning="so")]


@pytest.mark.parametrize(
    ("usage", "charged"),
    [
        (Usage(prompt_tokens=30, completion_tokens=3), Usage(prompt_tokens=30, completion_tokens=3)),
        (Usage(), Usage(prompt_tokens=164, completion_tokens=7)),
        (Usage(prompt_tokens=30), Usage(prompt_tokens=30, completion_tokens=7)),
        (Usage(completion_tokens=3), Usage(prompt_tokens=164, completion_tokens=3)),
    ],
)
def test_what_a_server_does_not_count_is_charged_by_its_bytes(usage: Usage, charged: Usage) -> None:
    """Each side for itself; the row says so."""
    found, note = counted(CALL, REPLY, usage)
    assert found == charged
    assert bool(note) == (found != usage)


def test_an_empty_reply_without_completion_tokens_is_no_estimate() -> None:
    """Nothing was said, and the server counted nothing: it is right."""
    usage = Usage(prompt_tokens=30)
    assert counted(CALL, [Choice(text="")], usage) == (usage, "")


def test_an_estimate_stays_within_the_bound() -> None:
    """Forty tokens were allowed: no more are charged, however many bytes they had."""
    found, _ = counted(CALL, [Choice(text="货" * 1000)], Usage())
    assert found.completion_tokens == 40


def test_before_anything_is_counted_the_expectation_is_a_guess_by_bytes() -> None:
    """100 bytes at 0.28, and a quarter of the reply's limit."""
    assert Expectation().tokens(CALL, PURPOSE) == 38
    assert Expectation().tokens(replace(CALL, n=4), PURPOSE) == 68


def test_expectations_follow_what_is_counted() -> None:
    """The first count is believed, later ones move the mean; other kinds and models learn nothing from it."""
    learnt = Expectation()
    learnt.learn(CALL, PURPOSE, Usage(prompt_tokens=20, completion_tokens=4))
    assert learnt.tokens(CALL, PURPOSE) == 24
    for _ in range(200):
        learnt.learn(CALL, PURPOSE, Usage(prompt_tokens=60, completion_tokens=10))
    assert learnt.tokens(CALL, PURPOSE) == 70
    assert learnt.tokens(CALL, replace(PURPOSE, kind="statements")) == 70  # 60, and a quarter of 40
    assert learnt.tokens(replace(CALL, model="other"), PURPOSE) == 38


def test_a_reply_that_was_not_counted_teaches_nothing() -> None:
    """Zeros are no counts."""
    learnt = Expectation()
    learnt.learn(CALL, PURPOSE, Usage())
    assert learnt.tokens(CALL, PURPOSE) == 38


def test_embeddings_are_measured_in_bytes_too() -> None:
    """Six bytes of Chinese and a hundred of English: 106 × 0.28."""
    call = Call(role="embedding", endpoint="e", model="m", input=("货轮", "x" * 100))
    assert Expectation().tokens(call, PURPOSE) == 30


@pytest.mark.parametrize("usage", [Usage(prompt_tokens=10**8, completion_tokens=3), Usage(prompt_tokens=40_000)])
def test_a_count_that_nothing_explains_is_none(usage: Usage) -> None:
    """Beyond the bytes, the template and what a gateway may add."""
    found, note = counted(CALL, REPLY, usage)
    assert found.prompt_tokens == 164
    assert "cannot be" in note


def test_a_count_above_the_bound_is_believed_where_it_may_be_true() -> None:
    """A hidden system prompt, or thoughts that no limit holds."""
    usage = Usage(prompt_tokens=9_000, completion_tokens=30_000, reasoning_tokens=29_000)
    assert counted(CALL, REPLY, usage) == (usage, "")


def test_a_reply_that_was_cut_has_used_its_limit() -> None:
    """Even where nothing of it is shown, and nothing counted."""
    found, note = counted(CALL, [Choice(text="", finish="length")], Usage(prompt_tokens=30))
    assert (found.completion_tokens, bool(note)) == (40, True)
    room = counted(CALL, [Choice(text="", finish="length")], Usage(prompt_tokens=30), Form(room=1000))
    assert room[0].completion_tokens == 1040


def test_bounds_allow_for_what_a_server_was_seen_to_count() -> None:
    """By a factor for each side, rounded up, and for the limit that is sent."""
    form = Form(prompt_factor=2.5, completion_factor=1.5, room=100)
    assert at_most(CALL, form) == Usage(prompt_tokens=410, completion_tokens=210)
    assert at_most(replace(CALL, n=3), Form(refused=frozenset({"n"}))).completion_tokens == 40


@pytest.mark.parametrize(
    ("total", "written", "finish", "prompt", "completion"),
    [
        (130, "x" * 100, "stop", 102, 28),  # 0.28 tokens to a byte
        (500, "x" * 100, "stop", 264, 236),  # 200 bytes and a message's template are 264 tokens at most
        (130, "x" * 100, "length", 80, 50),  # cut: all of its limit
        (10, "x" * 100, "stop", 1, 9),
        (1, "x" * 100, "stop", 1, 0),
    ],
)
def test_a_lone_total_is_parted(total: int, written: str, finish: str, prompt: int, completion: int) -> None:
    """Its parts are what their texts can have, add up to it, and are marked as estimates."""
    call = Call(
        role="judge", endpoint="e", model="m", messages=({"role": "user", "content": "y" * 200},), max_tokens=50
    )
    body = {
        "choices": [{"message": {"content": written}, "finish_reason": finish}],
        "usage": {"total_tokens": total},
    }
    outcome = read_outcome(call, 200, {}, orjson.dumps(body))
    assert (outcome.usage.prompt_tokens, outcome.usage.completion_tokens) == (prompt, completion)
    assert outcome.note == "the server counted only a total: its parts are estimated"


def test_a_total_beside_a_count_is_no_estimate() -> None:
    """What one count leaves of the total is the other."""
    call = Call(
        role="judge", endpoint="e", model="m", messages=({"role": "user", "content": "y" * 200},), max_tokens=50
    )
    body = {"choices": [{"message": {"content": "x"}}], "usage": {"total_tokens": 90, "prompt_tokens": 70}}
    outcome = read_outcome(call, 200, {}, orjson.dumps(body))
    assert (outcome.usage.prompt_tokens, outcome.usage.completion_tokens, outcome.note) == (70, 20, "")
