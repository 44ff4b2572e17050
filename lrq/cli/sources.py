"""The JSON objects of a file, one in memory at a time: JSON lines, plain or under zstd, and Parquet."""

import io
import os
import stat
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from importlib import import_module
from typing import IO, Any, Generic, TypeVar

import orjson
import zstandard

from lrq.domain.errors import LrqError, UsageError
from lrq.domain.lines import FIELDS

T = TypeVar("T")

MAX_LINE = 64 << 20  # bytes of one line; a million characters are at most 6 MB of JSON
BUFFER = 1 << 20  # bytes read ahead
PIECE = 1 << 14  # compressed bytes at once, since each may grow some thousandfold
ROWS = 16  # Parquet rows in memory at once

_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, kw_only=True)
class Line(Generic[T]):
    """One line of a file: what it holds, or why it is set aside."""

    number: int  # 1 is the first; of a Parquet file, the row
    value: T | None = None
    reason: str = ""  # empty unless value is None


class Source:
    """The objects of a `.jsonl`, `.jsonl.zst` or `.parquet` file, or of standard input (`-`).

    `position` of `total` says how far reading is, in bytes on disk (Parquet: rows); `total` is None where nobody
    knows. Raises UsageError where there is nothing to read.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.position = 0
        self.total = None if path == "-" else _size(path)

    def __iter__(self) -> Iterator[Line[Mapping[str, Any]]]:
        return self._rows() if self.path.endswith(".parquet") else self._lines()

    def _lines(self) -> Iterator[Line[Mapping[str, Any]]]:
        number = 0
        packed = _open(self.path)
        with io.BufferedReader(packed, BUFFER) as stream:
            try:
                for number, raw in enumerate(_raw_lines(stream), 1):
                    self.position = packed.position
                    text = raw.removeprefix(_BOM) if number == 1 else raw
                    if text.strip():
                        yield _parse(number, text)
            except (zstandard.ZstdError, EOFError) as error:
                if number == 0:
                    raise UsageError(f"{self.path} cannot be decompressed: {error}") from None
                yield Line(number=number + 1, reason=f"the compressed data is damaged or ends early ({error})")

    def _rows(self) -> Iterator[Line[Mapping[str, Any]]]:
        arrow, parquet = _pyarrow()
        try:
            file = parquet.ParquetFile(self.path, buffer_size=BUFFER, pre_buffer=False)
        except (arrow.ArrowException, OSError) as error:
            raise UsageError(f"{self.path} is no Parquet file: {_short(error)}") from None
        with closing(file):
            self.position, self.total = 0, file.metadata.num_rows
            names = file.schema_arrow.names
            unread = {name: None for name in names if name not in FIELDS}
            batches = file.iter_batches(ROWS, columns=[name for name in names if name in FIELDS], use_threads=False)
            try:
                for batch in batches:
                    for at in range(batch.num_rows):
                        self.position += 1
                        yield _row(self.position, batch, at, unread)
            except (arrow.ArrowException, OSError) as error:
                yield Line(number=self.position + 1, reason=f"the file is damaged ({_short(error)})")


class _Plain(io.RawIOBase):
    """The bytes of a file or of standard input, counted."""

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


class _Zstd(io.RawIOBase):
    """Decompressed bytes of one or more frames; unlike the library's own reader it notices a cut frame."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._frame: Any = None
        self._ready = memoryview(b"")
        self.position = 0  # compressed bytes taken so far

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready and (piece := self._stream.read(PIECE)):
            self.position += len(piece)
            self._ready = memoryview(self._decompress(piece))
        if not self._ready and self._frame is not None:
            raise EOFError("cut within a frame")
        count = min(len(buffer), len(self._ready))
        buffer[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count

    def _decompress(self, piece: bytes) -> bytes:
        grown = []
        while piece:
            frame = self._frame or zstandard.ZstdDecompressor().decompressobj()
            grown.append(frame.decompress(piece))
            piece = frame.unused_data if frame.eof else b""
            self._frame = None if frame.eof else frame
        return b"".join(grown)

    def close(self) -> None:
        self._stream.close()
        super().close()


def _size(path: str) -> int:
    """Bytes of the file. Raises UsageError unless it can be read and has a form we know."""
    if not path.endswith((".jsonl", ".jsonl.zst", ".parquet")):
        raise UsageError(f"{path}: lrq reads .jsonl, .jsonl.zst and .parquet files, or - for standard input")
    try:
        info = os.stat(path)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None
    if stat.S_ISDIR(info.st_mode) or not os.access(path, os.R_OK):
        raise UsageError(f"cannot read {path}: it is a folder, or closed to this user")
    return info.st_size


def _open(path: str) -> _Plain | _Zstd:
    if path == "-":
        return _Plain(sys.stdin.buffer)
    file = open(path, "rb")  # noqa: SIM115 - closed with what it is wrapped in
    return _Zstd(file) if path.endswith(".zst") else _Plain(file)


def _raw_lines(stream: IO[bytes]) -> Iterator[bytes]:
    """Lines with their ends; an over-long one is one byte too long, the rest of it is skipped."""
    while raw := stream.readline(MAX_LINE + 1):
        end = raw
        while len(raw) > MAX_LINE and end and not end.endswith(b"\n"):
            end = stream.readline(BUFFER)
        yield raw


def _parse(number: int, raw: bytes) -> Line[Mapping[str, Any]]:
    if len(raw) > MAX_LINE:
        return Line(number=number, reason=f"the line is longer than {MAX_LINE >> 20} MB")
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        return Line(number=number, reason=_why_not_json(raw, error))
    if not isinstance(value, dict):
        return Line(number=number, reason="not a JSON object")
    return Line(number=number, value=value)


def _why_not_json(raw: bytes, error: orjson.JSONDecodeError) -> str:
    if not raw.endswith(b"\n"):
        return f"torn: the last line has no end and is not JSON ({error.msg})"
    try:
        raw.decode()
    except UnicodeDecodeError as not_utf8:
        return f"not UTF-8 (byte {not_utf8.start + 1} of the line)"
    return f"not JSON ({error.msg} at column {error.colno})"


def _row(number: int, batch: Any, at: int, unread: Mapping[str, None]) -> Line[Mapping[str, Any]]:
    try:
        read = {name: batch.column(name)[at].as_py() for name in batch.schema.names}
    except UnicodeDecodeError:
        return Line(number=number, reason="not UTF-8")
    return Line(number=number, value={**unread, **read})


def _pyarrow() -> tuple[Any, Any]:
    try:
        return import_module("pyarrow"), import_module("pyarrow.parquet")
    except ImportError:
        raise LrqError("reading .parquet files needs pyarrow: pip install 'lrq[parquet]'") from None


def _short(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
