"""Files of preference rows: JSON lines, a JSON array, Parquet, compressed or in a folder, each row with its number."""

import gzip
import io
import os
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import IO, Any, cast

import orjson
import zstandard

from lrq.domain.errors import LrqError, UsageError

_SUFFIXES = (".parquet", ".jsonl", ".json", ".jsonl.gz", ".jsonl.zst", ".json.gz", ".json.zst")
_TRAIN = ("train", "validation", "test", "eval", "dev")  # names of splits: the first is trained on


def find_rows(name: Path) -> Path:
    """Return the file or folder at the path `name`, or the data set of that name in the local hub cache.

    Raises UsageError where there is none or it holds no rows' file. Nothing is downloaded.
    """
    path = name.expanduser()
    if path.exists():
        return _with_files(path.absolute())
    if str(name).count("/") != 1 or str(name).startswith((".", "/", "~")) or _is_data(name):
        raise UsageError(f"{name} is no file: name a preference file in JSON lines or Parquet")
    return _with_files(_in_cache(str(name)))


def is_file_of_rows(source: str) -> bool:
    """Tell whether `source` means rows rather than a run: a path, a file's name, or owner/name of a data set."""
    return Path(source).expanduser().exists() or "/" in source or _is_data(Path(source))


def data_files(path: Path) -> list[Path]:
    """Return the files with rows: `path` itself, or all in the folder that are not of another split than train."""
    if path.is_file():
        return [path]
    files = [file for file in sorted(path.rglob("*")) if file.is_file() and _is_data(file) and file.name[0] != "."]
    train = [file for file in files if _split(file, path) == "train"]
    return train or [file for file in files if _split(file, path) is None]


def read_records(path: Path) -> Iterator[tuple[int, bytes | dict[str, Any]]]:
    """Yield each row's number, from 1, with its line of JSON or its content, of all files under `path`.

    Raises LrqError where one cannot be read.
    """
    number = 0
    for file in data_files(path):
        try:
            for record in _records(file):
                number += 1
                if record:
                    yield number, record
        except (OSError, EOFError, zstandard.ZstdError, ValueError) as error:
            raise LrqError(f"{file} cannot be read: {str(error).splitlines()[0]}") from error


def _with_files(path: Path) -> Path:
    if not data_files(path):
        raise UsageError(f"{path} holds no file of rows ({', '.join(_SUFFIXES)})")
    return path


def _is_data(path: Path) -> bool:
    return path.name.endswith(_SUFFIXES)


def _split(file: Path, folder: Path) -> str | None:
    """Return the split that a file's name or its folders' names begin with; None: it names none."""
    names = file.relative_to(folder).parts
    return next((split for split in _TRAIN for name in reversed(names) if name.lower().startswith(split)), None)


def _in_cache(name: str) -> Path:
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    from huggingface_hub import snapshot_download  # noqa: PLC0415 - for those alone who name a data set
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError  # noqa: PLC0415

    try:
        return Path(snapshot_download(name, repo_type="dataset", local_files_only=True))
    except (HFValidationError, LocalEntryNotFoundError):
        raise UsageError(
            f"{name} is neither a file nor a data set of the local hub cache; "
            f"get it with: hf download --repo-type dataset {name}"
        ) from None


def _records(file: Path) -> Iterator[bytes | dict[str, Any]]:
    if file.suffix == ".parquet":
        yield from _parquet(file)
        return
    with _opened(file) as stream:
        first = next((line for line in stream if line.strip()), b"")
        if first.lstrip().startswith(b"[") and not _is_json(first):  # an array over several lines
            yield from orjson.loads(first + stream.read())
        elif first.lstrip().startswith(b"[{"):
            yield from orjson.loads(first)
        else:
            yield from (line.strip() for line in chain([first], stream))


def _opened(file: Path) -> IO[bytes]:
    if file.suffix == ".gz":
        return cast(IO[bytes], gzip.open(file))
    if file.suffix == ".zst":
        return io.BufferedReader(cast(io.RawIOBase, zstandard.open(file, "rb")))
    return file.open("rb")


def _is_json(line: bytes) -> bool:
    try:
        orjson.loads(line)
    except orjson.JSONDecodeError:
        return False
    return True


def _parquet(file: Path) -> Iterator[dict[str, Any]]:
    import pyarrow.parquet as pq  # noqa: PLC0415 - of the extras

    with pq.ParquetFile(file) as table:
        for batch in table.iter_batches(batch_size=64):
            yield from batch.to_pylist()
