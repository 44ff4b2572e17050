"""What came of a request: a server's reply read, and failures told apart by who can mend them."""

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from functools import partial
from typing import Any, Literal

import orjson

from lrq.domain.finish import finish_of
from lrq.domain.records import Call, Choice, Usage
from lrq.domain.thoughts import split_thoughts

# "probed": failed like all that its endpoint is sent just now, which says nothing about this call.
# "adapted": its form was refused, and is another from now on.
Kind = Literal["ok", "refused", "account", "throttled", "failed", "probed", "adapted"]

# Any further call would meet the same, until somebody mends the key, the credit, the URL or the model's name.
_ACCOUNT_STATUS = {401, 402, 403, 404, 405, 407}
_QUOTA_WORDS = ("insufficient", "billing", "credit", "deactivated", "arrear")  # in an error's code or type
_QUOTA_CODES = {"1110", "1111", "1112", "1113", "1121"}  # Zhipu's: no such account, locked, in arrears
_PASSING_STATUS = {408, 409, 425}  # 4xx that may go well another time
_GATEWAY_GAVE_UP = {504, 524}  # the model behind may have answered, and charged
_REASON_LENGTH = 300
_LARGEST_COUNT = 2**31 - 1  # of tokens in a column of the ledger


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of one request. `unknown`: it was sent, and it may be charged without having brought a reply.

    A page of HTML is none of a model's: something before it has answered.
    """

    kind: Kind
    reason: str = ""
    choices: Sequence[Choice] = ()
    vectors: Sequence[Sequence[float]] = ()
    usage: Usage = field(default_factory=Usage)  # zeros where the server counted nothing
    status: int = 0
    retry_after: float | None = None  # seconds
    headers: Mapping[str, str] = field(default_factory=dict)
    latency: float = 0.0  # seconds
    unknown: bool = False
    body: object = field(default=None, repr=False)  # of a failure, as JSON


def read_outcome(call: Call, status: int, headers: Mapping[str, str], raw: bytes, latency: float = 0.0) -> Outcome:
    """The outcome of a request that was answered with this status and body. Raises nothing."""
    body = _parse(raw)
    kind: Kind
    if status == 200 and isinstance(body, dict) and not body.get("error"):
        try:
            return _answered(call, body, headers, latency)
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError):
            kind, reason = "failed", "HTTP 200: the body does not have the form of a reply"
    else:
        kind, reason = _failure(status, body, raw)
    return Outcome(
        kind=kind,
        reason=reason,
        status=status,
        retry_after=_retry_after(headers),
        headers=headers,
        latency=latency,
        body=body,
        unknown=(200 <= status < 300 and not raw.lstrip().startswith(b"<")) or status in _GATEWAY_GAVE_UP,
    )


def _parse(raw: bytes) -> object:
    """The body as JSON; None where it is none. A reply with half a character in it was paid for all the same."""
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError:
        pass
    try:
        return _whole_characters(json.loads(raw.decode("utf-8", "replace")))
    except (ValueError, RecursionError):
        return None


def _whole_characters(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, list):
        return [_whole_characters(one) for one in value]
    if isinstance(value, dict):
        return {_whole_characters(name): _whole_characters(one) for name, one in value.items()}
    return value


def _answered(call: Call, body: dict[str, Any], headers: Mapping[str, str], latency: float) -> Outcome:
    choices: Sequence[Choice] = ()
    vectors: Sequence[Sequence[float]] = ()
    if call.role == "embedding":
        vectors = _vectors(body["data"], len(call.input))
    else:
        choices = [_choice(one) for one in list(body["choices"])] or [Choice(text="", finish="empty")]
    return Outcome(
        kind="ok",
        choices=choices,
        vectors=vectors,
        usage=_usage(body),
        status=200,
        headers=headers,
        latency=latency,
    )


def _vectors(data: Sequence[Mapping[str, Any]], count: int) -> list[list[float]]:
    """One for each text. A number that JSON cannot say, null, is kept as NaN: whoever compares leaves it out."""
    rows = (one["embedding"] for one in sorted(data, key=lambda o: o.get("index", 0)))
    vectors = [[math.nan if number is None else float(number) for number in row] for row in rows]
    if len(vectors) != count or not all(vectors) or len(set(map(len, vectors))) != 1:
        raise ValueError("not one vector for each text")
    return vectors


def _choice(one: Mapping[str, Any]) -> Choice:
    """One completion, its thoughts parted from its answer. A refusal in a field of its own is no answer.

    Some servers put the whole answer where thoughts belong; where a reply has ended, that is its text.
    """
    message = one.get("message") or {}
    text = _text(message.get("content"))
    apart = _text(message.get("reasoning_content") or message.get("reasoning"))
    finish = str(one.get("finish_reason") or "stop")
    choice = partial(Choice, finish=finish, ids=_token_ids(one.get("token_ids")))
    refusal = message.get("refusal")
    if refusal and not text.strip():
        return Choice(text=_text(refusal), reasoning=apart, finish="refusal")
    if not text.strip() and finish_of(finish) == "end":
        text, apart = apart, ""
    parted = split_thoughts(text)
    reasoning = "\n".join(filter(None, (apart, parted.thought)))
    if parted.closed and not parted.answer:
        return choice(text=text, reasoning=apart)  # whoever reads it may look into the thoughts
    return choice(text=parted.answer if parted.closed else "", reasoning=reasoning)


def _token_ids(ids: object) -> tuple[int, ...]:
    """Tokens as vLLM and SGLang give them where they are asked to; none where it is anything else."""
    is_ids = isinstance(ids, list) and all(type(one) is int and 0 <= one < 2**32 for one in ids)
    return tuple(ids) if is_ids and isinstance(ids, list) else ()


def _text(content: object) -> str:
    """A message's content: a text, or a list of parts of which the texts count."""
    if isinstance(content, list):
        return "".join(_text(part.get("text") if isinstance(part, Mapping) else part) for part in content)
    if content is None or isinstance(content, str):
        return content or ""
    raise TypeError("a message's content is neither text nor parts")


def _usage(body: Mapping[str, Any]) -> Usage:
    """The counts of a reply; 0 for what is missing or is no count.

    Tokens that only the total holds are thoughts, and are billed as completion.
    """
    counted = _mapping(body.get("usage"))
    of_prompt, of_completion = (_mapping(counted.get(f"{part}_tokens_details")) for part in ("prompt", "completion"))
    prompt, completion = _first(counted, "prompt_tokens", "input_tokens"), _first(counted, *_COMPLETION)
    total = _count(counted.get("total_tokens"))
    prompt = prompt or max(0, total - completion)
    completion = max(completion, total - prompt)
    reasoning = _count(of_completion.get("reasoning_tokens")) or _count(counted.get("reasoning_tokens"))
    cached = _count(of_prompt.get("cached_tokens")) or _first(counted, *_CACHED)
    return Usage(
        prompt_tokens=prompt,
        completion_tokens=completion,
        cached_tokens=min(cached, prompt),
        reasoning_tokens=min(reasoning, completion),
    )


_COMPLETION = ("completion_tokens", "output_tokens")
_CACHED = ("prompt_cache_hit_tokens", "cached_tokens")  # DeepSeek's name, Moonshot's place


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _first(counted: Mapping[str, Any], *names: str) -> int:
    return next((count for name in names if (count := _count(counted.get(name)))), 0)


def _count(value: object) -> int:
    """A count of tokens; 0 for anything else: money is not made of it."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if type(value) is int and 0 < value <= _LARGEST_COUNT else 0


def _failure(status: int, body: object, raw: bytes) -> tuple[Kind, str]:
    text, code = _said(body, raw)
    return _kind(status, code), f"HTTP {status}: {text}"


def _kind(status: int, code: str) -> Kind:
    out_of_credit = any(word in code for word in _QUOTA_WORDS) or not _QUOTA_CODES.isdisjoint(code.split())
    if status in _ACCOUNT_STATUS or 300 <= status < 400 or (400 <= status < 500 and out_of_credit):
        return "account"
    if status == 429:
        return "throttled"
    return "refused" if 400 <= status < 500 and status not in _PASSING_STATUS else "failed"


def _said(body: object, raw: bytes) -> tuple[str, str]:
    """The server's words in one printable line, and its error code."""
    error = body.get("error", body) if isinstance(body, dict) else None
    code = ""
    if isinstance(error, dict):
        code = f"{error.get('code') or ''} {error.get('type') or ''}".lower().strip()
        text = str(error.get("message") or code)
    else:
        text = error if isinstance(error, str) else raw[: 4 * _REASON_LENGTH].decode("utf-8", "replace")
    return line_of(text), code


def line_of(text: str) -> str:
    """One printable line of bounded length, fit for a log and for any database."""
    printable = "".join(character if character.isprintable() else " " for character in text[: 4 * _REASON_LENGTH])
    return " ".join(printable.split())[:_REASON_LENGTH]


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds, from either form of Retry-After (RFC 9110, section 10.2.3)."""
    value = headers.get("Retry-After")
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - time.time()
        except (TypeError, ValueError, OverflowError):
            return None
    return max(0.0, seconds) if math.isfinite(seconds) else None
