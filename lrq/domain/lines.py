"""One line of a dataset: what it may hold, and how it becomes an item with its given responses."""

import json
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from lrq.domain.records import Item, Response
from lrq.domain.transcripts import read_transcript

# Other names of fields, as published files have them: LongReward, LongBench, Multifaceted, UltraFeedback, Alpaca.
ALIASES: Mapping[str, tuple[str, ...]] = {
    "id": ("idx", "_id"),
    "question": ("query", "prompt", "instruction", "input"),
    "answer": ("reference", "reference_answer", "answers", "output"),
    "responses": ("completions",),
    "rubrics": ("rubric",),
}
MAX_ID = 200  # characters
MAX_K = 10**6  # responses of one item, exclusive
MAX_DEPTH = 64  # of rubrics and turns; JSON writers stop somewhere, ours at 254


class BadLine(ValueError):
    """A line that cannot be used; its text is the reason."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A usable line: an item and the responses it brings."""

    item: Item
    responses: tuple[Response, ...] = ()  # those with a text; k is the place in the line's list
    blank: tuple[int, ...] = ()  # k of responses without a text: neither judged nor paired
    ignored: tuple[str, ...] = ()  # fields that no recipe reads, and aliases beside their names
    dropped: Mapping[str, str] = field(default_factory=dict)  # fields that cannot be read and need not be → why
    missing: tuple[str, ...] = ()  # what a published form holds elsewhere and this line does not: "scores"


@dataclass(frozen=True, kw_only=True)
class Given:
    """One line of a file of sampled responses."""

    item: str  # the item's id
    response: Response


def parse_entry(line: object, needs: Collection[str] = (), default_id: str = "") -> Entry:
    """Return the item of one parsed line.

    `needs` names the fields that must be there and not be empty. Elsewhere null, blank text and empty lists count as
    absent, and what cannot be read is dropped: the line is kept. A name wins over its aliases. `default_id` is for
    lines without a field for it. Raises BadLine, whose text is the reason.
    """
    if not isinstance(line, Mapping):
        raise BadLine(f"the line is {_kind(line)}; a line is one JSON object")
    line, missing = _published(line)
    spelt = {name: spelling for name in _READERS if (spelling := _spelling(name, line))}
    values, dropped = _read_fields(line, spelt, {"id", "responses", *needs})
    if default_id and not any(name in line for name in ("id", *ALIASES["id"])):
        values["id"] = default_id
    for name in ("id", *sorted(needs)):
        if not values.get(name):
            raise BadLine(f"{_spelt(name)} is {'empty' if name in spelt else 'missing'}")
    texts: list[str] = values.pop("responses", [])
    unread = [name for name in line if name not in spelt.values()]
    return Entry(
        item=Item(
            id=values.pop("id"),
            context=values.pop("context", ""),
            question=values.pop("question", ""),
            answer=values.pop("answer", None) or None,
            fields={name: value for name, value in values.items() if value},
        ),
        responses=tuple(Response(text=text, k=k) for k, text in enumerate(texts) if text),
        blank=tuple(k for k, text in enumerate(texts) if not text),
        ignored=tuple(str(name) for name in unread if name not in FIELDS or line[name] is not None),
        dropped=dropped,
        missing=missing,
    )


def _published(line: Mapping[Any, Any]) -> tuple[Mapping[Any, Any], tuple[str, ...]]:
    """Return a line of a published form in our fields, and what it lacks. Raises BadLine where that is everything.

    EvalYaks has a conversation and its scores in one text; Feedback Collection has its rubric in fields of its own.
    """
    if isinstance(line.get("orig_criteria"), str):
        renamed = {name: line.get(f"orig_{published}") for name, published in _FEEDBACK_FIELDS.items()}
        rubric = {name: value for name, value in line.items() if name == "orig_criteria" or "_score" in str(name)}
        others = {name: value for name, value in line.items() if not str(name).startswith("orig_")}
        responses = [line["orig_response"]] if line.get("orig_response") else None
        return {**renamed, **others, "rubrics": [rubric], "responses": responses}, ()
    text = line.get("PROMPT")
    if not isinstance(text, str) or "turns" in line:
        return line, ()
    transcript = read_transcript(_text("PROMPT", text))
    speakers = {turn["speaker"] for turn in transcript.turns}
    if "Candidate" not in speakers:
        what = "turn of a candidate" if speakers else "conversation"
        raise BadLine(f"PROMPT holds no {what} between `Conversation:` and [/INST]")
    fields = {"turns": list(transcript.turns), "context": transcript.material, "answer": transcript.scores}
    others = {name: value for name, value in line.items() if name != "PROMPT"}
    return {**fields, **others}, () if transcript.scores else ("scores",)


def parse_response(line: object) -> Given:
    """Return one sampled response in LongReward's form: `idx` is "<item>-<k>", `answer` the text. Raises BadLine."""
    if not isinstance(line, Mapping):
        raise BadLine(f"the line is {_kind(line)}; a line is one JSON object")
    name = "id" if line.get("id") is not None else "idx"
    if line.get(name) is None or "answer" not in line:
        raise BadLine(f"{'answer' if line.get(name) is not None else 'idx (or id)'} is missing")
    match = re.fullmatch(r"(.+)-([0-9]{1,9})", _id(name, line[name], MAX_ID + 10))
    if match is None or int(match[2]) >= MAX_K:
        raise BadLine(f"{name} does not end in -<k>, the response's number from 0 to {MAX_K - 1}")
    return Given(item=_id(name, match[1]), response=Response(text=_response("answer", line["answer"]), k=int(match[2])))


def _spelling(name: str, line: Mapping[Any, Any]) -> str:
    """Return the name under which a line has this field; empty where it has none, or only null."""
    return next((alias for alias in (name, *ALIASES.get(name, ())) if line.get(alias) is not None), "")


def _read_fields(
    line: Mapping[Any, Any], spelt: Mapping[str, str], needed: Collection[str]
) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the values by field, and why others that nobody needs cannot be read by their names in the line."""
    values: dict[str, Any] = {}
    dropped: dict[str, str] = {}
    for name, spelling in spelt.items():
        try:
            values[name] = _READERS[name](name, line[spelling])
        except BadLine as bad:
            if name in needed:
                raise
            dropped[spelling] = str(bad)
    return values, dropped


def _id(name: str, value: object, longest: int = MAX_ID) -> str:
    if isinstance(value, float) and value.is_integer():  # tables turn a column of numbers with a gap into floats
        value = int(value)
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


def _text(name: str, value: object) -> str:
    """Return text that a database takes; blank text is as good as none."""
    if not isinstance(value, str):
        raise BadLine(f"{_spelt(name)} must be text, not {_kind(value)}")
    if (index := value.find("\0")) >= 0:
        raise BadLine(f"{_spelt(name)} holds a NUL character at position {index}; remove it")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise BadLine(f"{_spelt(name)} holds half a surrogate pair at position {error.start}; remove it") from None
    return "" if value.isspace() else value


def _list(name: str, value: object) -> list[Any]:
    if not isinstance(value, list):
        raise BadLine(f"{_spelt(name)} must be a list, not {_kind(value)}")
    return value


def _plain_text(value: object, depth: int = 0) -> str | None:
    """Return the text of a value in one of the forms that datasets have; None for another form.

    A number is its digits. Lists are joined line by line: several answers, or the parts of a message. Of an object the
    first field counts that is known to hold its text.
    """
    if isinstance(value, str) or depth > MAX_DEPTH:
        return value if isinstance(value, str) else None
    if isinstance(value, bool | int | float):
        return str(value).lower() if isinstance(value, bool) else f"{value:.15g}" if value % 1 else str(int(value))
    if isinstance(value, list):
        texts = [_plain_text(part, depth + 1) for part in value if part is not None]
        return None if None in texts else "\n".join(text for text in texts if text)
    if isinstance(value, Mapping):
        inner = next((value[name] for name in _TEXT_FIELDS if value.get(name) is not None), None)
        return None if inner is None else _plain_text(inner, depth + 1)
    return None


def _answer(name: str, value: object) -> str:
    """Return a reference answer: text, a number, or several of them."""
    text = _plain_text(value)
    return _text(name, value if text is None else text)


def _context(name: str, value: object) -> str:
    """Return the context; passages are joined by blank lines."""
    if isinstance(value, Mapping) and isinstance(value.get("title"), list):  # HotpotQA: columns instead of passages
        columns = [part for part in value.values() if isinstance(part, list)]
        value = [list(passage) for passage in zip(*columns, strict=False)]
    if not isinstance(value, list):
        return _text(name, value)
    return "\n\n".join(filter(None, (_passage(f"{name}[{index}]", part) for index, part in enumerate(value))))


def _passage(name: str, value: object) -> str:
    """Return a passage: text, an object with a text and perhaps a title, or a title with sentences."""
    title: object = None
    if isinstance(value, Mapping):
        title, value = value.get("title"), _plain_text(value)
    elif isinstance(value, list) and len(value) == 2 and isinstance(value[1], list):
        title, value = value[0], "".join(map(str, value[1])) if all(isinstance(s, str) for s in value[1]) else None
    text = _text(name, value)
    return f"{_text(name, title)}\n{text}" if isinstance(title, str) and title.strip() else text


def _responses(name: str, value: object) -> list[str]:
    """Return the responses in their order; an empty text stands for one that has none."""
    return [_response(f"{name}[{index}]", response) for index, response in enumerate(_list(name, value))]


def _response(name: str, value: object) -> str:
    """Return a response: text, an object that holds it, or a chat whose last message it is."""
    if value is None:
        return ""
    if isinstance(value, list) and value and isinstance(value[-1], Mapping) and "role" in value[-1]:
        value = value[-1].get("content")
    text = None if isinstance(value, bool) else _plain_text(value)
    is_empty = isinstance(value, Mapping) and text is None and any(key in value for key in _TEXT_FIELDS)
    return "" if is_empty else _text(name, value if text is None else text)


def _filled_texts(name: str, value: object) -> list[str]:
    texts = [_text(f"{name}[{number}]", text) for number, text in enumerate(_list(name, value))]
    if "" in texts:
        raise BadLine(f"{name}[{texts.index('')}] is empty")
    return texts


def _system(name: str, value: object) -> list[str]:
    """Read one system message or several: always a list."""
    if isinstance(value, str):
        return [value] if _text(name, value) else []
    return _filled_texts(name, value)


def _messages(name: str, value: object) -> list[dict[str, str]]:
    """Return a chat, its tool turns included."""
    return [_message(f"{name}[{index}]", message) for index, message in enumerate(_list(name, value))]


def _message(name: str, value: object) -> dict[str, str]:
    """Return a message as role and text: the parts of a content joined; what calls tools and says nothing, as JSON."""
    if not isinstance(value, Mapping):
        raise BadLine(f"{name} must be an object with role and content, not {_kind(value)}")
    role = _ROLES.get(str(value.get("role")))
    if role is None:
        raise BadLine(f"{name}.role must be {', '.join(sorted(set(_ROLES.values())))}, not {value.get('role')!r:.50}")
    content = value.get("content")
    text = "" if content is None or content == [] else _plain_text(content)
    if not text and value.get("tool_calls"):
        _check_json(f"{name}.tool_calls", value["tool_calls"])
        text = json.dumps(value["tool_calls"], ensure_ascii=False)
    return {"role": role, "content": _text(f"{name}.content", content if text is None else text)}


def _records(name: str, value: object) -> list[Any]:
    """Texts or objects, as the recipe wants them: here only checked to be JSON that a database takes."""
    for index, record in enumerate(_list(name, value)):
        if not isinstance(record, str | Mapping):
            raise BadLine(f"{name}[{index}] must be text or an object, not {_kind(record)}")
        _check_json(f"{name}[{index}]", record)
    return list(_list(name, value))


def _check_json(name: str, value: object, depth: int = 0) -> None:
    if isinstance(value, str):
        _text(name, value)
    elif depth >= MAX_DEPTH:
        raise BadLine(f"{name} is nested deeper than {MAX_DEPTH} levels")
    elif isinstance(value, Mapping):
        _check_json(name, [*value.keys(), *value.values()], depth)
    elif isinstance(value, list):
        for part in value:
            _check_json(name, part, depth + 1)
    elif not (value is None or isinstance(value, bool | int | float)):
        raise BadLine(f"{name} holds {_kind(value)}, which is not JSON")


def _kind(value: object) -> str:
    kinds = {bool: "true or false", int: "a number", float: "a number", str: "text", list: "a list", dict: "an object"}
    return "null" if value is None else kinds.get(type(value), f"a value of type {type(value).__name__}")


def _spelt(name: str) -> str:
    """Return the name with its first alias, for reasons."""
    return f"{name} (or {ALIASES[name][0]})" if name in ALIASES else name


# Where objects keep their text, most telling first: UltraFeedback, OpenAI's replies and message parts, generators.
_TEXT_FIELDS = (
    "text", "response", "content", "answer", "completion", "output", "generated_text", "message", "value",
    "passage", "paragraph_text", "paragraph", "contents", "body", "sentences",
)  # fmt: skip
_FEEDBACK_FIELDS = {"question": "instruction", "answer": "reference_answer"}
_ROLES = {"function": "tool", "developer": "system"} | {name: name for name in ("system", "user", "assistant", "tool")}


_READERS: dict[str, Callable[[str, object], Any]] = {
    "id": _id,
    "context": _context,
    "question": _text,
    "answer": _answer,
    "responses": _responses,
    "system": _system,
    "rubrics": _records,
    "questions": _filled_texts,
    "short_contexts": _filled_texts,
    "messages": _messages,
    "turns": _records,
}
FIELDS = frozenset(_READERS) | {alias for aliases in ALIASES.values() for alias in aliases}
