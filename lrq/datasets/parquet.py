"""Rows of a Parquet file, one in memory at a time as far as its pages allow."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from decimal import Decimal
from importlib import import_module
from typing import Any
from uuid import UUID

from lrq.domain.errors import LrqError, UsageError
from lrq.domain.lines import FIELDS

BUFFER = 1 << 20  # bytes read ahead
ROWS = 16  # in memory at once, where a column's part in a row group is small
SMALL = 4 << 20  # bytes
# A part that unpacks to more than that, and to a thousand times its bytes on disk, is no text: reading one of its pages
# may take all memory. Text shrinks to a tenth, one document in a hundred rows to a thousandth.
LARGE, GROWTH = 256 << 20, 1000
REPEATED = 100  # times its bytes on disk: values that repeat, which lists would unfold


class UnreadableRow(Exception):
    """A row, or a group of rows, that cannot be read; its text is the reason."""


class ParquetRows:
    """The rows of a file as (number from 1, values by column or UnreadableRow); `count` is how many it has.

    `ignored`: columns that are not read. `longest`: bytes of a row. Raises UsageError where the file cannot be read.
    """

    def __init__(self, path: str, longest: int) -> None:
        self._arrow, self._parquet = _pyarrow()
        self._path, self._longest = path, longest
        with closing(self._open()) as file:
            self.count: int = file.metadata.num_rows
            names = file.schema_arrow.names
        twice = next((name for name in names if name in FIELDS and names.count(name) > 1), "")
        if twice:
            raise UsageError(f"{path} has two columns named {twice}: rename one of them")
        self._columns = [name for name in names if name in FIELDS]
        self.ignored = {name: None for name in names if name not in FIELDS}

    def _open(self, dictionaries: Sequence[str] = ()) -> Any:
        """`dictionaries`: leaf columns whose repeated values are kept once."""
        options = {"read_dictionary": list(dictionaries), "buffer_size": BUFFER, "pre_buffer": False}
        try:
            return self._parquet.ParquetFile(self._path, **options)
        except (self._arrow.ArrowException, OSError) as error:
            raise UsageError(f"{self._path} is a damaged Parquet file: {_short(error)}") from None

    def __iter__(self) -> Iterator[tuple[int, "dict[str, Any] | UnreadableRow"]]:
        number = 0
        with closing(self._open()) as file:
            groups = [file.metadata.row_group(index) for index in range(file.metadata.num_row_groups)]
            columns = [[group.column(index) for index in range(group.num_columns)] for group in groups]
            parts = [[part for part in group if self._is_read(part)] for group in columns]
        for index, needed in enumerate(parts):
            try:
                for row in self._group(index, needed):
                    number += 1
                    yield number, row
            except UnreadableRow as why:
                yield number + 1, why
            except (self._arrow.ArrowException, OSError) as error:
                yield number + 1, UnreadableRow(f"the file is damaged ({_short(error)})")
                return
            number = sum(group.num_rows for group in groups[: index + 1])

    def _is_read(self, part: Any) -> bool:
        return part.path_in_schema.partition(".")[0] in self._columns

    def _group(self, number: int, parts: Sequence[Any]) -> Iterator["dict[str, Any] | UnreadableRow"]:
        for part in parts:
            size, packed = part.total_uncompressed_size, max(1, part.total_compressed_size)
            if size > LARGE and size > GROWTH * packed:
                raise UnreadableRow(
                    f"{part.path_in_schema} of row group {number} unpacks from {packed:,} bytes to {size >> 20:,} MB: "
                    "its rows are passed over"
                )
        large = [part for part in parts if part.total_uncompressed_size > SMALL]
        repeated = [part.path_in_schema for part in large if _is_repeated(part)]
        with closing(self._open(repeated)) as file:
            rows = 1 if large else ROWS
            for batch in file.iter_batches(rows, row_groups=[number], columns=self._columns, use_threads=False):
                for index in range(batch.num_rows):
                    yield self._row(batch.slice(index, 1))

    def _row(self, batch: Any) -> "dict[str, Any] | UnreadableRow":
        """Return the values of a batch of one row."""
        if sum(_bytes(column) for column in batch.columns) > self._longest:
            return UnreadableRow(f"the row is longer than {self._longest >> 20} MB")
        try:
            values = {name: _value(batch.column(name)) for name in batch.schema.names}
        except UnicodeDecodeError:
            return UnreadableRow("not UTF-8")
        return {**self.ignored, **values}


def _is_repeated(part: Any) -> bool:
    growth = part.total_uncompressed_size / max(1, part.total_compressed_size)
    return bool(part.physical_type == "BYTE_ARRAY" and growth > REPEATED)


def _bytes(column: Any) -> int:
    """Count the bytes that a column's values have, each time that they stand there."""
    if hasattr(column, "dictionary"):
        return sum(cell.value.as_buffer().size for cell in column if cell.is_valid)
    if hasattr(column, "flatten") and column.type.num_fields:  # lists and structs
        flat = column.flatten()
        return sum(map(_bytes, flat)) if isinstance(flat, list) else _bytes(flat)
    return int(column.nbytes)


def _value(column: Any) -> Any:
    """Return the one value of a column; ids of databases, and text stored as bytes, in plain types."""
    value = column[0].as_py()
    if isinstance(value, bytes):
        is_uuid = len(value) == 16 and str(column.type).startswith("fixed_size_binary")
        return str(UUID(bytes=value)) if is_uuid else value.decode()
    if isinstance(value, Decimal) and value == value.to_integral_value():
        return int(value)
    return str(value) if isinstance(value, UUID) else value


def _pyarrow() -> tuple[Any, Any]:
    try:
        return import_module("pyarrow"), import_module("pyarrow.parquet")
    except ImportError:
        raise LrqError("reading .parquet files needs pyarrow: pip install 'lrq[parquet]'") from None


def _short(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
