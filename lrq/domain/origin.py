"""Who may talk to a server of ours: a page of another site may not, though it runs in the user's own browser.

A server on the loopback is reached by every page that the browser shows: by DNS rebinding under a name of the page's
own, which `Host` gives away, or by a form or script that writes across sites, which `Origin` does.
"""

import ipaddress
from collections.abc import Collection
from urllib.parse import urlsplit

_LOCAL_NAMES = (".localhost", ".local", ".internal", ".lan", ".home.arpa", ".intranet", ".svc", ".cluster.local")
_READING = frozenset({"GET", "HEAD", "OPTIONS"})


def is_loopback(address: str) -> bool:
    """Tell whether `address`, a host's name or IP address without a port, is reached from this machine alone."""
    try:
        return ipaddress.ip_address(address.strip("[]")).is_loopback
    except ValueError:
        return address.lower() == "localhost"


def is_private(host: str) -> bool:
    """Tell whether `host` is of this machine or its own network: by its address, or a name that no one else knows."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_private
    except ValueError:
        name = host.lower().rstrip(".")
        return "." not in name or name.endswith(_LOCAL_NAMES)


def refusal(
    *, method: str, host: str | None, origin: str | None, names: Collection[str] = (), is_guarded: bool = False
) -> str:
    """Return why a request is refused, in one line; empty where it may pass.

    Args:
        method: of the request; "GET" that upgrades to a WebSocket counts as writing, so pass "WEBSOCKET" for it.
        host: the `Host` header.
        origin: the `Origin` header; None where there is none (no browser, or a plain link).
        names: further host names under which the server may be reached.
        is_guarded: whether each request needs a password or key, which a foreign page does not have; then any host
            name will do.
    """
    name = _hostname(host)
    if not (is_guarded or is_loopback(name) or name in {allowed.lower() for allowed in names}):
        return "this server answers under the names of this machine alone; name others with --allow-host"
    if origin is None or method.upper() in _READING:
        return ""
    is_same = origin != "null" and urlsplit(origin).netloc.lower() == (host or "").lower()
    return "" if is_same else "a page of another site may not write here"


def _hostname(host: str | None) -> str:
    try:
        return (urlsplit(f"//{host or ''}").hostname or "").lower()
    except ValueError:
        return ""
