"""The proxy of an endpoint: the one that its settings name, or the environment's where they say so; else none."""

from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from lrq.config import ENVIRONMENT, Endpoint, resolve
from lrq.domain.origin import is_loopback


def proxy_of(endpoint: Endpoint) -> str | None:
    """Return the URL of the proxy through which the endpoint is asked, password included; None: it is asked itself."""
    setting = endpoint.proxy.get_secret_value() if endpoint.proxy is not None else None
    return environment_proxy(endpoint.url) if setting == ENVIRONMENT else setting and resolve(setting)


def environment_proxy(url: str) -> str | None:
    """Return what HTTP_PROXY or HTTPS_PROXY names for this `url`; None where NO_PROXY says so, and for this machine."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    proxy = None if is_loopback(host) or proxy_bypass(host) else getproxies().get(parts.scheme)
    return proxy if not proxy or "://" in proxy else f"http://{proxy}"


def ignored_proxy(endpoint: Endpoint) -> str | None:
    """Return the environment's proxy for an endpoint whose settings have no `proxy`; None where there is none."""
    return environment_proxy(endpoint.url) if endpoint.proxy is None else None
