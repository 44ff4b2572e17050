"""Connections whose server may send little beside an answer: interim answers, headers, framing and trailers."""

from functools import partial
from typing import Any

import aiohttp
from aiohttp.client_proto import ResponseHandler

MOST_INTERIM = 20  # answers of status 1xx ahead of one request's; an honest server sends one or two
_MOST_BESIDE = 16 << 20  # bytes of a response that are not of its body …
_MOST_FRAMING = 8  # … and as many more for each byte of it: a byte in a chunk of its own takes six


class EndlessAnswer(aiohttp.ClientError):
    """A server that sends interim answers, framing or trailers, and hardly an answer."""


class BoundedConnector(aiohttp.TCPConnector):
    """Opens connections that end where a server sends more beside an answer than any honest one."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._factory: Any = partial(_BoundedHandler, loop=self._loop)


class _BoundedHandler(ResponseHandler):
    def __init__(self, loop: Any) -> None:
        super().__init__(loop)
        self._received = 0  # bytes since the request, of whatever kind
        self._interim = 0

    def set_response_params(self, **options: Any) -> None:
        """Begin with the next response of the connection."""
        self._received = self._interim = 0
        super().set_response_params(**options)

    def data_received(self, data: bytes) -> None:
        """Parse `data`, unless nearly all that has come so far is no answer: that ends the connection."""
        self._received += len(data)
        body = self._payload.total_bytes if self._payload is not None else 0
        if self._received - len(data) > _MOST_BESIDE + _MOST_FRAMING * body:
            error = EndlessAnswer()
            self.set_exception(error)
            if self._payload is not None:
                self._payload.set_exception(error)
            self.abort()
            return
        super().data_received(data)

    async def read(self) -> Any:
        """Return the next status and headers, with the body to come. Raises EndlessAnswer."""
        message, body = await super().read()
        self._interim += message.code < 200
        if self._interim > MOST_INTERIM:
            raise EndlessAnswer
        return message, body
