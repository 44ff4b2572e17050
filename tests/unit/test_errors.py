"""What is read from an error's body: words, numbers and waits."""

from typing import Any

import orjson
import pytest

from lrq.calls.errors import line_of, read_error


def read(body: Any) -> Any:
    return read_error(body, orjson.dumps(body))


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({"error": {"message": "too long", "code": 1}}, "too long"),
        ({"error": "too long"}, "too long"),
        ([{"error": {"message": "too long"}}], "too long"),
        ({"message": "too long"}, "too long"),
        ({"msg": "too long", "code": 1}, "too long"),
        ({"error_msg": "too long", "error_code": 336003}, "too long"),
        ({"detail": "too long"}, "too long"),
        ({"errors": [{"message": "too long"}, {"message": "and odd"}]}, "too long; and odd"),
        ({"detail": [{"loc": ["body", "messages", 0], "msg": "is no list"}]}, "body.messages.0: is no list"),
        ({"message": {"detail": [{"type": "extra_forbidden", "loc": ["body", "seed"]}]}}, "body.seed: extra_forbidden"),
        ({"base_resp": {"status_code": 2013, "status_msg": "odd params"}}, "odd params"),
        ({"title": "Bad Request", "detail": "too long"}, "too long; Bad Request"),
        (
            {"error": {"message": "Provider returned error", "metadata": {"raw": '{"error":{"message":"No room"}}'}}},
            "Provider returned error; No room",
        ),
        ({"error": {"message": '{"error":{"message":"No room"}}'}}, "No room"),
        (
            {"error": {"message": "Flagged for violence.", "metadata": {"reasons": ["violence"]}}},
            "Flagged for violence.",
        ),
        ({"error": {"code": "only_code"}}, "only_code"),
        ({"odd": [1, 2]}, '{"odd":[1,2]}'),
        ("plain words", "plain words"),
    ],
)
def test_the_words_are_found_under_whatever_key_they_stand(body: Any, text: str) -> None:
    """Every vendor's shape; where there are none, the body itself."""
    assert read(body).text == text


@pytest.mark.parametrize(
    ("body", "seconds"),
    [
        ({"error": {"details": [{"retryDelay": "10.3s"}]}}, 10.3),
        ({"error": {"details": [{"retryDelay": {"seconds": 7}}]}}, 7.0),
        ({"retry_after": 5}, 5.0),
        ({"retry_after_ms": 250}, 0.25),
        ({"error": "loading", "estimated_time": 20.0}, 20.0),
        ({"message": "Please retry in 10.3s."}, 10.3),
        ({"message": "Please try again in 7m12.5s. See the docs"}, 432.5),
        ({"message": "Try again in 20ms"}, 0.02),
        ({"message": "Please retry after 10 seconds."}, 10.0),
        ({"message": "try again after 1 hour"}, 3600.0),
        ({"message": "wait for 2 minutes"}, 120.0),
        ({"message": "try again later"}, None),
        ({"message": "retry in 3 models"}, None),
        ({"retry_after": -1}, None),
        ({"retry_after": "soon"}, None),
    ],
)
def test_a_wait_is_read_from_fields_and_words(body: Any, seconds: float | None) -> None:
    """As Retry-After would be."""
    assert read(body).retry_after == (None if seconds is None else pytest.approx(seconds))


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"error": {"code": 429}}, 429),
        ({"error": {"code": "402"}}, 402),
        ({"error": {"code": 400, "message": '{"error":{"code":429}}'}}, 429),
        ({"error": {"code": 502, "metadata": {"raw": '{"code": 500}'}}}, 502),
        ({"error": {"code": 7003}}, 0),
        ({"error": {"code": "insufficient_quota"}}, 0),
        ({}, 0),
    ],
)
def test_a_body_may_name_a_status(body: Any, status: int) -> None:
    """One that a gateway quotes goes before its own where it tells who is at fault."""
    assert read(body).status == status


@pytest.mark.parametrize(
    "body",
    [
        {"error": [[[[[[[[[[[[[[[[{"message": "deep"}]]]]]]]]]]]]]]]]},
        {"error": {"message": "[" * 5_000}},
        {"error": {"message": "{" * 5_000}},
        {"errors": [{"message": "x" * 5_000}] * 5_000},
        {str(number): {"code": number} for number in range(5_000)},
        {"error": {"message": "token " * 50_000, "code": "c" * 10_000}},
    ],
)
def test_a_hostile_body_is_a_line_like_any_other(body: Any) -> None:
    """Deep, wide or endless: what is looked at has a bound."""
    error = read(body)
    assert 0 < len(error.text) <= 300
    assert len(error.searchable) <= 8_000


def test_a_line_drives_no_terminal() -> None:
    """Control characters, escapes and marks of direction are blanks."""
    assert line_of("a\x1b[31m\u202eb\r\nc") == "a [31m b c"
