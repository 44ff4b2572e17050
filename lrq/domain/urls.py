"""URLs that may hold secrets: how they are shown, and whether they can be read as they are written."""

import re
from urllib.parse import urlsplit

_REDIS = ("redis", "rediss", "unix")
_BROKERS = ("redis", "rediss", "unix", "redis+socket", "sentinel", "amqp", "amqps", "pyamqp", "sqs")
# Of a query only these values are shown: whatever else stands there may be a key.
_HARMLESS = {
    "api-version",
    "client_encoding",
    "connect_timeout",
    "db",
    "host",
    "port",
    "prepare_threshold",
    "ssl_ca_certs",
    "ssl_cert_reqs",
    "ssl_certfile",
    "ssl_keyfile",
    "sslmode",
    "sslrootcert",
    "virtual_host",
}
_UNESCAPED = (
    "its user or password holds a character that ends it: write @ as %40, / as %2F, # as %23, ? as %3F, % as %25, "
    "a space as %20"
)


def safe_url(url: str) -> str:
    """Return `url` for people and logs: user, password, fragment and all query values that may be keys as ***.

    It need not be a valid one: of `redis://lrq:p@ss#w@host/5` everything before the last @ is hidden.
    """
    scheme, separator, address = url.partition("://")
    if not separator:
        return url if re.fullmatch(r"(?:[\w.-]+:\d{1,5}(?=/|$))?[\w./~-]*", url) else "***"
    _, sign, target = address.rpartition("@")
    target, hash_, _ = target.partition("#")
    target, question, query = target.partition("?")
    shown = "&".join(_safe_pair(pair) for pair in query.split("&"))
    return f"{scheme}://{'***@' if sign else ''}{target}{question}{shown}{'#***' if hash_ else ''}"


def password_of(url: str) -> str:
    """Return a URL's password as it is written; empty where there is none, or it cannot be read."""
    try:
        return urlsplit(url).password or ""
    except ValueError:
        return ""


def _safe_pair(pair: str) -> str:
    name, equals, _ = pair.partition("=")
    return pair if name in _HARMLESS else f"{name}=***" if equals else "***" if name else ""


def redis_url_problem(url: str) -> str | None:
    """Return what is wrong with the form of a Redis URL, without a part of it; None where nothing is."""
    scheme, separator, address = url.partition("://")
    if not separator or scheme not in _REDIS:
        return "a Redis is named redis://HOST:PORT/0, rediss://… or unix:///path/to/socket"
    if scheme == "unix":
        return None if urlsplit(url).path else "a socket is named unix:///path/to/socket"
    return _network_problem(address) or _database_problem(address)


def broker_url_problem(url: str) -> str | None:
    """Return what is wrong with the form of the URL of a broker; None where nothing is."""
    scheme, separator, address = url.partition("://")
    if not separator or scheme not in _BROKERS:
        return "a broker is named redis://HOST:PORT/0, rediss://…, unix:///path/to/socket or amqp://HOST//"
    if scheme in _REDIS:
        return redis_url_problem(url)
    return _network_problem(address) if scheme.endswith(("amqp", "amqps")) else None


def database_url_problem(url: str) -> str | None:
    """Return what is wrong with the form of a PostgreSQL URL; None where nothing is, or for a file."""
    scheme, _, address = url.partition("://")
    host = address.partition("@")[2].partition("?")[0]
    return _UNESCAPED if scheme.startswith("postgres") and "@" in host else None


def _network_problem(rest: str) -> str | None:
    """Find what cannot be read after the scheme: user and password, host and port."""
    authority = re.split("[/?#]", rest, maxsplit=1)[0]
    tail = rest[len(authority) :]
    if "#" in rest or re.search(r"\s", rest) or "@" in tail.partition("?")[0] or ("@" in tail and "@" not in authority):
        return _UNESCAPED
    try:
        parts = urlsplit(f"//{authority}")
        is_named = bool(parts.hostname) and parts.port != 0
    except ValueError:
        return f"the port is not a number from 1 to 65535; or else: {_UNESCAPED}"
    return None if is_named else "it names no host; write it as SCHEME://HOST:PORT/…"


def _database_problem(rest: str) -> str | None:
    database = rest.partition("?")[0].partition("/")[2].strip("/")
    fits = not database or database.isdecimal()
    return None if fits else "the database of a Redis is a number, as in redis://HOST:6379/0"


def is_redis(url: str) -> bool:
    """Tell whether a broker's URL names a Redis."""
    return url.startswith(("redis://", "rediss://", "redis+socket://"))
