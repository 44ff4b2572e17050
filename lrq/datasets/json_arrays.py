"""JSON objects that are told apart by their braces instead of by lines: of an array, or written over many lines.

A library for streams of JSON (ijson) builds each element before anyone can ask for its size; here elements are cut out
as bytes, no longer than a bound, and then parsed like lines.
"""

import re
from collections.abc import Iterable, Iterator

_OUTSIDE = re.compile(rb'["{}\[\]]')  # what matters outside of a string
_INSIDE = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+', re.DOTALL)  # the rest of a string, up to its quote
_BETWEEN = b" \t\r\n,\xef\xbb\xbf"


def split_objects(chunks: Iterable[bytes], longest: int) -> Iterator[bytes]:
    """Return the elements in turn, and what stands between them if it is more than commas and white space.

    Whole elements end with a line feed, as lines do: what does not was torn. Of one that is longer than `longest`
    bytes the first `longest + 1` are given.
    """
    splitter = _Splitter(longest)
    for chunk in chunks:
        yield from splitter.feed(chunk)
    yield from splitter.rest()


class _Splitter:
    def __init__(self, longest: int) -> None:
        self._longest = longest
        self._parts: list[bytes] = []  # of the element, or of what stands before it
        self._length = 0
        self._depth = self._base = 0  # base: 1 within the outer array
        self._in_string = self._is_escaped = False

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        begin, position = 0, int(self._is_escaped)
        self._is_escaped = False
        while position < len(chunk):
            position, mark = self._next(chunk, position)
            if mark in (b"{", b"["):
                if self._depth == self._base:  # an element begins here
                    self._add(chunk[begin : position - 1])
                    yield from self._take(b"\n")
                    begin = position - 1
                if self._depth == 0 and mark == b"[":
                    self._base, begin = 1, position
                self._depth += 1
            elif mark and self._depth:
                self._depth -= 1
                if self._depth == self._base:
                    self._add(chunk[begin:position])
                    yield from self._take(b"\n")
                    begin = position
                elif self._depth < self._base:  # the outer array ends
                    self._add(chunk[begin : position - 1])
                    yield from self._take(b"\n")
                    self._base, begin = 0, position
        self._add(chunk[begin:])

    def _next(self, chunk: bytes, position: int) -> tuple[int, bytes]:
        """Return the place behind the next bracket and the bracket; none where the chunk ends before."""
        while position < len(chunk):
            if self._in_string:
                position = _INSIDE.match(chunk, position).end()  # type: ignore[union-attr]  # it matches anything
                self._is_escaped = (
                    chunk[position : position + 1] == b"\\"
                )  # at the end: it escapes the next chunk's first
                self._in_string = position == len(chunk) or self._is_escaped
                position += 1
            elif hit := _OUTSIDE.search(chunk, position):
                position = hit.end()
                if hit[0] != b'"':
                    return position, hit[0]
                self._in_string = True
            else:
                break
        return len(chunk), b""

    def _add(self, part: bytes) -> None:
        room = self._longest + 1 - self._length
        if part and room > 0:
            self._parts.append(part[:room])
            self._length += len(self._parts[-1])

    def rest(self) -> Iterator[bytes]:
        """Return what was begun and has no end."""
        yield from self._take(b"")

    def _take(self, end: bytes) -> Iterator[bytes]:
        """Return what was gathered, unless it is only what may stand between elements."""
        element = b"".join(self._parts).lstrip(_BETWEEN)
        self._parts, self._length = [], 0
        if element:
            yield (element if len(element) > self._longest else element.rstrip(_BETWEEN)) + end
