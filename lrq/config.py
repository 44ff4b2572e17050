"""Settings: flags over environment over lrq.yaml over defaults; read once, at the edge of each process."""

import hashlib
import os
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from secrets import token_urlsafe
from typing import Annotated, Any, ClassVar, Literal, Self, get_args
from urllib.parse import parse_qsl, urlsplit, urlunsplit

import orjson
import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from lrq.config_errors import OVERRIDES as OVERRIDES  # noqa: PLC0414 - part of this module
from lrq.config_errors import source_of, unknown_setting
from lrq.domain.commands import fill_command
from lrq.domain.errors import UsageError
from lrq.domain.records import ROLES, Role
from lrq.domain.urls import broker_url_problem, database_url_problem, redis_url_problem, safe_url


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_HEADER_VALUE = re.compile(r"[\x20-\x7e]*")
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_OURS = {"content-type", "content-length", "host", "transfer-encoding", "connection", "idempotency-key"}
_CALLED = (
    "/chat/completions",
    "/embeddings",
    "/completions",
    "/score",
)  # what clients add to a URL, and some people name
_SELF = {"localhost", "127.0.0.1", "::1"}
ENVIRONMENT = "environment"  # as an endpoint's proxy: the one that HTTP_PROXY or HTTPS_PROXY names


def resolve(text: str) -> str:
    """Fill in the environment variables that `text` names as `${NAME}`. Raises ValueError for one that is not set."""

    def value_of(match: re.Match[str]) -> str:
        value = os.environ.get(match[1])
        if not value:
            raise ValueError(f"the environment variable {match[1]} is named here and not set")
        return value

    return _VARIABLE.sub(value_of, text)


@lru_cache(maxsize=1024)
def _address(url: str) -> str:
    parts = urlsplit(url)
    host = "localhost" if parts.hostname in _SELF else parts.hostname or ""
    port = f":{parts.port}" if parts.port not in {None, 443 if parts.scheme == "https" else 80} else ""
    return f"{host}{port}{parts.path}"


def _check_header(text: str, what: str) -> None:
    """Refuse what no HTTP header can carry; the message shows nothing of it."""
    value = text.strip()
    if not _HEADER_VALUE.fullmatch(value):
        position = next(index for index, character in enumerate(value) if not " " <= character <= "~")
        kind = "a line break" if value[position] in "\r\n" else "a character that no HTTP header can carry"
        raise ValueError(f"{what} has {kind} at place {position + 1} of {len(value)}; is it one key, copied whole?")


def _check_key(key: str, what: str = "the key") -> None:
    """Refuse what is no key alone, and would be refused by every server; the message shows nothing of it."""
    _check_header(key, what)
    value = key.strip()
    if value[:1] in {"'", '"'}:
        raise ValueError(f"{what} stands in quotes: leave them out")
    if value.lower().startswith("bearer "):
        raise ValueError(f"{what} begins with the word Bearer: leave it out, it is added")
    if " " in value:
        raise ValueError(f"{what} has a blank at place {value.index(' ') + 1} of {len(value)}; is it copied whole?")


def setting(text: str, *, unit: str = "", example: Any = None, default: Any = None, **rules: Any) -> Any:
    """Return a field with what the settings reference says of it; without a default where that is `...`."""
    examples = [] if example is None else [example]
    return Field(default, description=text, examples=examples, json_schema_extra={"unit": unit}, **rules)


_MONEY = "money per million tokens"


class Price(_Part):
    """Money per million tokens, in the currency the user counts in."""

    input: float = setting("Price of input tokens", unit=_MONEY, example=2.5, default=..., ge=0, allow_inf_nan=False)
    output: float = setting("Price of output tokens", unit=_MONEY, example=10, default=0.0, ge=0, allow_inf_nan=False)
    cached: float | None = setting(
        "Price of input tokens that the server had cached; unset: that of input",
        unit=_MONEY,
        example=1.25,
        ge=0,
        allow_inf_nan=False,
    )


class _Server(_Part):
    """What an endpoint has in common with the short form of a role that has but one."""

    api_key: SecretStr | None = setting(
        "Key that is sent to this endpoint and no other; better in the environment than in a file",
        example="sk-yours",
    )
    rpm: int | None = setting(
        "Requests that all processes together may send; unset: learned from the answers",
        unit="requests per minute",
        example=5000,
        gt=0,
    )
    tpm: int | None = setting(
        "Tokens, of prompt and reply, that all processes together may use; unset: learned",
        unit="tokens per minute",
        example=2_000_000,
        gt=0,
    )
    concurrency: int | None = setting(
        "Requests in flight at once over all processes; unset: learned", unit="requests", example=64, gt=0
    )
    price: Price | None = setting(
        "What tokens cost; published models need none", example={"input": 2.5, "output": 10, "cached": 1.25}
    )
    timeout: float = setting("Time for one request", unit="seconds", example=900, default=600.0, gt=0)
    extra: dict[str, Any] = setting(
        "Further fields of every request body", example={"reasoning_effort": "low"}, default={}
    )
    headers: dict[str, SecretStr] = setting(
        "Further headers; a value may name environment variables as ${NAME}",
        example={"api-key": "${MY_GATEWAY_KEY}"},
        default={},
    )
    query: dict[str, SecretStr] = setting(
        "What follows ? in the URL; values as in headers", example={"api-version": "2024-10-21"}, default={}
    )
    identity: str | None = setting(
        "Name under which its replies are kept, for a server that moves; unset: host, port and path of its URL",
        example="our-judge",
        min_length=1,
        max_length=200,
    )
    reasoning_tokens: int | None = setting(
        "Room for thoughts beside a reply; unset: learned", unit="tokens", example=8000, ge=0
    )
    prompt_check: bool = setting(
        "Pause where the server counts far fewer tokens than it was sent", example=False, default=True
    )
    break_control_tokens: bool | None = setting(
        "Send control tokens in texts (<|im_start|>) as letters; unset: where the host is private",
        example=True,
    )
    server: str | None = setting(
        "Name of this server in a pool; unset: its host and port", example="gpu-1", min_length=1, max_length=100
    )
    proxy: SecretStr | None = setting(
        "Proxy through which it is asked: a URL, which may name variables as ${NAME}, or `environment` for that of "
        "HTTP_PROXY and HTTPS_PROXY; unset: none",
        example="http://proxy.internal:3128",
    )
    warm_cache: bool | None = setting(
        "Send one call ahead of those that share its head; unset: where cached input is cheaper", example=True
    )

    @model_validator(mode="before")
    @classmethod
    def _split_url(cls, values: Any) -> Any:
        """Move what follows ? in the URL to `query`, and drop what clients add to its path."""
        url = values.get("url") if isinstance(values, dict) else None
        if not isinstance(url, str):
            return values
        parts = urlsplit(url.strip())
        path = parts.path.rstrip("/")
        for added in _CALLED:
            path = path.removesuffix(added)
        query = values.get("query") or {}
        if isinstance(query, dict):
            query = dict(parse_qsl(parts.query, keep_blank_values=True)) | query
        return {**values, "url": urlunsplit((parts.scheme, parts.netloc, path, "", "")), "query": query}

    @field_validator("url", check_fields=False)
    @classmethod
    def _is_http(cls, url: str | None) -> str | None:
        if url is not None and urlsplit(url).scheme not in {"http", "https"}:
            raise ValueError(f"an endpoint's url starts with http:// or https://, not {safe_url(url)!r}")
        if url is not None and re.search(r"\s", url):
            raise ValueError("an endpoint's url has a blank in it; write it as %20")
        if url is not None:
            urlsplit(url).port  # noqa: B018 - raises ValueError where it is no number
        return url

    @field_validator("api_key")
    @classmethod
    def _is_header(cls, key: SecretStr | None) -> SecretStr | None:
        if key is not None:
            _check_key(key.get_secret_value())
        return key

    @field_validator("headers")
    @classmethod
    def _are_headers(cls, headers: dict[str, SecretStr]) -> dict[str, SecretStr]:
        for name, value in headers.items():
            if not _HEADER_NAME.fullmatch(name) or name.lower() in _OURS:
                raise ValueError(f"{name!r} is no header that can be set")
            _check_header(resolve(value.get_secret_value()), f"the value of {name}")
        return headers

    @field_validator("query")
    @classmethod
    def _has_values(cls, query: dict[str, SecretStr]) -> dict[str, SecretStr]:
        for value in query.values():
            resolve(value.get_secret_value())
        return query

    @field_validator("proxy")
    @classmethod
    def _is_proxy(cls, proxy: SecretStr | None) -> SecretStr | None:
        """Check a proxy's URL; the message shows nothing of it, for it may hold a password."""
        if proxy is None or proxy.get_secret_value() == ENVIRONMENT:
            return proxy
        url = resolve(proxy.get_secret_value())
        try:
            parts = urlsplit(url)
            is_usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
        except ValueError:
            is_usable = False
        if not is_usable:
            raise ValueError(f"a proxy is named http://HOST:PORT or https://HOST:PORT, or {ENVIRONMENT!r}")
        return proxy

    @field_validator("extra")
    @classmethod
    def _asks_for_something(cls, extra: dict[str, Any]) -> dict[str, Any]:
        for name in ("model", "messages", "input", "stream"):
            if name in extra:
                raise ValueError(f"{name} is no field that can be set: it is the question's own")
        for name in ("max_tokens", "max_completion_tokens", "n", "best_of"):
            value = extra.get(name)
            if value is not None and (type(value) is not int or value < 1):
                raise ValueError(f"{name} is a whole number from 1, not {value!r}")
        return extra


_BASE = "Base URL that clients of such a server expect, with its /v1"
_API = (
    "How a judge is asked: by chat, or by the score API of vLLM, which preference and reward models have; such a judge "
    "writes no text and serves recipes that compare responses"
)


class Endpoint(_Server):
    """One server that answers paid requests, with the limits its owner told us.

    Endpoints that share a name are a pool: servers of one model among which the same question is the same.
    """

    name: str = setting("Name of the endpoint; those that share one are a pool", example="fast", default="default")
    url: str = setting(_BASE, example="http://gpu-1:8000/v1", default=...)
    model: str = setting("Model that is asked", example="Qwen/Qwen3-32B", default=...)
    api: Literal["chat", "score"] = setting(_API, example="score", default="chat")

    @model_validator(mode="after")
    def _has_a_key_to_send(self) -> Self:
        _check_key(self.secret() or "", "OPENAI_API_KEY")
        return self

    def secret(self) -> str | None:
        """Return the key for this endpoint alone; None: none is sent. OPENAI_API_KEY goes to OpenAI's own host only."""
        if self.api_key is not None:
            return self.api_key.get_secret_value()
        if urlsplit(self.url).hostname == "api.openai.com":
            return os.environ.get("OPENAI_API_KEY")
        return None

    @property
    def host(self) -> str:
        """Name the server: `server` as its owner named it, else host and port; never with a user or password."""
        parts = urlsplit(self.url)
        port = f":{parts.port}" if parts.port else ""
        return self.server or f"{parts.hostname}{port}"

    @property
    def address(self) -> str:
        """Host, port and path: the same for all ways to write one URL, and without user, password or query."""
        return _address(self.url)


class ScorerEndpoint(Endpoint):
    """The scorer of this LRQ_HOME: it serves the preference model that `judge.path` names, on the loopback alone."""

    token_file: Path
    api: Literal["chat", "score"] = "score"
    price: Price | None = Price(input=0.0)
    identity: str | None = "scorer"

    @model_validator(mode="after")
    def _has_a_key_to_send(self) -> Self:
        """Do nothing: its key is read when it is needed."""
        return self

    def secret(self) -> str:
        """Return the token that the scorer wants to see, made by the process that needs it first."""
        with suppress(FileExistsError):
            self.token_file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            draft = self.token_file.with_name(f"{self.token_file.name}.{os.getpid()}-{token_urlsafe(6)}")
            if not self.token_file.exists():
                draft.touch(mode=0o600)
                draft.write_text(token_urlsafe(32), encoding="ascii")
                try:
                    os.link(draft, self.token_file)  # whole, or not at all
                finally:
                    draft.unlink()
        return self.token_file.read_text(encoding="ascii")


class RoleSettings(_Server):
    """The endpoints of one role: one in short form, or several by name."""

    _of_endpoint: ClassVar[tuple[str, ...]] = ()  # fields beside those of all servers that the short form has too

    url: str | None = setting(_BASE, example="https://api.openai.com/v1")
    model: str | None = setting("Model that is asked", example="gpt-4o")
    endpoints: tuple[Endpoint, ...] = setting(
        "Several endpoints, instead of the one that url and model name",
        example=[{"name": "a", "url": "http://gpu-1:8000/v1", "model": "m"}],
        default=(),
    )

    @model_validator(mode="after")
    def _pools_are_alike(self) -> Self:
        for name in {endpoint.name for endpoint in self.endpoints}:
            pool = [endpoint for endpoint in self.endpoints if endpoint.name == name]
            if len({(each.model, str(sorted(each.extra.items())), each.api) for each in pool}) > 1:
                raise ValueError(
                    f"endpoints named {name!r} are a pool, of one model, one api and one extra; name others apart"
                )
            if len({each.identity for each in pool if each.identity}) > 1:
                raise ValueError(f"endpoints named {name!r} are a pool, of one identity; name others apart")
            if len({each.host for each in pool}) < len(pool):
                raise ValueError(f"two endpoints of the pool {name!r} share a host: tell them apart by `server`")
        return self

    def all_endpoints(self) -> tuple[Endpoint, ...]:
        if self.endpoints or not self.url:
            shared = {"concurrency": self.concurrency}  # also of those that name none of their own
            return tuple(each if each.concurrency else each.model_copy(update=shared) for each in self.endpoints)
        short = {name: getattr(self, name) for name in (*_Server.model_fields, *self._of_endpoint)}
        return (Endpoint(url=self.url, model=self.model or "default", **short),)

    @model_validator(mode="after")
    def _short_form_holds(self) -> Self:
        """Check the endpoint that the short form stands for when the settings are read."""
        try:
            self.all_endpoints()
        except ValidationError as error:
            raise ValueError(error.errors(include_input=False, include_url=False)[0]["msg"]) from None
        return self


class JudgeSettings(RoleSettings):
    _of_endpoint: ClassVar[tuple[str, ...]] = ("api",)

    api: Literal["chat", "score"] = setting(_API, example="score", default="chat")
    path: str | None = setting(
        "Folder of a preference or reward model, or its name in the local hub cache, which the scorer serves: PairRM, "
        "or a sequence classifier with one label; instead of url",
        example="models/PairRM-hf",
    )
    device: str = setting("Where the scorer runs it: auto, cpu, cuda, cuda:1 …", example="cuda:0", default="auto")
    dtype: str = setting("Type of its weights: auto, float32, bfloat16 …", example="float32", default="auto")
    port: int | None = setting(
        "Port of the scorer on the loopback; unset: one that follows from LRQ_HOME", example=8090, ge=1, le=65535
    )
    votes: int = setting("Times that each score is asked for; the mean counts", example=3, default=1, ge=1)
    dimensions: dict[str, str] = setting(
        "Dimension → name of the endpoint that judges it", example={"faithfulness": "fast"}, default={}
    )

    @model_validator(mode="after")
    def _is_of_one_place(self) -> Self:
        if self.path and (self.url or self.endpoints):
            raise ValueError("judge.path and judge.url name two judges; leave one of them out")
        return self


class PolicySettings(RoleSettings):
    path: str | None = setting("Folder of the model, or its name in the local hub cache", example="models/my-policy")
    device: str = setting("Where it runs: auto, cpu, cuda, cuda:1 …", example="cuda:0", default="auto")
    dtype: str = setting("Type of its weights: auto, float32, bfloat16 …", example="bfloat16", default="auto")
    template: dict[str, Any] = setting("Arguments of its chat template", example={"enable_thinking": False}, default={})
    serve: str | None = setting(
        "Command that starts an OpenAI-compatible server on a model folder: that of path, and in later rounds what the "
        "round before made. It runs while there is something to sample, and makes room for training; instead of url, "
        "and of sampling in the sampler's own process",
        example="vllm serve {model} --host 127.0.0.1 --port {port}",
    )
    serve_timeout: float = setting(
        "Time that this server has until it lists its models", unit="seconds", example=1800, default=900.0, gt=0
    )

    @field_validator("serve")
    @classmethod
    def _is_a_command(cls, serve: str | None) -> str | None:
        if serve is not None:
            fill_command(serve, {"model": "", "port": ""})
        return serve

    @model_validator(mode="after")
    def _has_one_server(self) -> Self:
        if self.serve and (self.url or self.endpoints):
            raise ValueError("policy.serve starts a server, and policy.url names another; leave one of them out")
        return self

    def served(self, *, url: str, model: str, identity: str) -> Endpoint:
        """Return the endpoint of the server that `serve` has started; what it costs is the machine's."""
        shared = {name: getattr(self, name) for name in _Server.model_fields}
        price = self.price or Price(input=0.0)
        return Endpoint(
            **{**shared, "name": "served", "url": url, "model": model, "identity": identity, "price": price}
        )


class SampleSettings(_Part):
    """How the policy is sampled (LongReward, section 3.3: ten responses at temperature 1)."""

    responses: int | None = setting("Responses to each prompt; unset: what the recipe says", example=5, ge=1)
    temperature: float = setting("Sampling temperature", example=0.7, default=1.0, ge=0)
    top_p: float = setting("Share of the probability that is sampled from", example=0.95, default=1.0, gt=0, le=1)
    max_new_tokens: int = setting("Longest response", unit="tokens", example=2048, default=1024, gt=0)
    max_prompt_tokens: int | None = setting(
        "Longest prompt; unset: what the model can take", unit="tokens", example=32_000, gt=0
    )
    over_long: Literal["cut", "refuse"] = setting(
        "What becomes of a longer prompt: the middle of its context is cut, or the item fails",
        example="refuse",
        default="cut",
    )
    choose_cut: bool = setting(
        "Let a response that max_new_tokens cut off be the chosen one of a pair", example=True, default=False
    )
    seed: int = setting("Seed of the sampling noise", example=1, default=0)


class TrainSchedule(_Part):
    """When a run trains, and how often it goes round: what of the train section is not the trainer's."""

    every_rows: int = setting(
        "Train as soon as there are so many rows; 0: when the round's rows are complete",
        unit="rows",
        example=1000,
        default=0,
        ge=0,
    )
    rounds: int = setting(
        "Rounds of sampling, judging and training, each from the model of the one before",
        unit="rounds",
        example=3,
        default=1,
        ge=1,
    )
    round_items: Literal["all", "split"] = setting(
        "Items of a round: all, or a share that no other round has", example="split", default="all"
    )


def runtime_folder(name: str) -> Path:
    """Return where sockets and locks of that `name` lie; nothing is made.

    The same for a shell, a service and a cron job of one user, which a folder of the session would not be; and short,
    for a socket's path has 104 bytes at most.
    """
    return Path(os.environ.get("LRQ_RUNTIME", "/tmp")) / f"lrq-{os.getuid()}-{name}"  # noqa: S108 - checked where it is used


_URL_PROBLEMS: Mapping[str, Callable[[str], str | None]] = {
    "redis_url": redis_url_problem,
    "broker_url": broker_url_problem,
    "database_url": database_url_problem,
}


class Settings(_Part):
    """All settings."""

    home: Path = setting("Folder of ledger, results, models and logs", example="/data/lrq", default=Path(".lrq"))
    redis_url: SecretStr | None = setting(
        "Redis for queues and limits; unset: the embedded broker", example="redis://:…@queue.internal:6379/0"
    )
    broker_url: SecretStr | None = setting(
        "Another broker for the queues; unset: that Redis", example="amqp://user:…@rabbit.internal//"
    )
    database_url: SecretStr | None = setting(
        "PostgreSQL for the ledger; unset: a SQLite file in LRQ_HOME. `?prepare_threshold=0` switches prepared "
        "statements off, as some poolers want it",
        example="postgresql+psycopg://lrq:…@db.internal/lrq",
    )
    recipe: str = setting(
        "Method of the run: one that comes with lrq, or one of yours", example="my_recipe.py:NAME", default="longreward"
    )
    settings: dict[str, Any] = setting(
        "The recipe's own settings, over its defaults; see below", example={"min_scored": 6}, default={}
    )
    judge: JudgeSettings = setting("The model that scores", default=JudgeSettings())
    teacher: RoleSettings = setting("The model that writes for a recipe", default=RoleSettings())
    embedding: RoleSettings = setting("The model that finds passages; without one BM25 does", default=RoleSettings())
    policy: PolicySettings = setting("The model that answers and is trained", default=PolicySettings())
    sample: SampleSettings = setting("How the policy is sampled", default=SampleSettings())
    train: dict[str, Any] = setting(
        "The trainer's own settings, over the recipe's; see below", example={"beta": 0.1}, default={}
    )
    log: Literal["text", "json"] = setting(
        "Lines of logs: sentences for people, or one JSON object each", example="json", default="text"
    )
    viewer_url: str | None = setting(
        "Where `lrq view` is reached; Flower's pages link to items there", example="http://127.0.0.1:8800"
    )
    flower_url: str | None = setting(
        "Where `lrq flower` is reached; the viewer links to tasks there", example="http://127.0.0.1:5555"
    )
    judge_threads: Literal["auto"] | Annotated[int, Field(ge=1)] = setting(
        "Steps at once in one judge process; auto: as many as keep its calls at what the endpoints' limits allow",
        unit="steps",
        example=64,
        default="auto",
    )
    judge_memory_mb: int = setting(
        "What the documents of one judge process's steps may take, under auto",
        unit="MiB",
        example=4096,
        default=1024,
        ge=1,
    )

    @field_validator("redis_url", "broker_url", "database_url")
    @classmethod
    def _can_be_read(cls, url: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        problem = _URL_PROBLEMS[info.field_name or ""]
        if url is not None and (words := problem(url.get_secret_value())):
            raise ValueError(words)
        return url

    @field_validator("viewer_url", "flower_url")
    @classmethod
    def _is_web_address(cls, url: str | None) -> str | None:
        if url is not None and urlsplit(url).scheme not in {"http", "https"}:
            raise ValueError("an address of a page begins with http:// or https://")
        return url and url.rstrip("/")

    @property
    def scorer(self) -> ScorerEndpoint | None:
        """Return the judge that a process of this machine serves; None where the settings name no folder for it."""
        judge = self.judge
        if not judge.path:
            return None
        return _scorer(self.home.resolve(), judge.path, judge.port, judge.concurrency or 8, judge.timeout)

    def endpoints(self, role: Role) -> tuple[Endpoint, ...]:
        """Return the endpoints of a `role`; a judge in a folder (`judge.path`) leaves no others."""
        if role == "judge" and self.scorer is not None:
            return (self.scorer,)
        part: RoleSettings = getattr(self, role)
        return part.all_endpoints()

    def serving(self, endpoint: Endpoint) -> Self:
        """Return these settings with this endpoint as the policy's."""
        return self.model_copy(update={"policy": self.policy.model_copy(update={"endpoints": (endpoint,)})})

    def variables(self) -> set[str]:
        """Return the names of the environment variables that endpoints' settings name as `${NAME}`."""
        endpoints = [endpoint for role in ROLES for endpoint in self.endpoints(role)]
        values = [value for each in endpoints for value in (*each.headers.values(), *each.query.values(), each.proxy)]
        texts = [value.get_secret_value() for value in values if value is not None]
        return {name for text in texts for name in _VARIABLE.findall(text)}

    def endpoint(self, role: Role, name: str) -> Endpoint | None:
        """Return the first endpoint of that `name`, whatever others its pool has; None where there is none."""
        return next((e for e in self.endpoints(role) if e.name == name), None)

    def pool(self, role: Role, name: str) -> tuple[Endpoint, ...]:
        """Return all endpoints of that `name`, servers of one model, any of which may answer; empty: there is none."""
        return tuple(endpoint for endpoint in self.endpoints(role) if endpoint.name == name)

    def identity(self, role: Role, name: str) -> str:
        """Return whom the replies of a pool are taken to come from: part of a call's key.

        As the settings say (`identity`), else the address of the pool's first server: one more changes nothing. There
        must be a pool of that `name`.
        """
        pool = self.pool(role, name)
        identities = [endpoint.identity for endpoint in pool if endpoint.identity]
        return identities[0] if identities else pool[0].address

    def lane(self, role: Role, endpoint: Endpoint, model: str = "") -> str:
        """Return the name under which the limiter knows this server: no secret.

        `model` is the run's, which goes before the endpoint's own: limits are the model's.
        """
        lane = f"{role}.{endpoint.name}.{model or endpoint.model}"
        return f"{lane}@{endpoint.host}" if len(self.pool(role, endpoint.name)) > 1 else lane

    @property
    def runtime(self) -> Path:
        """Return a short folder of this LRQ_HOME for sockets and locks, as `runtime_folder` names it."""
        return runtime_folder(hashlib.sha256(str(self.home.resolve()).encode()).hexdigest()[:12])

    def ledger_url(self) -> str:
        """Return the ledger's URL as SQLAlchemy takes it, password included; by default `ledger.db` in the home."""
        if self.database_url is not None:
            return self.database_url.get_secret_value()
        return f"sqlite:///{self.home.resolve() / 'ledger.db'}"

    def redis(self) -> str:
        """Return where limiter and leases live, password included: `redis_url`, else the embedded broker's socket."""
        if self.redis_url is not None:
            return self.redis_url.get_secret_value()
        return f"unix://{self.runtime / 'redis.sock'}"

    def broker(self) -> str:
        """Return the URL of the queues' broker as kombu takes it, password included: `broker_url`, else as `redis`."""
        url = self.redis() if self.broker_url is None else self.broker_url.get_secret_value()
        return "redis+socket://" + url.removeprefix("unix://") if url.startswith("unix://") else url


@lru_cache(maxsize=16)
def _scorer(home: Path, path: str, port: int | None, concurrency: int, timeout: float) -> ScorerEndpoint:
    """Return the scorer's endpoint, the same object for the same settings."""
    home_hash = hashlib.sha256(str(home).encode()).digest()
    port = port or 20_000 + int.from_bytes(home_hash[:4]) % 10_000  # below the ports of outgoing connections
    return ScorerEndpoint(
        url=f"http://127.0.0.1:{port}/v1",
        model=Path(path).name,
        concurrency=concurrency,
        timeout=timeout,
        token_file=home / "scorer.token",
    )


_PLAIN = {
    "LRQ_HOME": "home",
    "LRQ_REDIS_URL": "redis_url",
    "LRQ_BROKER_URL": "broker_url",
    "LRQ_DATABASE_URL": "database_url",
    "LRQ_LOG": "log",
    "LRQ_VIEWER_URL": "viewer_url",
    "LRQ_FLOWER_URL": "flower_url",
}
_OF_ROLE = {
    "URL": "url",
    "MODEL": "model",
    "API_KEY": "api_key",
    "RPM": "rpm",
    "TPM": "tpm",
    "CONCURRENCY": "concurrency",
    "PROXY": "proxy",
}

OTHER_VARIABLES = {
    "LRQ_POLICY": "policy.path or policy.url: a folder, a name in the local hub cache, or a URL",
    "LRQ_CONFIG": "settings file instead of ./lrq.yaml",
    "LRQ_RUNTIME": "folder for sockets and locks, with a short path; /tmp where it is not set",
    "LRQ_DEBUG": "1 shows tracebacks, as `lrq --debug` does",
    "OPENAI_API_KEY": "key for endpoints at api.openai.com that have none of their own",
}
_OF_CHILDREN = (OVERRIDES, "LRQ_SUPERVISOR", "LRQ_TRAINER_PARENT")  # what processes of ours hand to each other
VARIABLES = frozenset(
    (*_PLAIN, *OTHER_VARIABLES, *_OF_CHILDREN, *(f"LRQ_{role.upper()}_{tail}" for role in ROLES for tail in _OF_ROLE))
)


def variable_of(path: Sequence[str]) -> str:
    """Name the environment variable of the setting at `path`, as ("judge", "rpm"); empty where it has none."""
    if len(path) == 1:
        return next((name for name, field in _PLAIN.items() if field == path[0]), "")
    tail = next((tail for tail, field in _OF_ROLE.items() if field == path[1]), "")
    return f"LRQ_{path[0].upper()}_{tail}" if tail and len(path) == 2 else ""


def load_settings(flags: Mapping[str, Any] | None = None, env: Mapping[str, str] = os.environ) -> Settings:
    """Merge all sources: `flags` go over the parent's overrides, these over `env`, and that over the file.

    Args:
        flags: nested as lrq.yaml is.
        env: the environment, which also names the file (LRQ_CONFIG).

    Raises UsageError with the field at fault, and where it was given.
    """
    merged = _from_file(env)
    for source in (_from_environment(env), orjson.loads(env.get(OVERRIDES, "{}")), dict(flags or {})):
        merged = _merge(merged, source)
    try:
        return Settings.model_validate(merged)
    except ValidationError as error:
        errors = error.errors(include_input=False, include_url=False)
        first = min(errors, key=lambda each: each["type"] != "extra_forbidden")  # a typo is why another is missing
        path = tuple(map(str, first["loc"]))
        if first["type"] == "extra_forbidden":
            raise unknown_setting(path, _names_beside(path), env) from None
        words = first["msg"].removeprefix("Value error, ")
        section = path[:-1] if first["type"] == "missing" else path
        raise UsageError(f"{source_of(section, env)}setting {'.'.join(path)}: {words}") from None


def without_keys(overrides: Any) -> Any:
    """Return nested settings without what only a caller of endpoints needs.

    A key and the values of headers and queries are hidden, not left out: they are set all the same.
    """
    if isinstance(overrides, list | tuple):
        return [without_keys(part) for part in overrides]
    if not isinstance(overrides, Mapping):
        return overrides
    return {name: _without_key(name, value) for name, value in overrides.items() if name != "proxy"}


def _without_key(name: str, value: Any) -> Any:
    if name in ("headers", "query") and isinstance(value, Mapping):
        return dict.fromkeys(value, "***")
    return "***" if name == "api_key" else without_keys(value)


def _names_beside(path: tuple[str, ...]) -> list[str]:
    """List the settings among which the last name of a path was looked for."""
    part: Any = Settings
    for name in path[:-1]:
        if not name.isdecimal():
            kind = part.model_fields[name].annotation
            part = next((each for each in (kind, *get_args(kind)) if hasattr(each, "model_fields")), None)
        if part is None:
            return []
    return list(part.model_fields)


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
    """Return all --set flags as nested settings, over `more`, what shorter flags stand for."""
    merged: dict[str, Any] = dict(more or {})
    for text in texts:
        merged = _merge(merged, parse_flag(text))
    return merged


def _from_file(env: Mapping[str, str]) -> dict[str, Any]:
    file = env.get("LRQ_CONFIG")
    path = Path(file or "lrq.yaml")
    if not path.is_file():
        if file:
            raise UsageError(f"no settings file at {file}; set LRQ_CONFIG or --config to one that exists")
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
    plain: dict[str, Any] = {field: env[name] for name, field in _PLAIN.items() if env.get(name)}
    for role in ROLES:
        values = {field: env[key] for tail, field in _OF_ROLE.items() if env.get(key := f"LRQ_{role.upper()}_{tail}")}
        if values:
            plain[role] = values
    policy = env.get("LRQ_POLICY")
    if policy:
        plain.setdefault("policy", {})["url" if policy.startswith(("http://", "https://")) else "path"] = policy
    return plain


def _merge(low: dict[str, Any], high: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(low)
    for name, value in high.items():
        are_nested = isinstance(value, Mapping) and isinstance(merged.get(name), Mapping)
        merged[name] = _merge(merged[name], value) if are_nested else value
    return merged
