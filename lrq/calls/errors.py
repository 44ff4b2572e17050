"""A server's error in a body of any shape: its words, its codes, its own status, and how long it asks to wait."""

import html
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

REASON_LENGTH = 300

# Keys under which servers put their words, in the order in which they are read.
_WORDS = (
    *("error", "errors", "message", "error_message", "errormessage", "error_msg", "errmsg", "msg", "detail"),
    *("details", "description", "error_description", "status_msg", "base_resp", "metadata", "raw", "reasons"),
    *("title", "reason", "cause", "fault", "faultstring"),
)
_CODES = {
    *("code", "type", "__type", "status", "reason", "error_code", "errorcode", "err_code", "errcode"),
    *("status_code", "quotaid", "quota_id", "innererror"),
}
_STATUS = ("code", "status_code", "status", "error_code", "errorcode")
_WAITS = {"retrydelay": 1.0, "retry_after": 1.0, "retryafter": 1.0, "estimated_time": 1.0, "retry_after_ms": 0.001}
_MOST_NODES = 400  # of a body that are looked at: it is anyone's, and may be huge
_MOST_TEXT = 4_000  # characters of any text that are read
_DEEPEST = 12

_URL = re.compile(r"https?://[^\s\"'<>)]+")
_TAG = re.compile(r"(<[^<>]{0,2000}>)")
_NO_WORDS = {"script", "style", "svg", "template", "noscript"}
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_NUMBER = r"\d{1,9}(?:\.\d{1,9})?"
_UNIT = r"(?:milliseconds?|ms|seconds?|secs?|s|minutes?|mins?|m|hours?|hrs?|h)"
_WAIT = re.compile(
    rf"(?:retry|try|reset|wait|available)\w{{0,4}}(?: \w+){{0,3}}? (?:in|after|for) (?:about )?"
    rf"((?:{_NUMBER} ?{_UNIT}(?![a-z])[ ,]*(?:and )?){{1,3}})",
)
_PART = re.compile(rf"({_NUMBER}) ?({_UNIT})")


@dataclass(frozen=True, kw_only=True)
class ErrorBody:
    """What is read from the body of a failure."""

    text: str  # the server's words in one printable line; its codes, or the body itself, where it has none
    searchable: str = ""  # codes and words in lower case, without URLs, for the tables of lrq.calls.faults
    codes: frozenset[str] = frozenset()
    status: int = 0  # HTTP status that the body names; 0: none
    retry_after: float | None = None  # seconds


def read_error(body: object, raw: bytes) -> ErrorBody:
    """Read an error from a parsed body, or from its bytes where it is no JSON (`body` is None)."""
    is_page = raw.lstrip()[:1] == b"<"
    plain = raw[: 8 * _MOST_TEXT if is_page else _MOST_TEXT].decode("utf-8", "replace")
    plain = _words_of_page(plain) if is_page else plain
    nodes = list(_walk(body))
    texts = list(dict.fromkeys(_texts(body))) if body is not None else [plain]
    values = [node.value for node in nodes if node.key in _CODES and type(node.value) in (str, int)]
    codes = list(dict.fromkeys(str(value) for value in values if len(str(value)) <= 100))
    text = line_of("; ".join(_telling(texts))) or line_of(" ".join(codes)) or line_of(plain)
    words = "" if is_page else _URL.sub(" ", _CAMEL.sub(" ", " | ".join([*codes, *texts])[: 2 * _MOST_TEXT])).lower()
    searchable = " ".join(re.sub(r"[_-]", " ", words).split())
    return ErrorBody(
        text=text,
        searchable=searchable,
        codes=frozenset(codes),
        status=_inner_status(nodes),
        retry_after=_wait(nodes, " ".join(texts)),
    )


def _words_of_page(page: str) -> str:
    """Return the title and the words of a page of HTML; the page itself where it has none."""
    words, inside = [], ""
    for piece in _TAG.split(page):
        if not piece.startswith("<"):
            words += [] if inside or not piece.strip() else [html.unescape(piece.strip())]
            continue
        name = piece[1:40].lower().strip("/").partition(" ")[0].rstrip(">")
        is_end = piece.startswith("</")
        if not inside and name in _NO_WORDS and not is_end:
            inside = name
        elif is_end and name == inside:
            inside = ""
    return " ".join(words)[:_MOST_TEXT] or page[:_MOST_TEXT]


def _telling(texts: Sequence[str]) -> list[str]:
    """Return the texts that say more than those before them; a bare word only where there are no sentences."""
    sentences = [text for text in texts if " " in text.strip()] or list(texts)
    telling: list[str] = []
    for text in sentences[:20]:
        if not any(text.strip().lower() in longer.lower() for longer in telling):
            telling.append(text.strip())
    return telling


def line_of(text: str) -> str:
    """Return `text` as one printable line of at most REASON_LENGTH characters, fit for a log and for any database."""
    printable = "".join(character if character.isprintable() else " " for character in text[: 4 * REASON_LENGTH])
    return " ".join(printable.split())[:REASON_LENGTH]


@dataclass(frozen=True)
class _Node:
    """One value of a body with its key in lower case; `is_quoted`: it lies in JSON that was quoted as a text."""

    key: str
    value: Any
    is_quoted: bool = False


def _walk(body: object) -> Iterator[_Node]:
    """Yield all values, the outer ones first, at most so many; JSON within texts is opened."""
    queue = [_Node("", body)]
    for index in range(_MOST_NODES):
        if index >= len(queue):
            return
        node = queue[index]
        yield node
        value, quoted = node.value, node.is_quoted
        if isinstance(value, str) and (opened := _opened(value)) is not None:
            value, quoted = opened, True
        room = _MOST_NODES - len(queue)
        if isinstance(value, Mapping):
            queue += [_Node(str(key).lower(), value[key], quoted) for key in list(value)[:room]]
        elif isinstance(value, list):
            queue += [_Node(node.key, item, quoted) for item in value[:room]]


def _opened(text: str) -> object:
    """Return what a text holds as JSON, from its beginning or after a few words; None where it holds none."""
    start = min((position for position in (text.find("{"), text.find("[{")) if position >= 0), default=-1)
    if start < 0 or len(text) > 16 * _MOST_TEXT:
        return None
    try:
        return orjson.loads(text[start:])
    except orjson.JSONDecodeError:
        return None


def _texts(value: object, depth: int = 0) -> list[str]:
    """Return the words, in the order of the keys that they are likely to stand under."""
    if depth > _DEEPEST:
        return []
    if isinstance(value, str):
        opened = _opened(value)
        inner = _texts(opened, depth + 1) if opened is not None else []
        return inner if inner and value.lstrip()[:1] in "{[" else [value[:_MOST_TEXT]] if value.strip() else []
    if isinstance(value, list):
        return [text for item in value[:10] for text in _texts(item, depth + 1)]
    if not isinstance(value, Mapping):
        return []
    by_key = {str(key).lower(): item for key, item in list(value.items())[:50]}
    texts = [text for key in _WORDS if key in by_key for text in _texts(by_key[key], depth + 1)]
    location = by_key.get("loc")
    if isinstance(location, list):
        texts = texts or [str(by_key.get("type", ""))]
        texts[0] = f"{'.'.join(str(part) for part in location[:6])}: {texts[0]}"
    return texts


def _inner_status(nodes: list[_Node]) -> int:
    """Return the status that a body names, 0 for none.

    One that is quoted goes before its wrapper's where it tells who is at fault.
    """
    statuses = [(node.is_quoted, _as_status(node.value)) for node in nodes if node.key in _STATUS]
    quoted = [status for is_quoted, status in statuses if is_quoted and status in {401, 402, 429}]
    return next(iter(quoted), next((status for _, status in statuses if status), 0))


def _as_status(value: object) -> int:
    if isinstance(value, str) and value.isascii() and value.isdigit():
        value = int(value[:9])
    return value if type(value) is int and 400 <= value <= 599 else 0


def _wait(nodes: list[_Node], text: str) -> float | None:
    """Return the seconds to wait, by a field of the body, or by its words."""
    for node in nodes:
        if (seconds := _named_wait(node)) is not None:
            return seconds
    match = _WAIT.search(text[:_MOST_TEXT].lower())
    return _duration(match[1]) if match else None


def _named_wait(node: _Node) -> float | None:
    key = node.key.replace("-", "_")
    if key == "x_ratelimit_reset":  # OpenRouter's: milliseconds since 1970
        moment = _number(node.value)
        ahead = moment / 1000 - time.time() if moment and moment > 1e11 else -1.0
        return ahead if 0 <= ahead < 86_400 else None
    if key not in _WAITS:
        return None
    value = node.value.get("seconds") if isinstance(node.value, Mapping) else node.value
    if isinstance(value, str) and (seconds := _duration(value.lower())) is not None:
        return seconds
    number = _number(value)
    return None if number is None else number * _WAITS[key]


def _number(value: object) -> float | None:
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return None
    return number if 0 <= number < 1e15 else None


def _duration(text: str) -> float | None:
    """Return the seconds of "10.3s", "7m12s", "20 ms" or "2 minutes"; None where it is none of these."""
    parts = _PART.findall(text[:100])
    units = (_UNITS["ms" if unit.startswith(("ms", "milli")) else unit[0]] for _, unit in parts)
    return sum(float(number) * unit for (number, _), unit in zip(parts, units, strict=True)) if parts else None
