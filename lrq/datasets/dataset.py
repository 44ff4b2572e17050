"""Datasets and sampled responses: which items a file holds, and which of its lines are rejected."""

import json
import sqlite3
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from hashlib import sha256
from itertools import groupby
from operator import itemgetter
from typing import Any, TypeVar

from lrq.datasets.sources import Line, Source
from lrq.domain.lines import ALIASES, BadLine, Entry, Given, parse_entry, parse_response
from lrq.domain.records import Response

T = TypeVar("T")
U = TypeVar("U")

MAX_NAMES = 100  # ignored field names that are counted one by one


class Dataset:
    """The items of a dataset, line by line; a line that cannot be used comes with its reason.

    `needs` are the fields that the recipe cannot do without. `ignored` counts the fields that no recipe reads;
    `dropped` those that could not be read and need not be, with the reason of the first; `missing` what lines of a
    published form do not hold. `source.position` of
    `source.total` says how far reading is. Duplicate ids are the ledger's to notice: it knows all ids, and a reader of
    a million lines should not.

    Where the first line has no field for an id, ids are the numbers of the lines. `joins_systems`: lines that differ in
    their system message alone are one item, which comes after all others (Multifaceted Collection).
    """

    def __init__(
        self,
        path: str,
        needs: Collection[str] = (),
        responses: "ResponsesFile | None" = None,
        *,
        joins_systems: bool = False,
    ) -> None:
        self.source = Source(path)
        self._joins_systems = joins_systems
        self.ignored: Counter[str] = Counter()
        self.dropped: Counter[str] = Counter()
        self.why_dropped: dict[str, str] = {}
        self.missing: Counter[str] = Counter()
        self._needs = frozenset(needs)
        self._responses = responses
        self._is_numbered: bool | None = None

    def __iter__(self) -> Iterator[Line[Entry]]:
        for line in join_systems(self.source) if self._joins_systems else self.source:
            entry = _read(line, partial(self._entry, default_id=self._default_id(line)))
            if entry.value is not None:
                self._count(entry.value)
            yield entry

    def _default_id(self, line: Line[Mapping[str, Any]]) -> str:
        if self._is_numbered is None and line.value is not None:
            self._is_numbered = not any(name in line.value for name in ("id", *ALIASES["id"]))
        if not self._is_numbered:
            return ""
        return str(line.number) if len(self.source.files) == 1 else f"{line.source}:{line.number}"

    def _entry(self, line: Mapping[str, Any], default_id: str) -> Entry:
        if self._responses is None:
            return parse_entry(line, self._needs, default_id)
        entry = parse_entry(line, self._needs - {"responses"}, default_id)
        sampled = self._responses.of(entry.item.id)
        if sampled and (entry.responses or entry.blank):
            raise BadLine("responses stand both in this line and in the file of responses; keep one")
        if not sampled and not entry.responses and "responses" in self._needs:
            raise BadLine("responses are missing, here and in the file of responses")
        if not sampled:
            return entry
        blank = tuple(response.k for response in sampled if not response.text)
        return replace(entry, responses=tuple(response for response in sampled if response.text), blank=blank)

    def _count(self, entry: Entry) -> None:
        for name in entry.ignored:
            counts = name in self.ignored or len(self.ignored) < MAX_NAMES
            self.ignored[name if counts else "(others)"] += 1
        self.missing.update(entry.missing)
        for name, reason in entry.dropped.items():
            self.dropped[name] += 1
            self.why_dropped.setdefault(name, reason)


def join_systems(lines: Iterable[Line[Mapping[str, Any]]]) -> Iterator[Line[Mapping[str, Any]]]:
    """Join lines that ask the same under different system messages, each with its answer, into one item.

    Such lines have a `prompt`, a `system` message and an `output`, and neither an id nor rubrics. They wait in a
    temporary file until all are read; what they join to has the number of the first, `system` as a list, and the
    outputs as `responses` in the same order.
    """
    with closing(sqlite3.connect("", isolation_level=None)) as base:
        base.executescript("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; BEGIN;")
        base.execute("CREATE TABLE parts (question BLOB, number INTEGER, source TEXT, line BLOB)")
        for line in lines:
            if line.value is None or not _is_part(line.value):
                yield line
                continue
            question = sha256(line.value["prompt"].encode("utf-8", "replace")).digest()
            base.execute(
                "INSERT INTO parts VALUES (?, ?, ?, ?)", (question, line.number, line.source, json.dumps(line.value))
            )
        parts = base.execute(_PARTS)
        for _, group in groupby(parts, key=itemgetter(0)):
            yield _joined(list(group))


def _is_part(line: Mapping[str, Any]) -> bool:
    texts = all(isinstance(line.get(name), str) and line[name].strip() for name in ("prompt", "system", "output"))
    return texts and not any(name in line for name in ("id", *ALIASES["id"], "rubrics", *ALIASES["rubrics"]))


def _joined(parts: Sequence[tuple[bytes, int, str, str]]) -> Line[Mapping[str, Any]]:
    answers: dict[str, str] = {}
    lines = [json.loads(text) for *_, text in parts]
    for line in lines:
        answers.setdefault(line["system"], line["output"])
    first = {name: value for name, value in lines[0].items() if name != "output"}
    _, number, source, _ = parts[0]
    value = {**first, "system": list(answers), "responses": list(answers.values())}
    return Line(number=number, value=value, source=source)


class ResponsesFile:
    """Sampled responses in LongReward's form, in any order, looked up item by item.

    They are indexed in a temporary file that SQLite removes by itself, so memory stays flat. Of two texts for the same
    (item, k) the first stands and another one is rejected; an equal one is harmless. `count` is what can be used.
    """

    def __init__(self, path: str, progress: Callable[[int, int | None], None] | None = None) -> None:
        source = Source(path)
        self._base = sqlite3.connect("", isolation_level=None)  # no name: a private file on disk
        self._base.executescript(_TABLES)
        for line in source:
            self._add(_read(line, parse_response))
            if progress is not None and line.number % 1000 == 0:
                progress(source.position, source.total)
        self.count: int = self._one("SELECT count(*) FROM sampled")[0]

    def of(self, item: str) -> tuple[Response, ...]:
        """Return the responses of the item with the id `item`, in the order of k; none if it has none."""
        rows = self._base.execute("SELECT k, text FROM sampled WHERE item = ? ORDER BY k", (item,)).fetchall()
        if rows:
            self._base.execute("INSERT OR IGNORE INTO used VALUES (?)", (item,))
        return tuple(Response(text=text, k=k) for k, text in rows)

    def rejected(self) -> Iterator[Line[Given]]:
        """Yield the lines that cannot be used, in the order of the file."""
        for number, reason in self._base.execute("SELECT number, reason FROM rejected ORDER BY number"):
            yield Line(number=number, reason=reason)

    def unused(self) -> Iterator[str]:
        """Yield the ids of items that nobody has asked for, in the order of the file."""
        for (item,) in self._base.execute(_UNUSED):
            yield item

    def close(self) -> None:
        self._base.close()

    def _add(self, line: Line[Given]) -> None:
        if line.value is None:
            self._reject(line.number, line.reason)
            return
        key, text = (line.value.item, line.value.response.k), line.value.response.text
        if self._base.execute("INSERT OR IGNORE INTO sampled VALUES (?, ?, ?, ?)", (*key, line.number, text)).rowcount:
            return
        first, standing = self._one("SELECT number, text FROM sampled WHERE item = ? AND k = ?", *key)
        if text != standing:
            self._reject(line.number, f"line {first} holds another text for the same response")

    def _reject(self, number: int, reason: str) -> None:
        self._base.execute("INSERT INTO rejected VALUES (?, ?)", (number, reason))

    def _one(self, question: str, *values: Any) -> Any:
        return self._base.execute(question, values).fetchone()


_TABLES = """
PRAGMA journal_mode = OFF;
PRAGMA synchronous = OFF;
CREATE TABLE sampled (item TEXT, k INTEGER, number INTEGER, text TEXT, UNIQUE (item, k));
CREATE TABLE rejected (number INTEGER, reason TEXT);
CREATE TABLE used (item TEXT PRIMARY KEY) WITHOUT ROWID;
BEGIN;
"""  # one transaction that nobody commits: nothing here outlives the process
_PARTS = """
SELECT question, number, source, line FROM parts
JOIN (SELECT question, min(rowid) AS first FROM parts GROUP BY question) USING (question) ORDER BY first, parts.rowid
"""
_UNUSED = "SELECT item FROM sampled WHERE item NOT IN (SELECT item FROM used) GROUP BY item ORDER BY min(number)"


def _read(line: Line[T], read: Callable[[T], U]) -> Line[U]:
    if line.value is None:
        return Line(number=line.number, reason=line.reason, source=line.source)
    try:
        return Line(number=line.number, value=read(line.value), source=line.source)
    except BadLine as bad:
        return Line(number=line.number, reason=str(bad), source=line.source)
