"""One request over HTTP and what came of it; nothing here retries, waits or remembers."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any, Literal

import aiohttp
import orjson

from lrq.config import Endpoint
from lrq.domain.records import Call, Choice, Usage

Kind = Literal["ok", "refused", "account", "throttled", "failed"]

_ACCOUNT_STATUS = {401, 402, 403}
_REFUSED_STATUS = {400, 404, 405, 413, 415, 422}
_QUOTA_CODES = ("insufficient_quota", "billing", "account_deactivated", "credit")
_REASON_LENGTH = 300


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of one request. `unknown`: it was sent, and the server never said how it ended."""

    kind: Kind
    reason: str = ""
    choices: Sequence[Choice] = ()
    vectors: Sequence[Sequence[float]] = ()
    usage: Usage = field(default_factory=Usage)
    status: int = 0
    retry_after: float | None = None  # seconds
    headers: Mapping[str, str] = field(default_factory=dict)
    latency: float = 0.0  # seconds
    unknown: bool = False


class Transport:
    """An HTTP client for OpenAI-compatible endpoints; one per process and event loop."""

    def __init__(self) -> None:
        connector = aiohttp.TCPConnector(limit=0)  # how many run at once is the limiter's to say
        self._session = aiohttp.ClientSession(
            connector=connector, json_serialize=lambda value: orjson.dumps(value).decode(), trust_env=True
        )
        self._timeouts: dict[float, aiohttp.ClientTimeout] = {}

    async def close(self) -> None:
        await self._session.close()

    async def post(self, endpoint: Endpoint, call: Call, key: str) -> Outcome:
        """Send one request. Its key goes along: a server that knows it can tell a repeated delivery."""
        path, body = _request(call)
        headers = {"Content-Type": "application/json", "Idempotency-Key": key}
        secret = endpoint.secret()
        if secret:
            headers["Authorization"] = f"Bearer {secret}"
        timeout = self._timeouts.setdefault(endpoint.timeout, aiohttp.ClientTimeout(total=endpoint.timeout, connect=30))
        begun = time.monotonic()
        try:
            async with self._session.post(
                endpoint.url + path, data=orjson.dumps(body), headers=headers, timeout=timeout, allow_redirects=False
            ) as response:
                raw = await response.read()
                return _read(call, response.status, response.headers, raw, time.monotonic() - begun)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            return Outcome(kind="failed", reason=f"cannot connect: {_name(error)}", latency=time.monotonic() - begun)
        except (aiohttp.ClientError, TimeoutError, ConnectionError) as error:
            reason = f"no answer: {_name(error)}"
            return Outcome(kind="failed", reason=reason, unknown=True, latency=time.monotonic() - begun)


def _name(error: BaseException) -> str:
    """The kind of error alone: its text could hold the request's headers."""
    return type(error).__name__


def _request(call: Call) -> tuple[str, dict[str, Any]]:
    if call.role == "embedding":
        return "/embeddings", {"model": call.model, "input": list(call.input), **call.extra}
    body: dict[str, Any] = {"model": call.model, "messages": list(call.messages)}
    named = ("temperature", "top_p", "max_tokens", "seed")
    body |= {name: value for name in named if (value := getattr(call, name)) is not None}
    if call.n > 1:
        body["n"] = call.n
    return "/chat/completions", body | dict(call.extra)


def _read(call: Call, status: int, headers: Mapping[str, str], raw: bytes, latency: float) -> Outcome:
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError:
        body = None
    if status == 200 and isinstance(body, dict) and not body.get("error"):
        return _answered(call, body, headers, latency)
    kind, reason = _failure(status, body, raw)
    return Outcome(
        kind=kind,
        reason=reason,
        status=status,
        retry_after=_retry_after(headers),
        headers=headers,
        latency=latency,
        unknown=status == 200,  # a page instead of a reply: it may have been charged
    )


def _answered(call: Call, body: dict[str, Any], headers: Mapping[str, str], latency: float) -> Outcome:
    if call.role == "embedding":
        data = sorted(body.get("data") or [], key=lambda one: one.get("index", 0))
        vectors = [one.get("embedding") or [] for one in data]
        return Outcome(kind="ok", vectors=vectors, usage=_usage(body), status=200, headers=headers, latency=latency)
    choices = [_choice(one) for one in body.get("choices") or []] or [Choice(text="", finish="empty")]
    return Outcome(kind="ok", choices=choices, usage=_usage(body), status=200, headers=headers, latency=latency)


def _choice(one: Mapping[str, Any]) -> Choice:
    message = one.get("message") or {}
    inline, text = _split_reasoning(message.get("content") or "")
    reasoning = message.get("reasoning_content") or message.get("reasoning") or inline
    return Choice(text=text, reasoning=str(reasoning), finish=str(one.get("finish_reason") or "stop"))


def _split_reasoning(text: str) -> tuple[str, str]:
    """Servers without a reasoning parser leave it in the text, up to </think>; the opening mark may be missing."""
    before, mark, after = text.rpartition("</think>")
    return (before.removeprefix("<think>").strip(), after.lstrip()) if mark else ("", text)


def _usage(body: Mapping[str, Any]) -> Usage:
    counted = body.get("usage") or {}
    details = counted.get("prompt_tokens_details") or {}
    return Usage(
        prompt_tokens=int(counted.get("prompt_tokens") or 0),
        completion_tokens=int(counted.get("completion_tokens") or 0),
        cached_tokens=int(details.get("cached_tokens") or counted.get("prompt_cache_hit_tokens") or 0),
    )


def _failure(status: int, body: object, raw: bytes) -> tuple[Kind, str]:
    text, code = _said(body, raw)
    reason = f"HTTP {status}: {text}"[:_REASON_LENGTH]
    if status in _ACCOUNT_STATUS or (status == 429 and any(word in code for word in _QUOTA_CODES)):
        return "account", reason
    if status in _REFUSED_STATUS:
        return "refused", reason
    return ("throttled" if status == 429 else "failed"), reason


def _said(body: object, raw: bytes) -> tuple[str, str]:
    """The server's words and its error code, in one line."""
    error = body.get("error", body) if isinstance(body, dict) else None
    if isinstance(error, dict):
        code = f"{error.get('code') or ''} {error.get('type') or ''}".lower()
        return " ".join(str(error.get("message") or code).split()), code
    text = error if isinstance(error, str) else raw[:_REASON_LENGTH].decode("utf-8", "replace")
    return " ".join(text.split()), ""


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds, from either form of Retry-After (RFC 9110, section 10.2.3)."""
    value = headers.get("Retry-After")
    if value is None:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (TypeError, ValueError):
        return None


async def reachable(endpoint: Endpoint) -> str:
    """Why the endpoint does not answer a request for its models; empty if it does. No paid call."""
    secret = endpoint.secret()
    headers = {"Authorization": f"Bearer {secret}"} if secret else {}
    timeout = aiohttp.ClientTimeout(total=10)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout, trust_env=True) as session,
            session.get(f"{endpoint.url}/models", headers=headers, allow_redirects=False) as response,
        ):
            if response.status in _ACCOUNT_STATUS:
                return f"HTTP {response.status}: its key is missing or refused"
            return "" if response.status < 500 else f"HTTP {response.status}"
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        return f"no answer ({_name(error)}); is the server up?"
