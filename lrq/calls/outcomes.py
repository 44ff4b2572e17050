"""What came of a request: a server's reply read, and failures told apart by who can mend them."""

import json
import math
import re
import time
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from email.utils import parsedate_to_datetime
from functools import lru_cache
from itertools import islice
from typing import Any, Literal

import orjson

from lrq.calls.errors import ErrorBody, read_error
from lrq.calls.estimates import split_total
from lrq.calls.faults import fault
from lrq.domain.finish import finish_of
from lrq.domain.records import Call, Choice, Usage
from lrq.domain.thoughts import split_thoughts
from lrq.ledger.money import Charge

# "probed": failed like all that its endpoint is sent just now, which says nothing about this call.
# "adapted": its form was refused, and is another from now on.
# "denied": how the endpoint answers others tells whether that is the request's fault or the account's.
Kind = Literal["ok", "refused", "account", "denied", "throttled", "failed", "probed", "adapted"]

_GATEWAY_GAVE_UP = {504, 524}  # the model behind may have answered, and charged
_WRAPPERS = {400, 424, 500, 502, 503}  # a gateway's own status, where its body names the model server's …
_WRAPPED = {401, 402, 429}  # … that decides
_BACKENDS = {424, 500}  # said by what stands behind an embedding server …
_OF_BATCH = re.compile(r"\bbatch\b|too (?:large|long|many)|out of memory")  # … of a batch that it cannot hold
_COMMENT = re.compile(r"^:.*\n?", re.MULTILINE)
_LARGEST_COUNT = 2**31 - 1  # of tokens in a column of the ledger


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of one request. `unknown`: it was sent, and not answered: nobody knows whether it is charged.

    A page of HTML is none of a model's: something before it has answered, and charges nothing.
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
    is_in_reply: bool = False  # a failure that came with status 200: the server is there, and may charge it
    unread: int | None = None  # bytes of an answer that cannot be read, and may be charged
    is_unsent: bool = False  # it failed before the request went out
    charge: Charge | None = None  # what an answer that is no reply costs
    note: str = ""  # on counts that are estimates
    body: object = field(default=None, repr=False)  # of a failure, as JSON


def read_outcome(call: Call, status: int, headers: Mapping[str, str], raw: bytes, latency: float = 0.0) -> Outcome:
    """Return the outcome of a request that was answered with this status and body. Raises nothing.

    Args:
        raw: the body, unpacked; its form is anyone's.
        latency: seconds from the request to the end of the answer.
    """
    body = _parse(raw)
    if not 200 <= status < 300:
        return _failure(call, status, headers, read_error(body, raw), body, latency)
    error = _error_in_reply(body)
    if isinstance(body, dict) and error is None:
        try:
            return _answered(call, body, headers, latency)
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError):
            pass
    if error is not None:
        failure = _failure(call, status, headers, read_error(error, raw), error, latency)
        return replace(failure, usage=_usage_of(body), unread=len(raw) if _has_text(body) else None, is_in_reply=True)
    return _no_reply(call, status, headers, body, raw, len(raw), latency)


def unreadable(
    call: Call, status: int, headers: Mapping[str, str], start: bytes, problem: str, size: int, latency: float
) -> Outcome:
    """Return the outcome of an answer that was not read whole, or is not to be parsed.

    Args:
        start: what was read of it: an error is told by its status and these words.
        problem: what is amiss, in words that follow "the reply".
        size: bytes that came, by which what stands in place of a reply may be charged.
        latency: seconds.
    """
    if not 200 <= status < 300:
        return _failure(call, status, headers, read_error(None, start), None, latency)
    outcome = _no_reply(call, status, headers, None, start, size, latency)
    return replace(outcome, reason=f"HTTP {status}: the reply {problem}")


def is_empty(raw: bytes) -> bool:
    """Say whether `raw`, a body's beginning, holds nothing but what keeps a connection alive: blanks and comments."""
    return not _without_comments(raw.decode("utf-8", "replace")).strip()


def _no_reply(
    call: Call, status: int, headers: Mapping[str, str], body: object, raw: bytes, size: int, latency: float
) -> Outcome:
    """Return what came with a status of success and has not the form of a reply; `size`: the bytes of it."""
    error = read_error(body, raw)
    is_page = raw.lstrip().startswith(b"<")
    no_form = f"the body does not have the form of a reply ({error.text or 'it is empty'})"
    text = f"a page in place of a reply: {error.text}" if is_page else no_form
    return Outcome(
        kind="failed",
        reason=f"HTTP {status}: {text}",
        status=status,
        headers=headers,
        latency=latency,
        body=body,
        usage=_usage_of(body),
        unread=None if is_page else size,
        is_in_reply=True,
    )


def _failure(
    call: Call, status: int, headers: Mapping[str, str], error: ErrorBody, body: object, latency: float
) -> Outcome:
    deciding = _deciding(status, error)
    kind: Kind = fault(deciding, error)
    if call.role == "embedding" and (
        (kind == "denied" and status == 400) or (status in _BACKENDS and _OF_BATCH.search(error.searchable))
    ):
        kind = "refused"  # a batch that is too large is made smaller by who asks
    wait = _retry_after(headers)
    suffix = f", error {deciding}" if deciding not in {0, status} else ""
    return Outcome(
        kind=kind,
        reason=f"HTTP {status}{suffix}: {error.text}",
        status=deciding or status,
        retry_after=error.retry_after if wait is None else wait,
        headers=headers,
        latency=latency,
        body=body,
        unknown=status in _GATEWAY_GAVE_UP,
    )


def _error_in_reply(body: object) -> object:
    """Return the error that stands in place of a reply, or ended it; None where there is none."""
    if not isinstance(body, dict):
        return body if isinstance(body, list) and body and read_error(body, b"").status else None
    error, choices = body.get("error"), body.get("choices")
    if error and (not choices or not isinstance(error, dict) or any(error.values())):
        return {"error": error}
    if not isinstance(choices, list) or not choices:
        has_failed = body.get("success") is False or body.get("base_resp") or body.get("object") == "error"
        has_failed = has_failed or (choices is None and "usage" not in body and _tells_fault(body))
        return body if has_failed and not body.get("data") else None
    errors = [choice.get("error") for choice in choices if isinstance(choice, dict)]
    if errors and all(errors):
        return {"error": errors[0]}
    ended = {_finish_reason(choice) for choice in choices if isinstance(choice, dict)}
    return {"error": "the reply ended in an error"} if ended == {"error"} else None


def _finish_reason(choice: Mapping[str, Any]) -> str:
    """Return the word for how it ended; SGLang's own form is a record with its type."""
    reason = choice.get("finish_reason")
    return str(reason.get("type") if isinstance(reason, dict) else reason or "stop")


def _tells_fault(body: object) -> bool:
    """Say whether a body without any part of a reply names a status or says what is wrong."""
    error = read_error(body, b"")
    return bool(error.status) or fault(0, error) != "failed"


def _has_text(body: object) -> bool:
    """Say whether a part of a reply came along with the error that ended it."""
    choices = body.get("choices") if isinstance(body, dict) else None
    messages = (
        [choice.get("message") for choice in choices if isinstance(choice, dict)] if isinstance(choices, list) else []
    )
    return any(isinstance(message, dict) and message.get("content") for message in messages)


def _deciding(status: int, error: ErrorBody) -> int:
    """Return the status that decides: what a body of 200 names, and what a gateway has wrapped."""
    if 200 <= status < 300:
        return error.status
    return error.status if status in _WRAPPERS and error.status in _WRAPPED else status


def _usage_of(body: object) -> Usage:
    """Return the counts of an answer that is no reply."""
    try:
        return _usage(body) if isinstance(body, dict) else Usage()
    except (AttributeError, TypeError, ValueError, OverflowError):
        return Usage()


def _parse(raw: bytes) -> object:
    """Return the body as JSON; None where it is none. A reply with half a character in it was paid for all the same.

    Lines of comment, which keep a connection alive, may stand before and after it.
    """
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError:
        pass
    try:
        return _whole_characters(json.loads(_without_comments(raw.decode("utf-8", "replace"))))
    except (ValueError, RecursionError):
        return None


def _without_comments(text: str) -> str:
    return _COMMENT.sub("", text.lstrip("\ufeff"))


def _whole_characters(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, list):
        return [_whole_characters(item) for item in value]
    if isinstance(value, dict):
        return {_whole_characters(name): _whole_characters(item) for name, item in value.items()}
    return value


def _answered(call: Call, body: dict[str, Any], headers: Mapping[str, str], latency: float) -> Outcome:
    choices: Sequence[Choice] = ()
    vectors: Sequence[Sequence[float]] = ()
    if call.api == "embeddings":
        vectors = _vectors(body["data"], len(call.input))
    elif call.api == "score":
        vectors = _scores(body["data"], len(call.input) - 1)
    else:
        choices = [_choice(choice) for choice in list(body["choices"])] or [Choice(text="", finish="empty")]
    usage, note = _usage(body), ""
    if call.api == "chat" and not usage.completion_tokens and (total := _lone_total(body)):
        usage, note = split_total(call, choices, total), "the server counted only a total: its parts are estimated"
    return Outcome(
        kind="ok",
        choices=choices,
        vectors=vectors,
        usage=usage,
        note=note,
        status=200,
        headers=headers,
        latency=latency,
    )


def _vectors(data: Sequence[Mapping[str, Any]], count: int) -> list[list[float]]:
    """Return a vector for each text. A null, a number that JSON cannot say, is kept as NaN and left out later."""
    rows = (choice["embedding"] for choice in sorted(data, key=lambda entry: entry.get("index") or 0))
    vectors = [[math.nan if number is None else float(number) for number in row] for row in rows]
    if len(vectors) != count or not all(vectors) or len(set(map(len, vectors))) != 1:
        raise ValueError("not one vector for each text")
    return vectors


def _scores(data: Sequence[Mapping[str, Any]], count: int) -> list[list[float]]:
    """Return for each of `count` responses its reward, [1], or its logits over each of them, [count]; 32-bit floats.

    They are rounded as the ledger keeps them, so that a reply is the same when it is read again.
    """
    scores = (entry["score"] for entry in sorted(data, key=lambda entry: entry.get("index", 0)))
    rows = [list(array("f", score if isinstance(score, list) else [score])) for score in scores]
    if len(rows) != count or {len(row) for row in rows} - {1, count} or len({len(row) for row in rows}) != 1:
        raise ValueError("neither one score nor one for each pair")
    if not all(math.isfinite(score) for row in rows for score in row):
        raise ValueError("a score is no number")
    return rows


def _choice(one: Mapping[str, Any]) -> Choice:
    """Return one completion, its thoughts parted from its answer. A refusal in a field of its own is no answer.

    Some servers put the whole answer where thoughts belong; where a reply has ended, that is its text.
    """
    message = one.get("message") or one.get("delta") or {"content": one.get("text")}  # some gateways' forms
    text = _text(message.get("content"))
    apart = _thought(next(filter(None, map(message.get, _THOUGHTS)), None)) or _thought_parts(message.get("content"))
    finish = _finish_reason(one)
    ids = _token_ids(one.get("token_ids"))
    refusal = message.get("refusal")
    if refusal and not text.strip():
        return Choice(text=_text(refusal), reasoning=apart, finish="refusal")
    if not text.strip() and finish_of(finish) == "end":
        text, apart = apart, ""
    parted = split_thoughts(text)
    if parted.closed and not parted.answer:
        return Choice(text=text, reasoning=apart, finish=finish, ids=ids)  # a reader may look into the thoughts
    reasoning = "\n".join(filter(None, (apart, parted.thought)))
    return Choice(text=parted.answer if parted.closed else "", reasoning=reasoning, finish=finish, ids=ids)


def _token_ids(ids: object) -> tuple[int, ...]:
    """Tokens as vLLM and SGLang give them where they are asked to; none where it is anything else."""
    is_ids = isinstance(ids, list) and all(type(token) is int and 0 <= token < 2**32 for token in ids)
    return tuple(ids) if is_ids and isinstance(ids, list) else ()


# Where thoughts stand beside the content: DeepSeek and SGLang, vLLM and OpenRouter, Ollama, others.
_THOUGHTS = ("reasoning_content", "reasoning", "thinking", "thinking_content", "reasoning_text", "thoughts")


def _text(content: object) -> str:
    """Return a message's content: a text, or a list of parts of which the texts count that are no thoughts."""
    if isinstance(content, list):
        parts = (part for part in content if not _is_thought(part))
        return "".join(_text(part.get("text") if isinstance(part, dict) else part) for part in parts)
    if content is None or isinstance(content, str):
        return content or ""
    raise TypeError("a message's content is neither text nor parts")


def _is_thought(part: object) -> bool:
    """Mistral's and Anthropic's parts of type thinking, others' of type reasoning, Google's with a flag."""
    if not isinstance(part, dict):
        return False
    return part.get("thought") is True or re.search("think|reason|thought", str(part.get("type"))) is not None


def _thought_parts(content: object) -> str:
    parts = [part for part in content if _is_thought(part)] if isinstance(content, list) else []
    return "\n".join(filter(None, map(_thought, parts)))


def _thought(value: object) -> str:
    """Return a thought's text, in whatever form it comes: nothing hangs on it but how much was thought."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "".join(map(_thought, value[:1000]))
    if isinstance(value, dict):
        return next(filter(None, (_thought(value.get(name)) for name in _THOUGHT_TEXTS)), "")
    return ""


_THOUGHT_TEXTS = ("text", "thinking", "reasoning", "content", "summary")


def _usage(body: Mapping[str, Any]) -> Usage:
    """Return the counts of a reply; 0 for what is missing or is no count.

    Tokens that only the total holds are thoughts, and are billed as completion.
    """
    usage = _counts(next(filter(None, map(body.get, _USAGE)), None))
    of_prompt = _counts(usage.get("prompttokensdetails") or usage.get("inputtokensdetails"))
    of_completion = _counts(usage.get("completiontokensdetails") or usage.get("outputtokensdetails"))
    prompt, completion = _first(usage, *_PROMPT), _first(usage, *_COMPLETION)
    if not _first(usage, "prompttokens"):  # Anthropic's: what its cache read and wrote is counted beside the input
        prompt += sum(_first(usage, name) for name in _BESIDE_INPUT)
    total = _first(usage, *_TOTAL)
    prompt = prompt or max(0, total - completion)
    completion = max(completion, total - prompt)
    reasoning = _first(of_completion, "reasoningtokens") or _first(usage, "reasoningtokens", "thoughtstokencount")
    cached = _first(of_prompt, "cachedtokens") or _first(usage, *_CACHED)
    return Usage(
        prompt_tokens=prompt,
        completion_tokens=completion,
        cached_tokens=min(cached, prompt),
        reasoning_tokens=min(reasoning, completion),
    )


def _lone_total(body: Mapping[str, Any]) -> int:
    """Return the total of tokens where a reply counts nothing else; else 0."""
    counts = _counts(next(filter(None, map(body.get, _USAGE)), None))
    return 0 if _first(counts, *_PROMPT, *_COMPLETION, *_BESIDE_INPUT) else _first(counts, *_TOTAL)


# Names as `_counts` writes them: OpenAI's, Anthropic's and Bedrock's, Google's.
_USAGE = ("usage", "usageMetadata", "usage_metadata")
_PROMPT = ("prompttokens", "inputtokens", "prompttokencount")
_COMPLETION = ("completiontokens", "outputtokens", "candidatestokencount")
_TOTAL = ("totaltokens", "totaltokencount")
_BESIDE_INPUT = ("cachereadinputtokens", "cachecreationinputtokens", "cachewriteinputtokens")
# DeepSeek's name, Moonshot's place, Anthropic's and Google's names
_CACHED = ("promptcachehittokens", "cachedtokens", "cachereadinputtokens", "cachedcontenttokencount")


def _counts(value: object) -> Mapping[str, Any]:
    """Return the counts under their names in small letters without underscores."""
    if not isinstance(value, dict):
        return {}
    return {_plain_name(str(name)): count for name, count in islice(value.items(), 50)}


@lru_cache(1000)
def _plain_name(name: str) -> str:
    return name.lower().replace("_", "")


def _first(counted: Mapping[str, Any], *names: str) -> int:
    """Return the first of these that is a count; 0 where none is."""
    for name in names:
        if name in counted and (count := _count(counted[name])):
            return count
    return 0


def _count(value: object) -> int:
    """Return a count of tokens; 0 for anything else: money is not made of it."""
    if type(value) is float and value.is_integer():
        value = int(value)
    return value if type(value) is int and 0 < value <= _LARGEST_COUNT else 0


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds of either form of Retry-After (RFC 9110, section 10.2.3)."""
    value = headers.get("Retry-After")
    if value is None:
        precise = headers.get("retry-after-ms") or ""
        is_count = precise.isascii() and precise.isdigit() and len(precise) <= 15
        return float(precise) / 1000 if is_count else None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - time.time()
        except (TypeError, ValueError, OverflowError):
            return None
    return max(0.0, seconds) if math.isfinite(seconds) else None
