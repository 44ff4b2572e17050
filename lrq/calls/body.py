"""The body of an answer: whatever a server sends, and however it is packed, memory and time for it are bounded."""

import asyncio
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp

from lrq.calls.forms import limit_of
from lrq.domain.records import Call

ACCEPTED = "gzip, deflate"  # what can be unpacked piece by piece; nothing else is asked for

_MIB = 1 << 20
_ANY_REPLY = 4 * _MIB  # bytes: a million tokens of hidden thoughts
_PER_TOKEN = 64  # bytes: Chinese as \uXXXX, and an emoji as two of them
_PER_LOGPROB = 4096  # bytes: twenty alternatives with the bytes of each
_PER_VECTOR = _MIB // 4  # bytes: 8,192 numbers with all their digits
_NEVER_LIMITED = 32_768  # tokens of a reply whose call names no limit
_ROOM_FOR_VALUES = 96 * _MIB  # bytes that a reply may take once it is parsed
_PER_VALUE, _PER_OBJECT = 32, 192  # bytes that Python takes for a value, and for the smallest object
_MOST_MEMBERS = 100  # of a gzip stream; an honest answer has one
_PLAIN = ("", "identity")
_WINDOWS = {"gzip": 31, "deflate": 15}  # zlib's numbers for the wrapping of each
_BARE = -15  # deflate without a wrapping, as some servers send it
_SMALL = _MIB // 4  # bytes: what is longer is read by a few at a time
LARGE_AT_ONCE = 6  # answers of one endpoint beyond _SMALL that are in memory together


@dataclass(frozen=True, kw_only=True)
class Body:
    """What was read of an answer."""

    data: bytes  # unpacked
    received: int  # bytes as they came, packed or not
    problem: str = ""  # why it is not the whole answer, in words that follow "the reply"; empty if it is
    cut: str = ""  # the error that cut it off; empty where none did


def largest_reply(call: Call, sent: Mapping[str, Any]) -> int:
    """Return how many bytes an honest answer to the call can have, an error that repeats the request included.

    `sent` are the request's parameters: the limit of the reply, how many replies, and what comes along with each.
    """
    if call.role == "embedding":
        return _ANY_REPLY + _PER_VECTOR * len(call.input)
    per_token = _PER_LOGPROB if any("logprob" in name for name in sent) else _PER_TOKEN
    per_byte = 8 if "return_token_ids" in sent else 2  # those of the prompt come along
    tokens = (limit_of(sent) or _NEVER_LIMITED) * int(sent.get("n", 1))
    return _ANY_REPLY + per_token * tokens + per_byte * call.size


async def read_body(response: aiohttp.ClientResponse, most: int, large: asyncio.Semaphore | None = None) -> Body:
    """Read and unpack at most so many bytes, then close the connection if there are more.

    Args:
        response: must not unpack by itself (`auto_decompress=False`).
        most: bytes, packed or unpacked, whichever are more.
        large: bounds how many answers are read at once once they have proven to be long.

    Where the connection breaks or the time ends, what came before is returned, with the `problem`.
    """
    reader = _Reader(response.headers.get("Content-Encoding", ""), most)
    await reader.take(response.content, _SMALL)
    if reader.is_open:
        async with large or asyncio.Semaphore():
            await reader.take(response.content, most + 1)
    if reader.problem:
        response.close()
    return Body(data=bytes(reader.data), received=reader.received, problem=reader.problem, cut=reader.cut)


def is_overgrown(body: Body) -> bool:
    """Say whether the body, parsed as JSON, would take much more memory than its bytes: it is no honest reply."""
    if _PER_OBJECT * len(body.data) <= _ROOM_FOR_VALUES:
        return False
    objects = body.data.count(b"{") + body.data.count(b"[")
    return _PER_OBJECT * objects + _PER_VALUE * body.data.count(b",") > max(_ROOM_FOR_VALUES, 8 * len(body.data))


class _Reader:
    """Counts an answer's bytes before and after they are unpacked; neither may be more than `most`."""

    def __init__(self, encoding: str, most: int) -> None:
        self.data = bytearray()
        self.received = 0
        self.problem = self.cut = ""
        self.is_open = True
        self._most = most
        self._encoding = encoding.strip().lower().removeprefix("x-")
        self._unpacker: Any = None  # of the member that is being read
        self._members = 0

    async def take(self, stream: aiohttp.StreamReader, until: int) -> None:
        """Read on until there are `until` bytes, packed or not, the answer ends, or it shows to be none."""
        while self.is_open and max(len(self.data), self.received) < until:
            if stream.at_eof():
                self.is_open = False
                return
            try:
                packed = await stream.readany()
            except (aiohttp.ClientError, OSError) as error:  # a timeout is one, too
                self.cut = type(error).__name__
                self.problem = self.problem or f"was cut off after {self.received:,} bytes ({self.cut})"
                self.is_open = False
                return
            if not packed:
                self.is_open = False
                return
            self.received += len(packed)
            try:
                self._unpack(packed)
            except zlib.error:
                self.problem = "cannot be unpacked"
            if max(len(self.data), self.received) > self._most:
                self.problem = f"is longer than {self._most:,} bytes and was not read to its end"
                self.is_open = False

    def _unpack(self, packed: bytes) -> None:
        """Add what came to the data; once something is wrong it is only counted."""
        if self.problem or self._encoding in _PLAIN:
            self.data += b"" if self.problem else packed
            return
        if self._encoding not in _WINDOWS:
            self.problem = "is packed in a way that was not asked for"
        while packed and not self.problem and len(self.data) <= self._most:
            if self._unpacker is None:
                self._members += 1
                is_bare = self._encoding == "deflate" and packed[0] & 15 != zlib.DEFLATED
                self._unpacker = zlib.decompressobj(_BARE if is_bare else _WINDOWS[self._encoding])
            self.data += self._unpacker.decompress(packed, self._most + 1 - len(self.data))
            packed = self._unpacker.unconsumed_tail
            if self._unpacker.eof:
                packed, self._unpacker = self._unpacker.unused_data, None
            if self._members > _MOST_MEMBERS:
                self.problem = "cannot be unpacked"
