"""Why a broker cannot be used, in one line that says what to do and shows no secret."""

import socket
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import kombu
import redis

from lrq.config import Settings
from lrq.domain.errors import LrqError
from lrq.domain.urls import is_redis, safe_url

_SECONDS = 2.0  # for one answer
_OLDEST = (6, 2)  # what Celery asks of a server
_PROBE = "lrq:probe"  # a key that is written to see that writing is possible


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Why a server cannot be used."""

    words: str
    may_pass: bool = False  # it is away, and may come back as it is

    def __str__(self) -> str:
        return self.words


def redis_problem(settings: Settings) -> Problem | None:
    """Ask the Redis of these `settings` for an answer and a write, 2 s for each; None where both come."""
    return _of_redis(settings.redis(), "LRQ_REDIS_URL")


def broker_problem(settings: Settings) -> Problem | None:
    """Ask the broker of the queues: the Redis, or what LRQ_BROKER_URL names instead; None where it can be used.

    A broker of another kind, such as AMQP, is only connected to: nothing is written.
    """
    if settings.broker_url is None:
        return redis_problem(settings)
    url = settings.broker()
    if is_redis(url):
        return _of_redis(url.replace("redis+socket://", "unix://"), "LRQ_BROKER_URL")
    try:
        with kombu.Connection(url, connect_timeout=_SECONDS) as connection:
            connection.connect()
    except Exception as error:  # each transport has errors of its own
        return _explain(error, url, "LRQ_BROKER_URL")
    return None


def check_servers(settings: Settings) -> None:
    """Refuse a Redis or a broker that the user names and that cannot be used; the embedded one is not asked.

    Raises LrqError with what to do about it.
    """
    problem = None if settings.redis_url is None else redis_problem(settings)
    if problem is None and settings.broker_url is not None:
        problem = broker_problem(settings)
    if problem is not None:
        raise LrqError(str(problem))


def _of_redis(url: str, variable: str) -> Problem | None:
    try:
        with redis.Redis.from_url(
            url, socket_timeout=_SECONDS, socket_connect_timeout=_SECONDS, retry=None, decode_responses=True
        ) as client:
            client.ping()
            client.set(_PROBE, "1", px=1000)
            return _of_version(client, url, variable)
    except Exception as error:  # TypeError and ValueError: an option of the URL that redis-py does not know
        return _explain(error, url, variable)


def _of_version(client: "redis.Redis", url: str, variable: str) -> Problem | None:
    try:
        info: Any = client.info("server")
        version = tuple(int(part) for part in str(info["redis_version"]).split(".")[:2])
    except (redis.RedisError, KeyError, ValueError):  # a provider may not let us ask
        return None
    if version >= _OLDEST:
        return None
    return Problem(words=f"{_head(url, variable)} is version {version[0]}.{version[1]}; at least 6.2 is needed")


def _explain(error: Exception, url: str, variable: str) -> Problem:
    chain = list(_chain(error))
    text = " ".join(f"{type(each).__name__}: {each}" for each in chain).replace("\n", " ")
    for is_it, words, may_pass in _CAUSES:
        if is_it(chain, text):
            return Problem(words=f"{_head(url, variable)} {words}", may_pass=may_pass)
    message = _without_secrets(str(error).splitlines()[0] if str(error) else type(error).__name__, url)
    return Problem(words=f"{_head(url, variable)} answers with an error: {message}")


def _head(url: str, variable: str) -> str:
    return f"the server that {variable} names, {safe_url(url)},"


def _without_secrets(text: str, url: str) -> str:
    account = url.partition("://")[2].rpartition("@")[0]
    for secret in (account, *account.split(":", 1)):
        text = text.replace(secret, "***") if secret else text
    return text


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


_Test = Callable[[list[BaseException], str], bool]


def _raised(*kinds: type[BaseException]) -> _Test:
    return lambda chain, _: any(isinstance(each, kinds) for each in chain)


def _words(*parts: str) -> _Test:
    return lambda _, text: any(part.lower() in text.lower() for part in parts)


# What tells a cause, what to do about it, and whether it may pass by itself; the first that fits counts.
_CAUSES: tuple[tuple[_Test, str, bool], ...] = (
    (
        _words("certificate required", "bad certificate"),
        "wants a certificate of ours: ?ssl_certfile=…&ssl_keyfile=…",
        False,
    ),
    (
        _words("hostname mismatch", "ip address mismatch"),
        "has a certificate for another host name; use that name",
        False,
    ),
    (
        _raised(ssl.SSLCertVerificationError),
        "has a certificate that is not trusted here; name its authority: ?ssl_ca_certs=/path/to/ca.pem",
        False,
    ),
    (
        _raised(ssl.SSLEOFError),
        "ends the TLS connection: it wants a certificate of ours (?ssl_certfile=…&ssl_keyfile=…), or speaks no TLS",
        False,
    ),
    (
        _words("NO_CERTIFICATE_OR_CRL_FOUND", "PEM lib", "KEY_VALUES_MISMATCH", "NO_START_LINE"),
        "cannot be asked: a file that its URL names holds no certificate, or not the key of it (PEM)",
        False,
    ),
    (_raised(ssl.SSLError), "does not speak TLS, or no version of it that we do; without TLS it is redis://", False),
    (
        _words("without any password configured", "no password is set"),
        "has no password; leave it out of the URL",
        False,
    ),
    (
        _words("WRONGPASS", "invalid password", "invalid username", "ACCESS_REFUSED", "AccessRefused"),
        "refuses user or password; correct them in the URL (redis://USER:PASSWORD@HOST, or redis://:PASSWORD@HOST)",
        False,
    ),
    (
        _words("NOAUTH", "Authentication required", "HELLO must be called with the client already authenticated"),
        "wants a password, and the URL has none: redis://:PASSWORD@HOST:PORT/0",
        False,
    ),
    (_words("NOPERM", "NoPermission"), "does not permit this user what lrq needs: +@all on ~lrq:* and ~*", False),
    (
        _words("DB index is out of range", "invalid DB index"),
        "has no database of that number; most have 0 to 15",
        False,
    ),
    (
        _words("SELECT is not allowed in cluster mode", "MOVED ", "MovedError"),
        "is a cluster; lrq needs a single Redis",
        False,
    ),
    (_words("NOT_ALLOWED", "NotAllowed"), "has no such virtual host, or does not let this user in", False),
    (_words("READONLY", "read only replica"), "is a read-only replica; name the primary", True),
    (_words("MASTERDOWN"), "is a replica whose primary is away", True),
    (_words("BusyLoading", "LOADING"), "is still loading its data; try again soon", True),
    (_words("MISCONF", "No space left"), "takes no writes, for it cannot save its data: is its disk full?", True),
    (_words("OOM command", "OutOfMemory"), "takes no writes, for its memory is full (maxmemory)", True),
    (_words("max number of clients"), "has no connection left (maxclients)", True),
    (_raised(socket.gaierror), "is not there: no such host name", True),
    (
        _words("[Errno 2]", "No such file"),
        "needs a file that does not exist: its socket (start it), or a certificate",
        True,
    ),
    (_raised(ConnectionRefusedError), "is not there: nothing listens at that port; start it, or correct the URL", True),
    (_raised(PermissionError), "may not be connected to by this user of the machine", False),
    (_words("handshake operation timed out"), "does not speak TLS; without TLS it is redis://", False),
    (
        _raised(TimeoutError, redis.TimeoutError),
        f"does not answer within {_SECONDS:g} s: is the host up, and do firewalls let us through?",
        True,
    ),
    (_words("Network is unreachable", "No route to host"), "is not there: no network leads to that host", True),
    (
        _words("Connection closed by server", "Connection reset", "Server closed"),
        "ends the connection without an answer: if it speaks TLS, write rediss://; else it is no Redis",
        False,
    ),
    (_words("Protocol Error", "InvalidResponse"), "is no Redis: it answers in another protocol", False),
    (
        lambda chain, text: _raised(TypeError, ValueError)(chain, text) or "Invalid SSL" in text,
        "cannot be asked: its URL has an option or a value that is none (ssl_cert_reqs=none, ssl_ca_certs=FILE …)",
        False,
    ),
)
