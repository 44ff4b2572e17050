"""The score API on the loopback: `/v1/score` as vLLM has it, one batch of texts at a time, for who has the token.

A pairwise model answers a list in place of a number: the logits of a text over each of the others.
"""

import asyncio
import hmac
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import orjson
from aiohttp import web

from lrq.domain.origin import refusal
from lrq.scorer.models import Scorer, TooLong

_LARGEST_BODY = 64 << 20  # bytes
_MOST_RESPONSES = 64  # a pairwise model compares each with each


def make_app(scorer: Scorer, *, token: str, names: tuple[str, ...]) -> web.Application:
    """Return the server of a model.

    Args:
        names: under which the model may be asked for; the first is shown in the list of models.
    """
    app = web.Application(client_max_size=_LARGEST_BODY, middlewares=[_guard(token)])
    thread = ThreadPoolExecutor(1, thread_name_prefix="scorer")  # one forward pass at a time

    async def score(request: web.Request) -> web.Response:
        try:
            body = orjson.loads(await request.read())
            prompt, responses = _read(body)
        except ValueError as error:  # not JSON, too
            return _error(400, str(error))
        if body.get("model") not in {*names, None}:
            return _error(404, f"unknown model {body['model']!r}: this scorer serves {names[0]}")
        try:
            rows, tokens = await asyncio.get_running_loop().run_in_executor(thread, scorer.score, prompt, responses)
        except TooLong as error:
            return _error(400, f"too long: {error}")
        data = [
            {"index": index, "object": "score", "score": row[0] if len(row) == 1 else row}
            for index, row in enumerate(rows)
        ]
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return _reply({"object": "list", "model": names[0], "data": data, "usage": usage})

    async def models(_request: web.Request) -> web.Response:
        return _reply({"object": "list", "data": [{"id": name, "object": "model"} for name in names]})

    app.router.add_post("/v1/score", score)
    app.router.add_get("/v1/models", models)
    return app


def _read(body: object) -> tuple[str, list[str]]:
    """Return prompt and responses of a request. Raises ValueError."""
    fields = body if isinstance(body, dict) else {}
    prompt, responses = fields.get("text_1"), fields.get("text_2")
    responses = [responses] if isinstance(responses, str) else responses
    if not isinstance(prompt, str) or not isinstance(responses, list) or not responses:
        raise ValueError("a request is an object whose text_1 is a text and whose text_2 is a text or a list of them")
    if not all(isinstance(text, str) for text in responses):
        raise ValueError("text_2 holds something that is no text")
    if len(responses) > _MOST_RESPONSES:
        raise ValueError(f"text_2 holds {len(responses)} texts; at most {_MOST_RESPONSES} are compared")
    return prompt, responses


def _guard(token: str) -> Any:
    """Return the middleware that lets a request pass with the token, and none of a page of another site."""
    expected = f"Bearer {token}".encode()

    @web.middleware
    async def check(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        headers = request.headers
        if reason := refusal(method=request.method, host=headers.get("Host"), origin=headers.get("Origin")):
            return _error(403, reason)
        if not hmac.compare_digest(headers.get("Authorization", "").encode("utf-8", "replace"), expected):
            return _error(401, "the scorer wants the token that lies in scorer.token of its LRQ_HOME")
        return await handler(request)

    return check


def _reply(body: Mapping[str, Any], status: int = 200) -> web.Response:
    return web.Response(body=orjson.dumps(body), status=status, content_type="application/json")


def _error(status: int, message: str) -> web.Response:
    return _reply({"error": {"message": message, "type": "invalid_request_error", "code": status}}, status)
