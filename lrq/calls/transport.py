"""One request over HTTP and what came of it; nothing here retries, waits or remembers."""

import asyncio
import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import quote_plus, unquote, urlencode, urlsplit

import aiohttp
import orjson
from aiohttp.abc import AbstractStreamWriter

from lrq.calls.body import ACCEPTED, LARGE_AT_ONCE, Body, is_overgrown, largest_reply, read_body
from lrq.calls.connection import BoundedConnector
from lrq.calls.errors import line_of
from lrq.calls.forms import PLAIN, Form, parameters
from lrq.calls.models import context_lengths, read_context_length
from lrq.calls.outcomes import Kind, Outcome, is_empty, read_outcome, unreadable
from lrq.calls.presets import base_url, preset_of
from lrq.calls.proxies import ignored_proxy, proxy_of
from lrq.config import Endpoint, resolve
from lrq.domain.control_tokens import break_control_tokens
from lrq.domain.origin import is_private
from lrq.domain.records import Call
from lrq.domain.urls import password_of

# Characters of a key that is looked for in replies. "x", "none" or "token", as servers of one's own are given, are no
# secrets, and stand in every reply.
_LEAST_SECRET = 12
_SECRET_NAME = re.compile(r"auth|key|token|secret|cookie|password|credential|sig", re.IGNORECASE)
_LARGEST_ERROR = 64 << 10  # bytes that are looked at of an answer that is no JSON
_LARGEST_LIST = 16 << 20  # bytes of a list of models; the longest known has half a megabyte


@dataclass(frozen=True)
class _Way:
    """What is found once for an endpoint.

    aiohttp's own `trust_env` would ask the environment, and read ~/.netrc, in a thread before each request.
    """

    base: str
    query: str  # with its question mark
    headers: Mapping[str, str]
    timeout: aiohttp.ClientTimeout
    proxy: str | None
    has_ignored_proxy: bool  # the environment names one that the settings do not
    breaks: bool  # control tokens in texts
    secrets: tuple[str, ...]  # the longest first
    large: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(LARGE_AT_ONCE))

    def url(self, path: str) -> str:
        return f"{self.base}{path}{self.query}"

    def scrub(self, text: str) -> str:
        for secret in self.secrets:
            text = text.replace(secret, "***")
        return text


class _RequestBody(aiohttp.BytesPayload):
    """A request's body, which knows whether it has begun to leave: before that, nobody can charge it.

    Headers go out with its first piece. aiohttp's tracing tells as much, and costs five times this.
    """

    is_sent = False

    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:
        self.is_sent = True
        await super().write_with_length(writer, content_length)


@dataclass(frozen=True, kw_only=True)
class Models:
    """What an endpoint says of its models, in a request that is free."""

    problem: str = ""  # why it did not answer; empty if it did
    listing: object = field(default=None, repr=False)  # its list as JSON; None where it is none

    @property
    def contexts(self) -> Mapping[str, int]:
        """Model → tokens of prompt and reply together, of those of which `listing` says it."""
        return context_lengths(self.listing)

    def context_of(self, model: str) -> int | None:
        """Return the tokens that prompt and reply of `model` may have together; None where it is not said."""
        return read_context_length(self.listing, model)


class Transport:
    """An HTTP client for OpenAI-compatible endpoints; one per process and event loop."""

    def __init__(self) -> None:
        connector = BoundedConnector(limit=0)  # how many run at once is the limiter's to say
        # No cookies: what one server sets is not for another call, and nothing of a call outlives it.
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,  # without a bound: lrq.calls.body has one
        )
        self._ways: dict[int, tuple[Endpoint, _Way]] = {}  # by the endpoint's id, which is its own while it is kept

    async def close(self) -> None:
        await self._session.close()

    async def post(self, endpoint: Endpoint, call: Call, key: str, form: Form = PLAIN) -> Outcome:
        """Send one request; whatever happens is an outcome. None of them holds a secret of the endpoint.

        Args:
            key: of the call, which goes along: a server that knows it can tell a repeated delivery.
            form: how the endpoint wants to be asked.
        """
        try:
            path, body = _request(call, form, breaks=self._way(endpoint).breaks)
            data = orjson.dumps(body)
        except TypeError as error:
            reason = line_of(f"the request cannot be written as JSON: {error}")
            return Outcome(kind="refused", reason=reason, is_unsent=True)
        return await self._send(endpoint, call, key, path, data, largest_reply(call, body))

    async def _send(self, endpoint: Endpoint, call: Call, key: str, path: str, data: bytes, most: int) -> Outcome:
        begun = time.monotonic()
        way = self._way(endpoint)
        headers = {
            "Content-Type": "application/json",
            "Idempotency-Key": key,
            "Accept-Encoding": ACCEPTED,
            **way.headers,
        }
        request = _RequestBody(data)
        try:
            async with self._session.post(
                way.url(path),
                data=request,
                headers=headers,
                timeout=way.timeout,
                proxy=way.proxy,
                allow_redirects=False,
            ) as response:
                body = await read_body(response, most, way.large)
                outcome = _read(call, response, body, way, time.monotonic() - begun)
                return replace(outcome, reason=way.scrub(outcome.reason)) if outcome.reason else outcome
        except Exception as error:  # a reset, a timeout, a body that cannot be unpacked, a malformed header
            latency = time.monotonic() - begun
            if request.is_sent:
                return Outcome(kind="failed", reason=f"no answer: {_name(error)}", unknown=True, latency=latency)
            kind, reason = _why_unsent(error, way)
            return Outcome(kind=kind, reason=reason, is_unsent=True, latency=latency)

    async def models(self, endpoint: Endpoint, seconds: float = 10.0) -> Models:
        """Return what the endpoint says of its models, within `seconds`. No paid call.

        Raises nothing: where it does not answer, `problem` says why.
        """
        way = self._way(endpoint)
        timeout = aiohttp.ClientTimeout(total=seconds)
        try:
            headers = {"Accept-Encoding": ACCEPTED, **way.headers}
            async with self._session.get(
                way.url("/models"), headers=headers, timeout=timeout, proxy=way.proxy, allow_redirects=False
            ) as response:
                if response.status in {401, 402, 403}:
                    return Models(problem=f"HTTP {response.status}: its key is missing or refused")
                if response.status >= 500:
                    return Models(problem=f"HTTP {response.status}")
                body = await read_body(response, _LARGEST_LIST, way.large)
                return Models(listing=None if body.problem or is_overgrown(body) else _json(body.data))
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            return Models(problem=f"no answer ({_name(error)}); is the server up?")

    def _way(self, endpoint: Endpoint) -> _Way:
        if (entry := self._ways.get(id(endpoint))) is not None:
            return entry[1]
        return self._ways.setdefault(id(endpoint), (endpoint, _way_to(endpoint)))[1]


def _way_to(endpoint: Endpoint) -> _Way:
    preset = preset_of(endpoint)
    key = (endpoint.secret() or "").strip()  # keys read from files end with a line feed
    headers = {name: resolve(value.get_secret_value()).strip() for name, value in endpoint.headers.items()}
    query = {name: resolve(value.get_secret_value()) for name, value in endpoint.query.items()}
    secrets = {value for name, value in (headers | query).items() if value and _is_secret(endpoint, name)}
    secrets |= {value.partition(" ")[2].strip() for value in secrets if " " in value} | {key}
    proxy = proxy_of(endpoint)
    for url in (endpoint.url, proxy or ""):
        secrets |= {password := password_of(url), unquote(password)}
    secrets |= {quote_plus(value) for value in secrets}  # as they stand in a URL that a server repeats
    if key:
        header_names = {name.lower() for name in headers}
        headers |= {} if preset.key_header.lower() in header_names else {preset.key_header: preset.key_prefix + key}
    query = {**preset.query, **query}
    breaks = endpoint.break_control_tokens
    if breaks is None:  # servers of one's own read control tokens in texts as such, published ones do not
        breaks = is_private(urlsplit(endpoint.url).hostname or "")
    return _Way(
        base=base_url(endpoint),
        query=f"?{urlencode(query)}" if query else "",
        headers=headers,
        timeout=aiohttp.ClientTimeout(total=endpoint.timeout, connect=30),
        proxy=proxy,
        has_ignored_proxy=ignored_proxy(endpoint) is not None,
        breaks=breaks,
        secrets=tuple(sorted(secrets - {""}, key=len, reverse=True)),
    )


def _is_secret(endpoint: Endpoint, name: str) -> bool:
    """Say whether a header or part of the query is looked for in replies: by its name, or for it comes from outside."""
    value = endpoint.headers.get(name) or endpoint.query.get(name)
    return bool(_SECRET_NAME.search(name)) or (value is not None and "${" in value.get_secret_value())


def _read(call: Call, response: aiohttp.ClientResponse, body: Body, way: _Way, latency: float) -> Outcome:
    """Read what came, without the secrets that some servers repeat; an error is read as far as it came."""
    raw = body.data
    for secret in way.secrets:
        if len(secret) >= _LEAST_SECRET:
            raw = raw.replace(secret.encode(), b"***")
    problem = body.problem or ("has more parts than any answer" if is_overgrown(body) else "")
    if not problem:
        return read_outcome(call, response.status, response.headers, raw, latency)
    size = max(len(raw), body.received)
    is_cut = bool(body.cut)
    if is_cut and is_empty(raw[:_LARGEST_ERROR]) and 200 <= response.status < 300:  # blanks keep a connection alive
        return Outcome(kind="failed", reason=f"no answer: {body.cut}", unknown=True, latency=latency)
    if is_cut:
        size = max(size, response.content_length or 0)
    outcome = unreadable(call, response.status, response.headers, raw[:_LARGEST_ERROR], problem, size, latency)
    return replace(outcome, is_in_reply=False) if is_cut else outcome


def _json(raw: bytes) -> object:
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError:
        return None


_PROXY_REFUSES = {401, 403, 407}
_NO_HEADER = re.compile(r"[\x00-\x08\n-\x1f\x7f]")


def _why_unsent(error: Exception, way: _Way) -> tuple[Kind, str]:
    """Decide who can mend that a request did not go out, and how: the settings' owner, or time."""
    names = {name.lower() for name in way.headers}
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return "account", f"nothing was sent: the server's certificate is not trusted ({_name(error)})"
    if isinstance(error, aiohttp.ClientHttpProxyError):
        kind: Kind = "account" if error.status in _PROXY_REFUSES else "failed"
        return kind, f"nothing was sent: the proxy answers HTTP {error.status}"
    if isinstance(error, aiohttp.InvalidURL) or (isinstance(error, ValueError) and way.proxy):
        return "account", f"nothing was sent: its URL{' or its proxy' if way.proxy else ''} cannot be used"
    if isinstance(error, ValueError) and "@" in urlsplit(way.base).netloc and "authorization" in names:
        return "account", "nothing was sent: its URL holds a user and password beside a key: leave one of them out"
    if isinstance(error, ValueError) and any(_NO_HEADER.search(value) for value in way.headers.values()):
        return "account", "nothing was sent: its key or a header holds what no header can, such as a line feed"
    number = error.errno if isinstance(error, OSError) else None
    detail = f", {os.strerror(number)}" if number is not None and number > 0 else ""
    if isinstance(error, aiohttp.ClientConnectorSSLError):  # its number is none of the system's
        detail = ": it speaks no TLS, or none that is spoken here; without TLS its URL begins with http://"
    elif isinstance(error, aiohttp.ClientConnectorDNSError):
        detail = ": its host name is not known here"
    hint = "; the environment's proxy is not used: set `proxy: environment` to use it" if way.has_ignored_proxy else ""
    return "failed", f"cannot connect: {_name(error)}{detail}{hint}"


def _name(error: BaseException) -> str:
    """Return the kind of error alone: its text could hold the request's headers."""
    return type(error).__name__


def _request(call: Call, form: Form = PLAIN, *, breaks: bool = False) -> tuple[str, dict[str, Any]]:
    """Return path and body. What is broken in the messages is no part of the question, so its key stays."""
    fields = parameters(call, form)
    if call.api == "embeddings":
        return "/embeddings", {"model": call.model, "input": list(call.input), **fields}
    if call.api == "score":
        prompt, *responses = call.input
        return "/score", {"model": call.model, "text_1": prompt, "text_2": responses, **fields}
    messages = list(call.messages)
    if breaks and call.control_tokens:
        messages = [{**message, "content": break_control_tokens(message["content"])} for message in messages]
    return "/chat/completions", {"model": call.model, "messages": messages, **fields}
