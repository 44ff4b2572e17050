"""Settings: flags over environment over lrq.yaml over defaults; read once, at the edge of each process."""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self
from urllib.parse import urlsplit

import orjson
import yaml
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator, model_validator

from lrq.domain.errors import UsageError
from lrq.domain.records import Role


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class Price(_Part):
    """Money per million tokens, in the currency the user counts in."""

    input: float = Field(ge=0, allow_inf_nan=False)
    output: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    cached: float | None = Field(default=None, ge=0, allow_inf_nan=False)  # None: cached input costs what input costs


class _Server(_Part):
    """What an endpoint has in common with the short form of a role that has but one."""

    api_key: SecretStr | None = None
    rpm: int | None = Field(default=None, gt=0)
    tpm: int | None = Field(default=None, gt=0)
    concurrency: int | None = Field(default=None, gt=0)
    price: Price | None = None
    timeout: float = Field(default=600.0, gt=0)  # seconds for one request
    extra: dict[str, Any] = {}  # further fields of every request body, e.g. reasoning_effort
    server: str | None = Field(default=None, min_length=1, max_length=100)  # its name in a pool; None: host and port
    warm_cache: bool | None = None  # one call ahead of those that share its head; None: where cached input is cheaper

    @field_validator("url", check_fields=False)
    @classmethod
    def _is_http(cls, url: str | None) -> str | None:
        if url is not None and urlsplit(url).scheme not in {"http", "https"}:
            raise ValueError(f"an endpoint's url starts with http:// or https://, not {url!r}")
        return url and url.rstrip("/")


class Endpoint(_Server):
    """One server that answers paid requests, with the limits its owner told us.

    Endpoints that share a name are a pool: servers of one model among which the same question is the same.
    """

    name: str = "default"
    url: str  # the base that clients of this kind expect, with its /v1
    model: str

    def secret(self) -> str | None:
        """The key for this endpoint alone; OPENAI_API_KEY goes to OpenAI's own host only."""
        if self.api_key is not None:
            return self.api_key.get_secret_value()
        if urlsplit(self.url).hostname == "api.openai.com":
            return os.environ.get("OPENAI_API_KEY")
        return None

    @property
    def host(self) -> str:
        """What the server is called: as its owner names it, else its host and port; never a user or password."""
        parts = urlsplit(self.url)
        port = f":{parts.port}" if parts.port else ""
        return self.server or f"{parts.hostname}{port}"


class RoleSettings(_Server):
    """The endpoints of one role: one in short form, or several by name."""

    url: str | None = None
    model: str | None = None
    endpoints: tuple[Endpoint, ...] = ()

    @model_validator(mode="after")
    def _pools_are_alike(self) -> Self:
        for name in {endpoint.name for endpoint in self.endpoints}:
            pool = [endpoint for endpoint in self.endpoints if endpoint.name == name]
            if any((one.model, one.extra) != (pool[0].model, pool[0].extra) for one in pool):
                raise ValueError(f"endpoints named {name!r} are a pool, of one model and one extra; name others apart")
            if len({one.host for one in pool}) < len(pool):
                raise ValueError(f"two endpoints of the pool {name!r} share a host: tell them apart by `server`")
        return self

    def all_endpoints(self) -> tuple[Endpoint, ...]:
        if self.endpoints or not self.url:
            return self.endpoints
        short = {name: getattr(self, name) for name in _Server.model_fields}
        return (Endpoint(url=self.url, model=self.model or "default", **short),)


class JudgeSettings(RoleSettings):
    votes: int = Field(default=1, ge=1)  # asks per score; their mean counts
    dimensions: dict[str, str] = {}  # dimension -> name of the endpoint that judges it


class PolicySettings(RoleSettings):
    path: str | None = None  # folder, or a name in the local hub cache
    device: str = "auto"
    dtype: str = "auto"
    template: dict[str, Any] = {}  # arguments of the chat template, such as enable_thinking


class SampleSettings(_Part):
    """How the policy is sampled (LongReward, section 3.3: ten responses at temperature 1)."""

    responses: int | None = Field(default=None, ge=1)  # None: what the recipe says
    temperature: float = Field(default=1.0, ge=0)
    top_p: float = Field(default=1.0, gt=0, le=1)
    max_new_tokens: int = Field(default=1024, gt=0)
    max_prompt_tokens: int | None = Field(default=None, gt=0)  # None: what the model can take
    over_long: Literal["cut", "refuse"] = "cut"
    choose_cut: bool = False  # whether a response that max_new_tokens cut off may be the chosen one of a pair
    seed: int = 0


def runtime_folder(name: str) -> Path:
    """Where sockets and locks of that name lie: the same for a shell, a service and a cron job of one user, which a
    folder of the session would not be; and short, for a socket's path has 104 bytes at most."""
    return Path(os.environ.get("LRQ_RUNTIME", "/tmp")) / f"lrq-{os.getuid()}-{name}"  # noqa: S108 - checked where it is used


class Settings(_Part):
    home: Path = Path(".lrq")
    redis_url: SecretStr | None = None
    broker_url: SecretStr | None = None
    database_url: SecretStr | None = None
    recipe: str = "longreward"
    settings: dict[str, Any] = {}  # the recipe's own, over its defaults
    judge: JudgeSettings = JudgeSettings()
    teacher: RoleSettings = RoleSettings()
    embedding: RoleSettings = RoleSettings()
    policy: PolicySettings = PolicySettings()
    sample: SampleSettings = SampleSettings()
    train: dict[str, Any] = {}  # the trainer's own; lrq.trainer validates it
    token_file: str | None = None  # a local tokenizer file for chunks instead of our own unit
    judge_threads: int = Field(default=32, ge=1)  # steps at once in one judge process

    @field_validator("redis_url")
    @classmethod
    def _is_redis(cls, url: SecretStr | None) -> SecretStr | None:
        if url is not None and not url.get_secret_value().startswith(("redis://", "rediss://", "unix://")):
            raise ValueError("a Redis is named redis://HOST:PORT/0, rediss://… or unix:///path/to/socket")
        return url

    def endpoints(self, role: Role) -> tuple[Endpoint, ...]:
        part: RoleSettings = getattr(self, role)
        return part.all_endpoints()

    def endpoint(self, role: Role, name: str) -> Endpoint | None:
        return next((e for e in self.endpoints(role) if e.name == name), None)

    def pool(self, role: Role, name: str) -> tuple[Endpoint, ...]:
        """All endpoints of that name: servers of one model, any of which may answer."""
        return tuple(endpoint for endpoint in self.endpoints(role) if endpoint.name == name)

    def lane(self, role: Role, endpoint: Endpoint, model: str = "") -> str:
        """The name under which the limiter knows this server: no secret."""
        lane = f"{role}.{endpoint.name}.{model or endpoint.model}"
        return f"{lane}@{endpoint.host}" if len(self.pool(role, endpoint.name)) > 1 else lane

    @property
    def runtime(self) -> Path:
        """A short folder of this LRQ_HOME for sockets and locks, readable by its owner alone."""
        return runtime_folder(hashlib.sha256(str(self.home.resolve()).encode()).hexdigest()[:12])

    def ledger_url(self) -> str:
        if self.database_url is not None:
            return self.database_url.get_secret_value()
        return f"sqlite:///{self.home.resolve() / 'ledger.db'}"

    def redis(self) -> str:
        """Where limiter and leases live: the user's Redis, else the embedded broker's socket."""
        if self.redis_url is not None:
            return self.redis_url.get_secret_value()
        return f"unix://{self.runtime / 'redis.sock'}"

    def broker(self) -> str:
        if self.broker_url is not None:
            return self.broker_url.get_secret_value()
        url = self.redis()
        return "redis+socket://" + url.removeprefix("unix://") if url.startswith("unix://") else url


_PLAIN = {
    "LRQ_HOME": "home",
    "LRQ_REDIS_URL": "redis_url",
    "LRQ_BROKER_URL": "broker_url",
    "LRQ_DATABASE_URL": "database_url",
}
_OF_ROLE = {
    "URL": "url",
    "MODEL": "model",
    "API_KEY": "api_key",
    "RPM": "rpm",
    "TPM": "tpm",
    "CONCURRENCY": "concurrency",
}
OVERRIDES = "LRQ_OVERRIDES"  # flags of a parent process, handed to its children as JSON


def load_settings(flags: Mapping[str, Any] | None = None, env: Mapping[str, str] = os.environ) -> Settings:
    """Merge all sources. Raises UsageError with the field at fault."""
    merged = _from_file(env)
    for source in (_from_environment(env), orjson.loads(env.get(OVERRIDES, "{}")), dict(flags or {})):
        merged = _merge(merged, source)
    try:
        return Settings.model_validate(merged)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        said = "there is no such setting" if first["type"] == "extra_forbidden" else first["msg"]
        raise UsageError(f"setting {'.'.join(map(str, first['loc']))}: {said.removeprefix('Value error, ')}") from None


def parse_flag(text: str) -> dict[str, Any]:
    """`judge.rpm=500` as nested settings; the value is read as YAML."""
    path, equals, value = text.partition("=")
    if not equals or not path:
        raise UsageError(f"--set wants key=value, for example judge.rpm=500, not {text!r}")
    try:
        nested: Any = yaml.safe_load(value)
    except yaml.YAMLError:
        raise UsageError(f"the value of --set {path} is not YAML; put a text in quotes") from None
    for name in reversed(path.split(".")):
        nested = {name: nested}
    return dict(nested)


def merge_flags(texts: tuple[str, ...], more: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """All --set flags as nested settings, over `more`, what shorter flags stand for."""
    merged: dict[str, Any] = dict(more or {})
    for text in texts:
        merged = _merge(merged, parse_flag(text))
    return merged


def _from_file(env: Mapping[str, str]) -> dict[str, Any]:
    named = env.get("LRQ_CONFIG")
    path = Path(named or "lrq.yaml")
    if not path.is_file():
        if named:
            raise UsageError(f"no settings file at {named}; set LRQ_CONFIG or --config to one that exists")
        return {}
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except UnicodeDecodeError:
        raise UsageError(f"{path} is not in UTF-8; save it so") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise UsageError(f"{path}{where} is not YAML: {str(error).splitlines()[0]}") from None
    if not isinstance(content, dict):
        raise UsageError(f"{path} holds no settings; its top level is key: value lines")
    return content


def _from_environment(env: Mapping[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {field: env[name] for name, field in _PLAIN.items() if env.get(name)}
    for role in ("judge", "teacher", "embedding", "policy"):
        values = {field: env[key] for tail, field in _OF_ROLE.items() if env.get(key := f"LRQ_{role.upper()}_{tail}")}
        if values:
            found[role] = values
    policy = env.get("LRQ_POLICY")
    if policy:
        found.setdefault("policy", {})["url" if policy.startswith(("http://", "https://")) else "path"] = policy
    return found


def _merge(low: dict[str, Any], high: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(low)
    for name, value in high.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(name), Mapping)
        merged[name] = _merge(merged[name], value) if both else value
    return merged
