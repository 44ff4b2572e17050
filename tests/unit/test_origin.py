"""Which requests a local server answers."""

import pytest

from lrq.domain.origin import is_loopback, refusal

READ = {"method": "GET", "origin": None}


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:80", "127.0.0.1:5555", "127.8.0.1", "[::1]:8099", "[::1]"])
def test_names_of_this_machine_are_answered(host: str):
    assert refusal(host=host, **READ) == ""


@pytest.mark.parametrize(
    "host",
    [None, "", "evil.example", "evil.example:5555", "localhost.evil.example", "127.0.0.1.nip.io", "[", "10.0.0.7"],
)
def test_other_names_are_refused(host: str | None):
    """DNS rebinding: a foreign page reaches the loopback under a name of its own."""
    assert "--allow-host" in refusal(host=host, **READ)


def test_a_name_that_was_allowed_is_answered():
    assert refusal(host="Lab.Example:5555", names=["lab.example"], **READ) == ""


def test_a_server_with_a_password_answers_under_any_name():
    assert refusal(host="flower.example", is_guarded=True, **READ) == ""


@pytest.mark.parametrize("method", ["POST", "put", "DELETE", "WEBSOCKET"])
@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:9999", "http://localhost:5555"])
def test_writing_is_for_pages_of_the_same_server(method: str, origin: str):
    assert refusal(method=method, host="127.0.0.1:5555", origin=origin, is_guarded=True)
    assert refusal(method=method, host="127.0.0.1:5555", origin="http://127.0.0.1:5555") == ""
    assert refusal(method=method, host="127.0.0.1:5555", origin=None) == "", "no browser sends none"


def test_loopback_is_every_address_of_this_machine_alone():
    assert all(map(is_loopback, ("127.0.0.1", "127.1.2.3", "::1", "[::1]", "localhost")))
    assert not any(map(is_loopback, ("", "0.0.0.0", "::", "192.168.0.1", "example.com")))
