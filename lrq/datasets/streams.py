"""The bytes of a file as UTF-8, whatever they are packed in, a bounded piece at a time."""

import codecs
import io
import sys
import zlib
from collections.abc import Callable
from typing import IO, Any

import zstandard

from lrq.datasets import formats
from lrq.domain.errors import UsageError

BUFFER = 1 << 20  # bytes read ahead
# Packed bytes at once. Four of them may grow to 128 kB in zstd (a block that repeats one byte), so 1 kB to 32 MB at
# most; in gzip it is a thousandfold.
PIECE = 1 << 10


class Text(io.RawIOBase):
    """A file's bytes, unpacked and in UTF-8.

    `head` are the first ones, which are read too. `position`: bytes taken from disk. `problem`: why it ended early,
    once it has. `packing`: as lrq.datasets.formats has it; the bytes of Parquet are left as they are.
    """

    def __init__(self, path: str) -> None:
        raw = _Counted(sys.stdin.buffer if path == "-" else open(path, "rb"))  # noqa: SIM115 - closed with this
        self._raw = raw
        self._unpacked: _Unpacked | None = None
        start = _Headed(raw)
        self.packing = formats.packing(start.head)
        if self.packing in _DECOMPRESSORS:
            self._unpacked = _Unpacked(start, _DECOMPRESSORS[self.packing])
            start = _Headed(self._unpacked)
        codec = formats.encoding(start.head)
        if codec:
            start = _Headed(_Recoded(start, codec))
        self.head = start.head
        self._stream = start

    @property
    def position(self) -> int:
        return self._raw.position

    @property
    def problem(self) -> str:
        return "" if self._unpacked is None else self._unpacked.problem

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._stream.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Counted(io.RawIOBase):
    """The bytes of a file or of standard input, counted; standard input is left open."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.position = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        piece = self._stream.read1(len(buffer))
        buffer[: len(piece)] = piece
        self.position += len(piece)
        return len(piece)

    def close(self) -> None:
        if self._stream is not sys.stdin.buffer:
            self._stream.close()
        super().close()


class _Headed(io.RawIOBase):
    """A stream whose first bytes were looked at: they come first, then the rest."""

    def __init__(self, stream: io.RawIOBase) -> None:
        self._rest = io.BufferedReader(stream, BUFFER)
        self.head = self._rest.read(formats.HEAD)
        self._left = memoryview(self.head)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        piece = self._left[: len(buffer)] if self._left else self._rest.read1(len(buffer))
        self._left = self._left[len(piece) :]
        buffer[: len(piece)] = piece
        return len(piece)


class _Unpacked(io.RawIOBase):
    """Decompressed bytes of one or more frames; unlike the libraries' own readers it notices a cut one.

    What cannot be decompressed ends it, and `problem` says why: what came before counts.
    """

    def __init__(self, stream: io.RawIOBase, make: Callable[[], Any]) -> None:
        self._stream = io.BufferedReader(stream, BUFFER)
        self._make = make
        self._frame: Any = None
        self._ready = memoryview(b"")
        self.problem = ""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready and not self.problem and (piece := self._stream.read(PIECE)):
            try:
                self._ready = memoryview(self._decompress(piece))
            except (zstandard.ZstdError, zlib.error) as error:
                self.problem = str(error)
        if not self._ready and not self.problem and self._frame is not None:
            self.problem = "cut within a frame"
        count = min(len(buffer), len(self._ready))
        buffer[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count

    def _decompress(self, piece: bytes) -> bytes:
        grown = []
        while piece:
            if self._frame is None and not piece.strip(b"\0"):
                break  # zeros fill up the last block of a tape
            frame = self._frame or self._make()
            grown.append(frame.decompress(piece))
            piece = frame.unused_data if frame.eof else b""
            self._frame = None if frame.eof else frame
        return b"".join(grown)


_DECOMPRESSORS: dict[str, Callable[[], Any]] = {
    "gzip": lambda: zlib.decompressobj(zlib.MAX_WBITS | 16),
    "zstd": lambda: zstandard.ZstdDecompressor().decompressobj(),
}


class _Recoded(io.RawIOBase):
    """Text of another encoding as UTF-8; halves of surrogate pairs stay what they are, so that a line can be blamed."""

    def __init__(self, stream: io.RawIOBase, codec: str) -> None:
        self._stream = io.BufferedReader(stream, BUFFER)
        self._decoder = codecs.getincrementaldecoder(codec)("surrogatepass")
        self._ready = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready and (piece := self._stream.read1(BUFFER)):
            self._ready = memoryview(self._decoder.decode(piece).encode("utf-8", "surrogatepass"))
        count = min(len(buffer), len(self._ready))
        buffer[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count


def open_text(path: str) -> Text:
    """Open a file of JSON objects or of Parquet. Raises UsageError where it is neither."""
    try:
        text = Text(path)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None
    if text.packing == "parquet":
        return text
    if text.problem and not text.head:
        reason = f"{text.packing} data that cannot be decompressed: {text.problem}"
    elif formats.packing(text.head):
        reason = f"packed twice, in {text.packing} and again: unpack it once"
    else:
        reason = formats.foreign(text.head)
    if reason:
        text.close()
        raise UsageError(f"{'standard input' if path == '-' else path} is {reason}")
    return text


def buffered(stream: io.RawIOBase) -> IO[bytes]:
    return io.BufferedReader(stream, BUFFER)
