"""Settings: which source wins, what is refused, and who may have a key."""

from pathlib import Path
from typing import Any

import orjson
import pytest

from lrq.config import OVERRIDES, Endpoint, Settings, load_settings, merge_flags, parse_flag
from lrq.domain.errors import UsageError

KEY = "sk-secret-of-mine"


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of its own, for lrq.yaml is looked for in the current one."""
    monkeypatch.chdir(tmp_path)


def load(**env: str) -> Settings:
    return load_settings(env=env)


def test_flags_go_over_the_environment_over_the_file_over_defaults() -> None:
    """Each source names a few settings; the rest comes from the next."""
    Path("lrq.yaml").write_text("judge: {url: 'http://file/v1', model: file, rpm: 1, tpm: 2}\nrecipe: mine.py:X\n")
    flags = orjson.dumps({"judge": {"rpm": 3}}).decode()
    env = {"LRQ_JUDGE_MODEL": "env", "LRQ_JUDGE_RPM": "2", OVERRIDES: flags}
    settings = load(**env)
    judge = settings.judge
    assert (judge.url, judge.model, judge.rpm, judge.tpm) == ("http://file/v1", "env", 3, 2)
    assert (settings.recipe, settings.judge_threads) == ("mine.py:X", "auto")
    assert load_settings({"judge": {"rpm": 4}}, env).judge.rpm == 4


def test_a_role_s_concurrency_holds_for_endpoints_that_name_none() -> None:
    """`run --concurrency` sets the role's, whether its endpoint stands in short form or by name."""
    named = {"url": "http://h/v1", "model": "m"}
    several = [{"name": "a", "concurrency": 3, **named}, {"name": "b", **named}]
    settings = Settings.model_validate({"judge": {"endpoints": several, "concurrency": 9}})
    assert [endpoint.concurrency for endpoint in settings.endpoints("judge")] == [3, 9]


def test_a_file_can_be_named() -> None:
    """LRQ_CONFIG; one that is missing is said so, the default one may be missing."""
    Path("other.yaml").write_text("judge_threads: 5\n")
    assert load(LRQ_CONFIG="other.yaml").judge_threads == 5
    assert load().judge_threads == "auto"
    with pytest.raises(UsageError, match="no settings file at gone"):
        load(LRQ_CONFIG="gone.yaml")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("judge:\n  rmp: 5", r"^lrq\.yaml, line 2: setting judge\.rmp: .* mean judge\.rpm\?$"),
        ("policy: {}\n\njugde: {}", r"^lrq\.yaml, line 3: setting jugde: .* mean judge\?$"),
        ("judge:\n  endpoints:\n  - {url: 'http://x', model: m}\n  - ulr: x\n", r"line 4: .*endpoints\.1\.url"),
        ("judge: {price: {\ninputs: 1}}", r"line 2: setting judge\.price\.input"),
        ("sample: {zzz: 1}", r"line 1: setting sample\.zzz: .*`lrq settings`"),
        ("judge: {rpm: many}", r"judge\.rpm"),
        ("judge: {endpoints: [{url: 'ftp://x', model: m}]}", r"judge\.endpoints\.0\.url: .*http://"),
        ("judge: {endpoints: [{url: 'http://x', model: m, rpm: 0}]}", r"judge\.endpoints\.0\.rpm"),
        ("sample: {max_prompt_tokens: 0}", r"sample\.max_prompt_tokens"),
        ("sample: {top_p: 2}", r"sample\.top_p"),
        ("judge: [", "line 1 is not YAML"),
        ("just words", "holds no settings"),
        ("nonsense: 1", "nonsense"),
    ],
)
def test_a_wrong_setting_is_one_line_that_names_it(text: str, said: str) -> None:
    """And shows no value, which may be a secret."""
    Path("lrq.yaml").write_text(text)
    with pytest.raises(UsageError, match=said) as wrong:
        load()
    assert "\n" not in str(wrong.value)


def test_a_wrong_setting_beside_a_key_does_not_show_the_key() -> None:
    """Pydantic would repeat its input."""
    Path("lrq.yaml").write_text(f"judge: {{api_key: {KEY}, rpm: many}}")
    with pytest.raises(UsageError) as wrong:
        load()
    assert KEY not in str(wrong.value)
    Path("lrq.yaml").write_text(f"judge: {{api_key: [{KEY}]}}")
    with pytest.raises(UsageError) as wrong:
        load()
    assert KEY not in str(wrong.value)


def test_no_print_of_settings_shows_a_secret() -> None:
    """Neither str, repr nor JSON, for keys and for URLs with passwords."""
    settings = load(
        LRQ_JUDGE_URL="http://x/v1",
        LRQ_JUDGE_API_KEY=KEY,
        LRQ_REDIS_URL=f"redis://:{KEY}@h/0",
        LRQ_DATABASE_URL=f"postgresql+psycopg://u:{KEY}@h/d",
    )
    shown = f"{settings} {settings!r} {settings.model_dump_json()} {settings.endpoints('judge')!r}"
    assert KEY not in shown
    assert settings.endpoints("judge")[0].secret() == KEY
    assert settings.broker() == f"redis://:{KEY}@h/0"


@pytest.mark.parametrize(
    ("url", "key"),
    [
        ("https://api.openai.com/v1", "sk-openai"),
        ("https://api.openai.com.evil.example/v1", None),
        ("https://evil.example/api.openai.com/v1", None),
        ("https://api.openai.com@evil.example/v1", None),
        ("http://localhost:8000/v1", None),
    ],
)
def test_openai_s_key_is_for_openai_s_host(url: str, key: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key in the environment is given to nobody else; one of the endpoint's own goes to that endpoint."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-openai")
    assert Endpoint(url=url, model="m").secret() == key
    assert Endpoint(url=url, model="m", api_key=KEY).secret() == KEY  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "nested"),
    [
        ("judge.rpm=500", {"judge": {"rpm": 500}}),
        ("judge.price={input: 1, output: 2}", {"judge": {"price": {"input": 1, "output": 2}}}),
        ("judge.model=a=b", {"judge": {"model": "a=b"}}),
        ("recipe=mine.py:X", {"recipe": "mine.py:X"}),
    ],
)
def test_a_flag_is_a_path_and_a_value(text: str, nested: dict[str, Any]) -> None:
    """The value is read as YAML; only the first equals sign parts."""
    assert parse_flag(text) == nested


@pytest.mark.parametrize("text", ["judge.rpm", "=5", ""])
def test_a_flag_without_both_is_refused(text: str) -> None:
    """With an example of how it is written."""
    with pytest.raises(UsageError, match=r"judge\.rpm=500"):
        parse_flag(text)


def test_flags_of_one_part_are_merged() -> None:
    """The later wins where both name the same."""
    flags = ("judge.rpm=1", "judge.tpm=2", "judge.rpm=3", "recipe=x")
    assert merge_flags(flags) == {"judge": {"rpm": 3, "tpm": 2}, "recipe": "x"}
    assert merge_flags(("train.beta=2",), {"train": {"beta": 1, "gamma": 1}}) == {"train": {"beta": 2, "gamma": 1}}


def test_one_endpoint_in_short_or_several_by_name() -> None:
    """A URL's last slash is dropped, so that paths can be added."""
    short = load(LRQ_JUDGE_URL="http://x/v1/", LRQ_JUDGE_CONCURRENCY="7")
    (one,) = short.endpoints("judge")
    assert (one.name, one.url, one.model, one.concurrency) == ("default", "http://x/v1", "default", 7)
    assert load().endpoints("judge") == ()
    Path("lrq.yaml").write_text(
        "judge: {endpoints: [{name: a, url: 'http://a/v1', model: m}, {name: b, url: 'http://b/v1', model: n}]}"
    )
    named = load().endpoint("judge", "b")
    assert named is not None
    assert named.model == "n"
    assert load().endpoint("judge", "c") is None


@pytest.mark.parametrize(
    ("value", "path", "url"),
    [("/models/x", "/models/x", None), ("http://x/v1", None, "http://x/v1"), ("https://x/v1", None, "https://x/v1")],
)
def test_a_policy_is_a_folder_or_a_url(value: str, path: str | None, url: str | None) -> None:
    """LRQ_POLICY takes both."""
    policy = load(LRQ_POLICY=value).policy
    assert (policy.path, policy.url) == (path, url)


def test_redis_is_the_broker_unless_another_is_named() -> None:
    """Kombu wants sockets under a scheme of its own."""
    assert load(LRQ_REDIS_URL="redis://h/1").broker() == "redis://h/1"
    assert load(LRQ_REDIS_URL="unix:///s").broker() == "redis+socket:///s"
    both = load(LRQ_REDIS_URL="redis://h/1", LRQ_BROKER_URL="amqp://h")
    assert (both.redis(), both.broker()) == ("redis://h/1", "amqp://h")
    assert load().broker().startswith("redis+socket:///")


def test_a_wrong_flag_is_named_as_a_flag() -> None:
    """Flags of a parent process come by its environment; a file that sets the same key is not the one at fault."""
    Path("lrq.yaml").write_text("judge: {rpm: 5}")
    with pytest.raises(UsageError, match=r"^--set: setting judge\.rpm: .*integer"):
        load(**{OVERRIDES: '{"judge": {"rpm": "many"}}'})
    with pytest.raises(UsageError, match=r"^setting judge\.tpm: "):
        load(LRQ_JUDGE_TPM="many")


UNREADABLE_URLS = ("foo://u:{}@h/0", "{}", "redis://u:{}@x#y@h/0", "postgres://u:{}@x@h/d", "redis://:{}@h/x")


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("LRQ_DATABASE_URL", "postgres://u:{}@x@h/d"),  # what kinds of database there are is the ledger's to say
        *((name, url) for name in ("LRQ_REDIS_URL", "LRQ_BROKER_URL") for url in UNREADABLE_URLS),
    ],
)
def test_a_url_that_cannot_be_read_is_not_repeated(name: str, url: str) -> None:
    """Its form is refused by its setting's name, in a fixed sentence without a part of it."""
    with pytest.raises(UsageError, match=f"setting {name.removeprefix('LRQ_').lower()}: ") as wrong:
        load(**{name: url.format(KEY)})
    assert KEY not in str(wrong.value)
    assert "@" not in str(wrong.value).replace("write @ as", "")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('judge: {url: "http://x", api_key: "sk-one\\nsk-two"}', "line break at place 7 of 13"),
        ('judge: {url: "http://x", api_key: "sk-\u200bone"}', "no HTTP header can carry at place 4"),
        ('judge: {url: "http://x", api_key: "sk-\u00a0one"}', "no HTTP header can carry at place 4"),
        ("judge: {url: 'http://x', api_key: '\"sk-one\"'}", "the key stands in quotes"),
        ("judge: {url: 'http://x', api_key: 'Bearer sk-one'}", "begins with the word Bearer"),
        ("judge: {url: 'http://x', api_key: 'sk-one sk-two'}", "a blank at place 7 of 13"),
        ("judge: {url: 'http://x/v 1'}", "has a blank in it"),
        ("judge: {url: 'h:8000/v1'}", "starts with http:// or https://, not 'h:8000/v1'"),
        ('judge: {endpoints: [{url: "http://x", model: m, api_key: "a\\tb"}]}', r"judge\.endpoints\.0\.api_key"),
        ('judge: {url: "http://x", headers: {X-A: "${LRQ_TEST_NONE}"}}', "LRQ_TEST_NONE is named here and not set"),
        ('judge: {url: "http://x", query: {a: "${LRQ_TEST_NONE}"}}', "LRQ_TEST_NONE is named here and not set"),
        ('judge: {url: "http://x", headers: {"X A": b}}', "no header that can be set"),
        ('judge: {url: "http://x", headers: {Content-Length: "3"}}', "no header that can be set"),
        ('judge: {url: "http://x", headers: {X-A: "a\\nb"}}', "the value of X-A has a line break"),
        ('judge: {url: "http://x:port/v1"}', r"judge\.url"),
        ("judge: {extra: {max_tokens: 0}}", "max_tokens is a whole number from 1, not 0"),
        ("judge: {extra: {max_completion_tokens: -5}}", "max_completion_tokens is a whole number from 1"),
        ("judge: {extra: {n: true}}", "n is a whole number from 1"),
        ("judge: {extra: {best_of: 0}}", "best_of is a whole number from 1"),
        ("judge: {extra: {stream: true}}", "stream is no field that can be set"),
        ("judge: {extra: {model: other}}", "model is no field that can be set"),
        ("judge: {extra: {n: 1.5}}", "n is a whole number from 1"),
    ],
)
def test_what_cannot_be_sent_is_refused_in_one_line(text: str, said: str) -> None:
    """Keys and headers that no request can carry, variables that are not set, limits that ask for nothing."""
    Path("lrq.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=said) as wrong:
        load()
    assert "\n" not in str(wrong.value)
    assert "sk-" not in str(wrong.value)


def test_openai_s_key_is_looked_at_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """It comes from the environment, where it is taken."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-one\nsk-two")
    with pytest.raises(UsageError, match="OPENAI_API_KEY has a line break at place 7"):
        load(LRQ_JUDGE_URL="https://api.openai.com/v1")
    assert load(LRQ_JUDGE_URL="http://x/v1").judge.url == "http://x/v1"


@pytest.mark.parametrize(
    ("url", "base", "query"),
    [
        ("http://x/v1/", "http://x/v1", {}),
        ("http://x/v1/chat/completions", "http://x/v1", {}),
        ("http://x/d?api-version=1&key=k", "http://x/d", {"api-version": "1", "key": "k"}),
        ("http://x/d/chat/completions?api-version=1", "http://x/d", {"api-version": "1"}),
    ],
)
def test_a_url_is_parted_from_its_query(url: str, base: str, query: dict[str, str]) -> None:
    """And from what clients add to its path; in the short form too, where no print shows it."""
    endpoint = Endpoint(url=url, model="m")
    assert endpoint.url == base
    assert {name: value.get_secret_value() for name, value in endpoint.query.items()} == query
    settings = load(LRQ_JUDGE_URL=url)
    assert settings.endpoints("judge")[0].query == endpoint.query
    assert "key=k" not in repr(settings)


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("https://user:sk-1@Api.Example.com:443/v1", "api.example.com/v1"),
        ("http://127.0.0.1:8000/v1", "localhost:8000/v1"),
        ("http://[::1]:8000/v1", "localhost:8000/v1"),
        ("http://localhost:8000/v1?key=1", "localhost:8000/v1"),
    ],
)
def test_a_server_is_known_by_its_address(url: str, address: str) -> None:
    """The same for all ways to write it, and without what is secret."""
    assert Endpoint(url=url, model="m").address == address


def test_identity_is_told_or_the_address_of_the_first_server() -> None:
    """A server more in a pool changes nothing, and a pool has but one."""
    pool = [{"url": "http://a/v1", "model": "m"}, {"url": "http://b/v1", "model": "m"}]
    assert Settings.model_validate({"judge": {"endpoints": pool}}).identity("judge", "default") == "a/v1"
    told = [pool[0], pool[1] | {"identity": "ours"}]
    assert Settings.model_validate({"judge": {"endpoints": told}}).identity("judge", "default") == "ours"
    with pytest.raises(UsageError, match="of one identity"):
        load_settings({"judge": {"endpoints": [pool[0] | {"identity": "theirs"}, told[1]]}}, env={})
