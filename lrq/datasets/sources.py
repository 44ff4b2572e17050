"""The objects of files, one in memory at a time: JSON lines and arrays, plain or packed, Parquet, and CSV."""

import csv
import glob
import io
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any, Generic, TypeVar

import orjson

from lrq.datasets import formats
from lrq.datasets.json_arrays import split_objects
from lrq.datasets.parquet import ParquetRows, UnreadableRow
from lrq.datasets.streams import BUFFER, Text, buffered, open_text
from lrq.domain.errors import UsageError
from lrq.domain.lines import ALIASES

T = TypeVar("T")

MAX_LINE = 64 << 20  # bytes of a line, an array's element or a row; a million characters are at most 6 MB of JSON
DATA = (".jsonl", ".json", ".ndjson", ".parquet")  # names of a folder's files that are read
PACKED = ("", ".gz", ".zst")
_EXACT = 2**53  # whole numbers up to it are exact as floats


@dataclass(frozen=True, kw_only=True)
class Line(Generic[T]):
    """One line of a file: what it holds, or why it is rejected."""

    number: int  # 1 is the first; of an array the element, of a Parquet file the row
    value: T | None = None
    reason: str = ""  # empty unless value is None
    source: str = ""  # the file, as messages call it


class Source:
    """The objects of a file, of all data files of a folder or a pattern (`part-*.jsonl`), or of standard input (`-`).

    What a file is its content says, not its name. `position` of `total` says how far reading is, in bytes on disk;
    `total` is None where nobody knows. Raises UsageError where there is nothing to read, or nothing that lrq can read.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.position = 0
        self.files = [path] if path == "-" else find_files(path)
        base = os.path.commonpath([os.path.dirname(os.path.abspath(file)) for file in self.files])
        self._names = {file: file if file == "-" else os.path.relpath(file, base) for file in self.files}
        self.total = None if path == "-" else sum(os.path.getsize(file) for file in self.files)
        self._stdin: Text | None = None
        for file in self.files:
            text = open_text(file)
            if text.packing == "parquet":
                _check_parquet(file)
            if file == "-":
                self._stdin = text  # its first bytes cannot be read again
            else:
                text.close()

    def __iter__(self) -> Iterator[Line[Mapping[str, Any]]]:
        before = 0
        for file in self.files:
            text = self._stdin or open_text(file)
            read = self._table if formats.is_table(text.head) else self._lines
            read = partial(self._rows, file) if text.packing == "parquet" else read
            with closing(text):
                yield from read(self._names[file], text, before)
            before += 0 if file == "-" else os.path.getsize(file)

    def _lines(self, name: str, text: Text, before: int) -> Iterator[Line[Mapping[str, Any]]]:
        number = 0
        for number, raw in enumerate(_raw_lines(buffered(text), formats.is_spread(text.head)), 1):
            self.position = before + text.position
            if text.problem and not raw.endswith(b"\n"):
                number -= 1  # noqa: PLW2901 - the piece of a line before the damage is none
                break
            line = raw.removeprefix(formats.UTF8_MARK) if number == 1 else raw
            if line.strip():
                yield _parse(name, number, line)
        if text.problem and number == 0:
            raise UsageError(f"{name} cannot be decompressed: {text.problem}")
        if text.problem:
            reason = f"the compressed data is damaged or ends early ({text.problem})"
            yield Line(number=number + 1, reason=reason, source=name)

    def _table(self, name: str, text: Text, before: int) -> Iterator[Line[Mapping[str, Any]]]:
        """Yield the rows of a CSV by the names of its first; their texts may go over several lines."""
        csv.field_size_limit(MAX_LINE)
        stream = io.TextIOWrapper(buffered(text), encoding="utf-8-sig", errors="surrogateescape", newline="")
        rows, number = csv.reader(stream), 0
        columns = next(rows)
        try:
            for number, row in enumerate(rows, 1):
                self.position = before + text.position
                if any(row):
                    yield Line(number=number, value=dict(zip(columns, row, strict=False)), source=name)
        except csv.Error as error:
            yield Line(number=number + 1, reason=f"not CSV from here on ({error})", source=name)

    def _rows(self, file: str, name: str, _: Text, before: int) -> Iterator[Line[Mapping[str, Any]]]:
        rows, size = ParquetRows(file, MAX_LINE), os.path.getsize(file)
        for number, row in rows:
            self.position = before + size * min(number, rows.count) // max(1, rows.count)
            if isinstance(row, UnreadableRow):
                yield Line(number=number, reason=str(row), source=name)
            else:
                yield Line(number=number, value=row, source=name)


def find_files(path: str) -> list[str]:
    """Return the files that `path`, a file, folder or pattern, names, in the order of their names; or UsageError."""
    if path.startswith("hf://"):
        raise UsageError(f"{path}: lrq reads files of this machine; download the data set first")
    if os.path.isdir(path):
        files = [str(entry) for entry in sorted(Path(path).iterdir()) if entry.is_file() and _is_data(entry.name)]
        if not files:
            raise UsageError(f"{path} is a folder without a file that ends in {', '.join(DATA)}, .gz or .zst")
    elif os.path.exists(path) or not glob.has_magic(path):
        files = [path]
    else:
        files = sorted(entry for entry in glob.glob(path, recursive=True) if os.path.isfile(entry))
        if not files:
            raise UsageError(f"cannot read {path}: no file has such a name")
    for file in files:
        if not os.path.exists(file):
            raise UsageError(f"cannot read {file}: No such file or directory")
        if not os.access(file, os.R_OK):
            raise UsageError(f"cannot read {file}: it is closed to this user")
    return files


def _is_data(name: str) -> bool:
    return not name.startswith(".") and name.lower().endswith(tuple(form + pack for form in DATA for pack in PACKED))


def _check_parquet(file: str) -> None:
    if file == "-":
        raise UsageError("Parquet cannot be read from standard input: give the file's name")
    ParquetRows(file, MAX_LINE)


def _raw_lines(stream: IO[bytes], is_spread: bool) -> Iterator[bytes]:
    """Return lines with their ends; an over-long one is one byte too long, the rest of it is skipped."""
    if is_spread:
        yield from split_objects(iter(partial(stream.read, BUFFER), b""), MAX_LINE)
        return
    while raw := stream.readline(MAX_LINE + 1):
        end = raw
        while len(raw) > MAX_LINE and end and not end.endswith(b"\n"):
            end = stream.readline(BUFFER)
        yield raw


def _parse(file: str, number: int, raw: bytes) -> Line[Mapping[str, Any]]:
    bad = partial(Line[Mapping[str, Any]], number=number, source=file)
    if len(raw) > MAX_LINE:
        return bad(reason=f"the line is longer than {MAX_LINE >> 20} MB")
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        try:
            value = _lenient(raw)
        except (ValueError, RecursionError):
            return bad(reason=_why_not_json(raw, error))
    if not isinstance(value, dict):
        return bad(reason="not a JSON object")
    if any(isinstance(value.get(name), float) and abs(value[name]) >= _EXACT for name in ("id", *ALIASES["id"])):
        value = _lenient(raw)  # a whole number beyond 64 bits: here it keeps its digits
    return Line(number=number, value=value, source=file)


def _lenient(raw: bytes) -> Any:
    """Parse what Python and pandas write and JSON does not have: NaN and infinities, which stand for nothing."""
    loads: Callable[..., Any] = json.loads
    return loads(raw.decode(), parse_constant=lambda _: None)


def _why_not_json(raw: bytes, error: orjson.JSONDecodeError) -> str:
    if not raw.strip(b"\0 \r\n"):
        return "NUL characters alone: a hole that a crash has left"
    if not raw.endswith(b"\n"):
        return f"torn: the last line has no end and is not JSON ({error.msg})"
    try:
        raw.decode()
    except UnicodeDecodeError as not_utf8:
        return f"not UTF-8 (byte {not_utf8.start + 1} of the line)"
    if error.msg.startswith("unexpected content after document") and b"{" in raw[error.pos : error.pos + 2]:
        return "more than one JSON object; each wants a line of its own"
    return f"not JSON ({error.msg} at column {error.colno})"
