"""One line of a dataset: what it may hold, and how it becomes an item with its given responses."""

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

from lrq.domain.records import Item, Response

ALIASES = {"idx": "id", "query": "question", "reference": "answer"}  # LongReward's names, and a common one
MAX_ID = 200  # characters
MAX_K = 10**6  # responses of one item, exclusive
MAX_DEPTH = 64  # of rubrics and turns; JSON writers stop somewhere, ours at 254


class BadLine(ValueError):
    """A line that cannot be used; its text is the reason."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A usable line: an item and the responses it brings."""

    item: Item
    responses: tuple[Response, ...] = ()  # k is the place in the line's list
    ignored: tuple[str, ...] = ()  # fields that no recipe reads, and aliases beside their names


@dataclass(frozen=True, kw_only=True)
class Given:
    """One line of a file of sampled responses."""

    item: str  # the item's id
    response: Response


def parse_entry(line: object, needs: Collection[str] = ()) -> Entry:
    """The item of one parsed line.

    `needs` names the fields that must be there and not be empty. Elsewhere null, blank text and empty lists count as
    absent. A name wins over its alias. Raises BadLine.
    """
    if not isinstance(line, Mapping):
        raise BadLine(f"the line is {_kind(line)}; a line is one JSON object")
    named = {name: line[name] for name in _READERS if line.get(name) is not None}
    named = {ALIASES[alias]: line[alias] for alias in ALIASES if line.get(alias) is not None} | named
    values = {name: read(name, named[name]) for name, read in _READERS.items() if name in named}
    for name in ("id", *sorted(needs)):
        if not values.get(name):
            raise BadLine(f"{_spelt(name)} is {'empty' if name in named else 'missing'}")
    return Entry(
        item=Item(
            id=values.pop("id"),
            context=values.pop("context", ""),
            question=values.pop("question", ""),
            answer=values.pop("answer", None) or None,
            fields={name: value for name, value in values.items() if value and name != "responses"},
        ),
        responses=tuple(Response(text=text, k=k) for k, text in enumerate(values.get("responses", ()))),
        ignored=tuple(str(name) for name in line if _is_ignored(name, line)),
    )


def parse_response(line: object) -> Given:
    """One sampled response in LongReward's form: `idx` is "<item>-<k>", `answer` the text. Raises BadLine."""
    if not isinstance(line, Mapping):
        raise BadLine(f"the line is {_kind(line)}; a line is one JSON object")
    name = "id" if line.get("id") is not None else "idx"
    if line.get(name) is None or line.get("answer") is None:
        raise BadLine(f"{'answer' if line.get(name) is not None else 'idx (or id)'} is missing")
    match = re.fullmatch(r"(.+)-([0-9]{1,9})", _id(name, line[name], MAX_ID + 10))
    if match is None or int(match[2]) >= MAX_K:
        raise BadLine(f"{name} does not end in -<k>, the response's number from 0 to {MAX_K - 1}")
    text = _text("answer", line["answer"], blank=True)
    return Given(item=_id(name, match[1]), response=Response(text=text, k=int(match[2])))


def _is_ignored(name: object, line: Mapping[Any, Any]) -> bool:
    if name in ALIASES:
        return line.get(ALIASES[str(name)]) is not None
    return name not in _READERS


def _id(name: str, value: object, longest: int = MAX_ID) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise BadLine(f"{_spelt(name)} must be text or a whole number, not {_kind(value)}")
    text = str(value)
    if len(text) > longest:
        raise BadLine(f"{_spelt(name)} has {len(text)} characters; at most {MAX_ID} are allowed")
    if not text.isprintable():
        bad = next(character for character in text if not character.isprintable())
        raise BadLine(f"{_spelt(name)} holds a character that cannot be printed (U+{ord(bad):04X})")
    if text.isspace():
        raise BadLine(f"{_spelt(name)} is blank")
    return text


def _text(name: str, value: object, blank: bool = False) -> str:
    """Text that a database takes. Blank text is as good as none, unless it is a response."""
    if not isinstance(value, str):
        raise BadLine(f"{_spelt(name)} must be text, not {_kind(value)}")
    if (at := value.find("\0")) >= 0:
        raise BadLine(f"{_spelt(name)} holds a NUL character at position {at}; remove it")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise BadLine(f"{_spelt(name)} holds half a surrogate pair at position {error.start}; remove it") from None
    return value if blank or not value.isspace() else ""


def _list(name: str, value: object) -> list[Any]:
    if not isinstance(value, list):
        raise BadLine(f"{_spelt(name)} must be a list, not {_kind(value)}")
    return value


def _texts(name: str, value: object) -> list[str]:
    return [_text(f"{name}[{at}]", text, blank=True) for at, text in enumerate(_list(name, value))]


def _filled_texts(name: str, value: object) -> list[str]:
    texts = [_text(f"{name}[{at}]", text) for at, text in enumerate(_list(name, value))]
    if "" in texts:
        raise BadLine(f"{name}[{texts.index('')}] is empty")
    return texts


def _system(name: str, value: object) -> list[str]:
    """One system message or several: always a list."""
    if isinstance(value, str):
        return [value] if _text(name, value) else []
    return _filled_texts(name, value)


def _messages(name: str, value: object) -> list[dict[str, str]]:
    """A chat: the system message, if any, comes first."""
    return [_message(f"{name}[{at}]", message, at) for at, message in enumerate(_list(name, value))]


def _message(name: str, value: object, at: int) -> dict[str, str]:
    if not isinstance(value, Mapping):
        raise BadLine(f"{name} must be an object with role and content, not {_kind(value)}")
    role = value.get("role")
    if role not in ("user", "assistant") and not (role == "system" and at == 0):
        raise BadLine(f"{name}.role must be user or assistant, or system in the first message")
    return {"role": str(role), "content": _text(f"{name}.content", value.get("content"))}


def _records(name: str, value: object) -> list[Any]:
    """Texts or objects, as the recipe wants them: here only checked to be JSON that a database takes."""
    for at, record in enumerate(_list(name, value)):
        if not isinstance(record, str | Mapping):
            raise BadLine(f"{name}[{at}] must be text or an object, not {_kind(record)}")
        _check_json(f"{name}[{at}]", record)
    return list(_list(name, value))


def _check_json(name: str, value: object, depth: int = 0) -> None:
    if isinstance(value, str):
        _text(name, value)
    elif depth >= MAX_DEPTH:
        raise BadLine(f"{name} is nested deeper than {MAX_DEPTH} levels")
    elif isinstance(value, Mapping):
        _check_all(name, [*value.keys(), *value.values()], depth)
    elif isinstance(value, list):
        _check_all(name, value, depth)
    elif not _is_plain(value):
        raise BadLine(f"{name} holds {_kind(value)}, which is not JSON")


def _check_all(name: str, values: Iterable[object], depth: int) -> None:
    for value in values:
        _check_json(name, value, depth + 1)


def _is_plain(value: object) -> TypeGuard[bool | int | float | None]:
    return value is None or isinstance(value, bool | int | float)


def _kind(value: object) -> str:
    kinds = {bool: "true or false", int: "a number", float: "a number", str: "text", list: "a list", dict: "an object"}
    return "null" if value is None else kinds.get(type(value), f"a value of type {type(value).__name__}")


def _spelt(name: str) -> str:
    """The name with its alias, for reasons."""
    alias = next((alias for alias, meant in ALIASES.items() if meant == name), None)
    return f"{name} (or {alias})" if alias else name


_READERS: dict[str, Callable[[str, object], Any]] = {
    "id": _id,
    "context": _text,
    "question": _text,
    "answer": _text,
    "responses": _texts,
    "system": _system,
    "rubrics": _records,
    "short_contexts": _filled_texts,
    "messages": _messages,
    "turns": _records,
}
FIELDS = frozenset(_READERS) | frozenset(ALIASES)
