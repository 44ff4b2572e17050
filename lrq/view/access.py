"""Who may read a viewer: whoever has the token of its URL. A page of another site does not, and may not write."""

import hmac
import secrets
from collections.abc import Awaitable, Callable
from urllib.parse import quote

from aiohttp import web
from aiohttp.typedefs import Middleware

from lrq.domain.origin import refusal

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def new_token() -> str:
    return secrets.token_urlsafe(24)


def guard(token: str) -> Middleware:
    """Return the middleware that lets a request pass with the token: once in the URL, then in a cookie.

    The cookie is named for the port, since a browser sends those of all ports of a machine.
    """

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        headers = request.headers
        reason = refusal(method=request.method, host=headers.get("Host"), origin=headers.get("Origin"))
        if reason:
            return _refused(reason)
        name = cookie_name(request)
        if request.method == "GET" and _is_equal(request.query.get("token", ""), token):
            answer: web.StreamResponse = web.Response(status=303, headers={"Location": quote(request.path)})
            answer.set_cookie(name, token, httponly=True, samesite="Strict", path="/")
            answer.headers.update(HEADERS)
            return answer
        if not _is_equal(request.cookies.get(name, ""), token):
            return _refused("open the link that `lrq view` printed: it has the token that this page asks for")
        answer = await _answer(request, handler)
        answer.headers.update(HEADERS)
        return answer

    return check


async def _answer(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except web.HTTPException as status:
        return web.Response(status=status.status, text=f"{status.reason}\n")


def cookie_name(request: web.Request) -> str:
    port = request.url.port
    return f"lrq_view_{port}"


def _is_equal(given: str, token: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "replace"), token.encode())


def _refused(reason: str) -> web.Response:
    return web.Response(status=403, text=f"{reason}\n", headers=HEADERS)
