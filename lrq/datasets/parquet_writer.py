"""Lines of JSON as a Parquet file, in memory that does not grow with their number."""

import tempfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import orjson

from lrq.domain.errors import LrqError

ROWS_AT_ONCE = 256


def write_parquet(lines: Iterator[dict[str, Any]], path: Path) -> int:
    """Write `lines` to `path`, whose columns are known once all were seen; return their number. Raises LrqError."""
    try:
        import pyarrow as pa  # noqa: PLC0415 - of an extra
        import pyarrow.parquet as pq  # noqa: PLC0415
    except ImportError:
        raise LrqError("Parquet needs pyarrow: pip install 'lrq[parquet]', or name a file in JSON lines") from None
    with tempfile.TemporaryFile(dir=path.absolute().parent) as stream:
        count = sum(stream.write(orjson.dumps(_valued(line), option=orjson.OPT_APPEND_NEWLINE)) > 0 for line in lines)
        schemas = [pa.RecordBatch.from_pylist(chunk).schema for chunk in _chunks(stream)]
        schema = pa.schema([])
        for candidate in schemas:
            schema = pa.unify_schemas([schema, candidate], promote_options="permissive")
        temporary = path.with_name(f".{path.name}.part")
        with pq.ParquetWriter(temporary, schema) as writer:
            for chunk in _chunks(stream):
                writer.write_batch(pa.RecordBatch.from_pylist(chunk, schema=schema))
        temporary.replace(path)
    return count


def _chunks(stream: Any) -> Iterator[list[dict[str, Any]]]:
    stream.seek(0)
    while lines := list(islice(stream, ROWS_AT_ONCE)):
        yield [orjson.loads(line) for line in lines]


def _valued(value: Any) -> Any:
    """Put nothing in the place of an object without fields, which Parquet cannot hold."""
    if isinstance(value, dict):
        return {name: _valued(part) for name, part in value.items()} or None
    return [_valued(part) for part in value] if isinstance(value, list) else value
