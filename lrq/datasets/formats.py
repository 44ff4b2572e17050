"""What a file is by its first bytes, whatever its name says. Pure."""

import re
from collections.abc import Mapping

HEAD = 1 << 16  # bytes that are looked at

_GZIP, _PARQUET = b"\x1f\x8b", b"PAR1"
_ZSTD = re.compile(rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18")  # a frame, or one to be skipped
_MARKS = {  # byte order marks; the longer ones first, since one of them begins with another
    b"\x00\x00\xfe\xff": "utf-32-be",
    b"\xff\xfe\x00\x00": "utf-32-le",
    b"\xfe\xff": "utf-16-be",
    b"\xff\xfe": "utf-16-le",
}
UTF8_MARK = b"\xef\xbb\xbf"
_UNPACK = "unpack it first"
_FOREIGN: Mapping[bytes, str] = {
    b"PK\x03\x04": f"a zip archive: {_UNPACK}",
    b"BZh": f"compressed by bzip2: {_UNPACK}",
    b"\xfd7zXZ\x00": f"compressed by xz: {_UNPACK}",
    b"7z\xbc\xaf\x27\x1c": f"a 7z archive: {_UNPACK}",
    b"\x04\x22\x4d\x18": f"compressed by lz4: {_UNPACK}",
    b"Rar!": f"a RAR archive: {_UNPACK}",
    b"ARROW1": "an Arrow (Feather) file: save it as Parquet",
    b"Obj\x01": "an Avro file: save it as Parquet or JSON lines",
    b"ORC": "an ORC file: save it as Parquet or JSON lines",
    b"\x89HDF": "an HDF5 file: save it as Parquet or JSON lines",
    b"SQLite format 3": "a SQLite database: export its table as JSON lines",
    b"%PDF": "a PDF: its text has to stand in the field `context` of a JSON line",
    b"version https://git-lfs": "a Git LFS pointer, not the data: `git lfs pull` fetches it",
}
_BEGINNING = 40  # characters of a file that is not known, shown to the reader


def packing(head: bytes) -> str:
    """Return "gzip", "zstd" or "parquet" for the first bytes `head`; empty for what is not packed."""
    if head.startswith(_GZIP):
        return "gzip"
    return "zstd" if _ZSTD.match(head) else "parquet" if head.startswith(_PARQUET) else ""


def encoding(head: bytes) -> str:
    """Return the codec of text in UTF-16 or UTF-32, by the mark in `head` or the zeros in it; else empty."""
    marked = next((codec for mark, codec in _MARKS.items() if head.startswith(mark)), "")
    if marked:
        return marked
    zeros = [index for index, byte in enumerate(head[:4]) if byte == 0]
    guesses = {(0, 1, 2): "utf-32-be", (1, 2, 3): "utf-32-le", (0, 2): "utf-16-be", (1, 3): "utf-16-le"}
    return guesses.get(tuple(zeros), "")


def foreign(head: bytes) -> str:
    """Return what a file is that holds no JSON objects, and what to do about it; empty where it may hold some.

    `head` are its first bytes, unpacked and in UTF-8.
    """
    description = next((words for sign, words in _FOREIGN.items() if head.startswith(sign)), "")
    text = head.removeprefix(UTF8_MARK).strip()
    if description or not text or is_table(head):
        return description
    if head[257:262] == b"ustar":
        return f"a tar archive: {_UNPACK}"
    if re.match(rb"<(!doctype html|html)", text, re.IGNORECASE):
        return "HTML, a web page: the download brought a page instead of the data"
    if text.startswith((b"[", b"{")) or re.search(rb"[\r\n]\s*\{", text):
        return ""
    return "XML: convert it to JSON lines" if text.startswith(b"<") else _unknown(text)


def _unknown(text: bytes) -> str:
    first = re.split(rb"[\r\n]", text, maxsplit=1)[0]
    if b"\0" in text or text.startswith(b"\x80"):
        return "binary data in a form that lrq does not know: convert it to JSON lines"
    if b"," in first or b"\t" in first or b";" in first:
        return "CSV or another table of text: convert it to JSON lines"
    beginning = first.decode("utf-8", "replace")[:_BEGINNING]
    return f"no JSON: it begins with {beginning!r}, and no line with {{; lrq reads lines of JSON objects"


def is_table(head: bytes) -> bool:
    """Tell whether a file is a CSV of transcripts as EvalYaks has them: with a column PROMPT."""
    first = re.split(rb"[\r\n]", head.removeprefix(UTF8_MARK), maxsplit=1)[0]
    return any(name.strip(b' "') == b"PROMPT" for name in first.split(b","))


def is_spread(head: bytes) -> bool:
    """Tell whether objects are told apart by their braces instead of by lines: an array, or objects over many lines."""
    text = head.removeprefix(UTF8_MARK).lstrip()
    first = text.split(b"\n", 1)[0].strip()
    return first.startswith(b"[") or first == b"{" or re.search(rb"\}\r+\{", first) is not None
