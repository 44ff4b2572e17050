"""A proxy is used where the settings name one, and nowhere else."""

import pytest
from pydantic import ValidationError

from lrq.calls.proxies import ignored_proxy, proxy_of
from lrq.calls.transport import _way_to
from lrq.config import Endpoint, load_settings

PROXY = "http://me:pass%40word@proxy.example:3128"
REMOTE = "https://api.example.org/v1"
LOCAL = ("http://localhost:1/v1", "http://127.0.0.9:1/v1", "http://[::1]:1/v1")


@pytest.fixture(autouse=True)
def proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment that names a proxy for everything but one host."""
    monkeypatch.setenv("http_proxy", PROXY)
    monkeypatch.setenv("https_proxy", PROXY)
    monkeypatch.setenv("no_proxy", "inside.example")


def endpoint(url: str = REMOTE, **fields: object) -> Endpoint:
    return Endpoint.model_validate({"url": url, "model": "m", **fields})


def test_the_environments_proxy_is_ignored_unless_the_settings_say_so() -> None:
    """It is known all the same, so that it can be said; none leads to this machine or where NO_PROXY says."""
    assert (proxy_of(endpoint()), ignored_proxy(endpoint())) == (None, PROXY)
    named = endpoint(proxy="environment")
    assert (proxy_of(named), ignored_proxy(named)) == (PROXY, None)
    for url in (*LOCAL, "https://inside.example/v1"):
        assert proxy_of(endpoint(url, proxy="environment")) is None
        assert ignored_proxy(endpoint(url)) is None


def test_a_named_proxy_is_used_and_may_name_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROXY_PASSWORD", "pw-of-proxy")
    named = endpoint(proxy="http://me:${PROXY_PASSWORD}@other.example:1")
    assert proxy_of(named) == "http://me:pw-of-proxy@other.example:1"
    assert ignored_proxy(named) is None
    settings = load_settings(env={"LRQ_JUDGE_URL": REMOTE, "LRQ_JUDGE_PROXY": "environment"})
    assert proxy_of(settings.endpoints("judge")[0]) == PROXY


def test_a_proxys_password_is_shown_nowhere() -> None:
    """Neither by the settings nor in what a server or proxy repeats, as it is written or as it is meant."""
    named = endpoint(proxy=PROXY)
    assert "pass" not in f"{named} {named!r} {named.model_dump_json()}"
    assert _way_to(named).scrub("denied: pass%40word, pass@word") == "denied: ***, ***"
    assert "pass" not in _way_to(endpoint(proxy="environment")).scrub("pass%40word pass@word")


@pytest.mark.parametrize("url", ["socks5://h:1", "proxy:3128", "http://", "http://me:secret@h:port", "http://[secret"])
def test_what_is_no_proxy_is_refused_without_a_part_of_it(url: str) -> None:
    with pytest.raises(ValidationError, match="a proxy is named http://HOST:PORT") as refused:
        endpoint(proxy=url)
    assert "secret" not in str(refused.value.errors(include_input=False)[0]["msg"])


def test_an_environments_proxy_without_scheme_is_read_and_a_broken_one_shows_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("https_proxy", "proxy.example:3128")
    assert proxy_of(endpoint(proxy="environment")) == "http://proxy.example:3128"
    monkeypatch.setenv("https_proxy", "http://[broken")
    assert _way_to(endpoint(proxy="environment")).secrets == ()
