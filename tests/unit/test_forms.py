"""The form of requests: what a refusal's words ask for, and what is sent then."""

from dataclasses import replace
from typing import Any

import pytest

from lrq.calls.forms import PLAIN, Change, Form, changes, limit_of, parameters
from lrq.domain.records import Call

EXTRA = {"reasoning_effort": "low", "user": "u", "presence_penalty": 0.1}
CALL = Call(role="judge", endpoint="e", model="m", temperature=0.01, top_p=1.0, max_tokens=512, seed=3, n=4)
SENT = parameters(replace(CALL, extra=EXTRA))


def error(message: str, param: str | None = None) -> dict[str, Any]:
    return {"error": {"message": message, "type": "invalid_request_error", "param": param, "code": None}}


def refused(*names: str) -> list[Change]:
    return [Change(topic="refused", name=name) for name in names]


INSTEAD = "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
ONLY_ONE = "Unsupported value: 'temperature' does not support 0.01 with this model. Only the default (1) is supported."
LITELLM = "litellm.UnsupportedParamsError: it does not support parameters: ['seed'], for x. To drop these, set `d`"
FORBIDDEN = {"type": "extra_forbidden", "loc": ["body", "seed"], "msg": "Extra inputs are not permitted", "input": 0}


@pytest.mark.parametrize(
    ("body", "asked"),
    [
        (error(INSTEAD, "max_tokens"), refused("max_tokens")),
        (error(INSTEAD), refused("max_tokens")),
        (error(ONLY_ONE, "temperature"), refused("temperature")),
        (error(ONLY_ONE), refused("temperature")),
        (error("something is odd", "temperature"), refused("temperature")),
        (error("`temperature` and `top_p` cannot both be specified. Please use only one."), refused("top_p")),
        (error("n must be 1"), refused("n")),
        (error("Only one candidate can be specified in the current model"), refused("n")),
        (error(LITELLM), refused("seed")),
        ({"detail": [FORBIDDEN]}, refused("seed")),
        ({"object": "error", "message": {"detail": [FORBIDDEN]}}, refused("seed")),
        ({"message": str([FORBIDDEN | {"loc": ("body", "seed")}])}, refused("seed")),
        (error("Unrecognized request argument supplied: seed"), refused("seed")),
        (error("Extra inputs are not permitted, field: 'seed', value: 0"), refused("seed")),
        ({"message": "invalid request: seed is not a supported parameter"}, refused("seed")),
        ([error('Invalid JSON payload received. Unknown name "seed": Cannot find field.')], refused("seed")),
        (error("Unsupported parameter: seed. Supported parameters: temperature, top_p, max_tokens"), refused("seed")),
        (error("reasoning models do not support presencePenalty"), refused("presence_penalty")),
        (error("Argument not supported on this model: reasoningEffort"), refused("reasoning_effort")),
    ],
)
def test_a_parameter_that_is_not_taken_is_left_out(body: Any, asked: list[Change]) -> None:
    """In the words of many servers, by their `param`, their list of places or their sentence alone."""
    assert changes(SENT, 400, body) == asked
    assert changes(SENT, 422, body) == asked


@pytest.mark.parametrize(
    ("message", "ceiling"),
    [
        ("max_tokens must be <= 256", 256),
        ("max_tokens is too large: 512. This model supports at most 256 completion tokens, you provided 512.", 256),
        ("Invalid max_tokens value, the valid range of max_tokens is [1, 256]", 256),
        ("max_tokens: 512 > 256, the maximum allowed number of output tokens for some-model-20241022", 256),
        ("`max_completion_tokens` must be less than or equal to `256`, which is less than the `context_window`", 256),
        ("it has a maxOutputTokens value of 512 but the range is from 1 (inclusive) to 257 (exclusive)", 256),
    ],
)
def test_a_ceiling_of_the_limit_is_read(message: str, ceiling: float) -> None:
    """The largest number below what was sent, and no number that belongs to a name."""
    assert changes(SENT, 400, error(message)) == [Change(topic="most", name="max_tokens", value=ceiling)]


@pytest.mark.parametrize(
    ("message", "change"),
    [
        ("temperature must be > 0.05", Change(topic="least", name="temperature", value=0.06)),
        ("temperature must be in (0.1, 1.0]", Change(topic="least", name="temperature", value=0.11)),
        ("temperature should be between 0.2 and 1", Change(topic="least", name="temperature", value=0.2)),
    ],
)
def test_a_value_out_of_range_is_brought_to_its_nearest_end(message: str, change: Change) -> None:
    """An open end is a hundredth away."""
    assert changes(SENT, 400, error(message)) == [change]


@pytest.mark.parametrize(
    "message",
    [
        "This model's maximum context length is 8192 tokens. However, you requested 9000 tokens (8488 in the messages, "
        "512 in the completion). Please reduce the length of the messages or completion.",
        "'max_tokens' or 'max_completion_tokens' is too large: 512. This model's maximum context length is 8192 tokens "
        "and your request has 8000 input tokens (512 > 8192 - 8000).",
    ],
)
def test_a_context_is_no_ceiling(message: str) -> None:
    """What one prompt leaves of it says nothing of another."""
    assert changes(SENT, 400, error(message, "max_tokens")) == [Change(topic="context", name="", value=8192)]


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (400, error("messages: role 'user' must alternate, others are not allowed")),
        (400, error("The response was filtered due to the content management policy: temperature invalid", "prompt")),
        (400, error("The model `x` does not exist")),
        (400, error("logprobs is not supported")),
        (400, error("stop repeating yourself, this is not supported")),
        (400, {"detail": [{"loc": ["body", "messages", 0], "msg": "invalid", "input": "'seed' is not supported"}]}),
        (403, error("seed is not supported")),
        (429, error("n must be 1")),
        (400, None),
        (400, "no"),
    ],
)
def test_other_refusals_change_nothing(status: int, body: Any) -> None:
    """Roles, documents that are repeated, filters and other statuses are not about our parameters."""
    assert changes(SENT, status, body) == []


def test_the_limit_goes_under_the_name_that_is_taken() -> None:
    """The first that is not refused; where all are, none is sent."""
    form = Form(refused=frozenset({"max_tokens"}))
    assert "max_tokens" not in parameters(CALL, form)
    assert parameters(CALL, form)["max_completion_tokens"] == 512
    none = Form(refused=frozenset({"max_tokens", "max_completion_tokens"}))
    assert limit_of(parameters(CALL, none)) is None
    told = replace(CALL, extra={"max_tokens": 900})
    assert parameters(told, form)["max_completion_tokens"] == 900


def test_what_the_settings_leave_out_stays_out() -> None:
    """Null in `extra` goes over every form."""
    assert limit_of(parameters(replace(CALL, extra={"max_tokens": None}), Form(room=100))) is None


def test_values_stay_within_their_bounds() -> None:
    """Whole numbers stay whole."""
    sent = parameters(CALL, Form(most={"max_tokens": 256.0}, least={"temperature": 0.1}))
    assert (sent["max_tokens"], sent["temperature"]) == (256, 0.1)
    assert type(sent["max_tokens"]) is int


def test_room_is_added_to_the_question_s_own_limit() -> None:
    """As far as the context allows beside the prompt, and never less than the question's own."""
    call = replace(CALL, messages=({"role": "user", "content": "x" * 1000},))
    assert parameters(call, Form(room=4096))["max_tokens"] == 4608
    assert parameters(call, Form(room=4096, context=2000))["max_tokens"] == 2000 - 300
    assert parameters(call, Form(room=4096, context=600))["max_tokens"] == 512
    assert parameters(call, PLAIN)["max_tokens"] == 512
