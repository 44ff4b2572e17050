"""One request over HTTP and what came of it; nothing here retries, waits or remembers."""

import time
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
import orjson
from pydantic import SecretStr

from lrq.calls.outcomes import Outcome, line_of, read_outcome
from lrq.config import Endpoint
from lrq.domain.records import Call

# Characters of a key that is looked for in replies. "x", "none" or "token", as servers of one's own are given, are no
# secrets, and stand in every reply.
_LEAST_SECRET = 12


@dataclass(frozen=True)
class _Way:
    """What is found once for an endpoint.

    aiohttp's own `trust_env` would ask the environment, and read ~/.netrc, in a thread before each request.
    """

    timeout: aiohttp.ClientTimeout
    proxy: str | None
    secret: str


class Transport:
    """An HTTP client for OpenAI-compatible endpoints; one per process and event loop."""

    def __init__(self) -> None:
        connector = aiohttp.TCPConnector(limit=0)  # how many run at once is the limiter's to say
        # No cookies: what one server sets is not for another call, and nothing of a call outlives it.
        self._session = aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())
        self._ways: dict[tuple[str, float, SecretStr | None], _Way] = {}

    async def close(self) -> None:
        await self._session.close()

    async def post(self, endpoint: Endpoint, call: Call, key: str) -> Outcome:
        """Send one request; whatever happens is an outcome. None of them holds the endpoint's secret.

        Its key goes along: a server that knows it can tell a repeated delivery.
        """
        try:
            path, body = _request(call)
            data = orjson.dumps(body)
        except TypeError as error:
            return Outcome(kind="refused", reason=line_of(f"the request cannot be written as JSON: {error}"))
        return await self._send(endpoint, call, key, path, data)

    async def _send(self, endpoint: Endpoint, call: Call, key: str, path: str, data: bytes) -> Outcome:
        begun = time.monotonic()
        way = self._way(endpoint)
        headers = {"Content-Type": "application/json", "Idempotency-Key": key, **_authorization(way.secret)}
        try:
            async with self._session.post(
                endpoint.url + path,
                data=data,
                headers=headers,
                timeout=way.timeout,
                proxy=way.proxy,
                allow_redirects=False,
            ) as response:
                raw = await response.read()
                if len(way.secret) >= _LEAST_SECRET:
                    raw = raw.replace(way.secret.encode(), b"***")  # some servers repeat the key they were given
                outcome = read_outcome(call, response.status, response.headers, raw, time.monotonic() - begun)
                if way.secret and outcome.reason:
                    outcome = replace(outcome, reason=outcome.reason.replace(way.secret, "***"))
                return outcome
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, aiohttp.InvalidURL) as error:
            return Outcome(kind="failed", reason=f"cannot connect: {_name(error)}", latency=time.monotonic() - begun)
        except Exception as error:  # a reset, a timeout, a body that cannot be unpacked: it was sent
            reason = f"no answer: {_name(error)}"
            return Outcome(kind="failed", reason=reason, unknown=True, latency=time.monotonic() - begun)

    def _way(self, endpoint: Endpoint) -> _Way:
        name = endpoint.url, endpoint.timeout, endpoint.api_key
        known = self._ways.get(name)
        if known is None:
            timeout = aiohttp.ClientTimeout(total=endpoint.timeout, connect=30)
            known = self._ways[name] = _Way(timeout, _proxy(endpoint.url), _secret(endpoint))
        return known


def _proxy(url: str) -> str | None:
    """The proxy that the environment names for this URL."""
    parts = urlsplit(url)
    return None if proxy_bypass(parts.hostname or "") else getproxies().get(parts.scheme)


def _secret(endpoint: Endpoint) -> str:
    return (endpoint.secret() or "").strip()  # keys read from files end with a line feed


def _authorization(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"} if secret else {}


def _name(error: BaseException) -> str:
    """The kind of error alone: its text could hold the request's headers."""
    return type(error).__name__


def _request(call: Call) -> tuple[str, dict[str, Any]]:
    """Path and body. What the settings' `extra` sets to null is left out: not every model takes every parameter."""
    body: dict[str, Any] = {"model": call.model}
    if call.role == "embedding":
        path = "/embeddings"
        body["input"] = list(call.input)
    else:
        path = "/chat/completions"
        body["messages"] = list(call.messages)
        body |= {name: getattr(call, name) for name in ("temperature", "top_p", "max_tokens", "seed")}
        if call.n > 1:
            body["n"] = call.n
    return path, {name: value for name, value in (body | dict(call.extra)).items() if value is not None}


async def reachable(endpoint: Endpoint) -> str:
    """Why the endpoint does not answer a request for its models; empty if it does. No paid call."""
    timeout = aiohttp.ClientTimeout(total=10)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout, trust_env=True) as session,
            session.get(
                f"{endpoint.url}/models", headers=_authorization(_secret(endpoint)), allow_redirects=False
            ) as response,
        ):
            if response.status in {401, 402, 403}:
                return f"HTTP {response.status}: its key is missing or refused"
            return "" if response.status < 500 else f"HTTP {response.status}"
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        return f"no answer ({_name(error)}); is the server up?"
