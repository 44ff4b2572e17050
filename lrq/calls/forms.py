"""The form of requests: which parameters a model takes, under which names and up to what.

Servers differ in it, and say so with a 400 or 422 whose words name the parameter. What such words ask for is read here;
lrq.calls.learned keeps it.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lrq.domain.records import Call

LIMIT = "max_tokens"  # how the reply's limit is named in facts, whatever a server calls it
_LIMITS = (LIMIT, "max_completion_tokens")  # its names in requests, in the order in which they are tried
_OPTIONAL = ("temperature", "top_p", "seed", "n")  # of ours those that a reply can do without
_ALIASES = {
    LIMIT: ("maxTokens", "maxOutputTokens", "max_output_tokens", "max_new_tokens", "max_completion_tokens"),
    "n": ("candidateCount", "candidate_count", "num_completions"),
}
_STATUS = {400, 422, 501}


@dataclass(frozen=True, kw_only=True)
class Form:
    """What an endpoint wants of a model's requests; nothing known asks for nothing."""

    refused: frozenset[str] = frozenset()  # parameters that are not sent
    most: Mapping[str, float] = field(default_factory=dict)  # parameter → the largest value taken
    least: Mapping[str, float] = field(default_factory=dict)
    room: int = 0  # tokens for thoughts, beside the limit that the question has of its own
    context: int = 0  # tokens of prompt and reply together; 0: unknown
    density: float = 0.3  # tokens to a byte that prompts are taken to have: how much they leave of the context
    prompt_factor: float = 1.0  # how far its counts were above what bytes allow
    completion_factor: float = 1.0


PLAIN = Form()


@dataclass(frozen=True, kw_only=True)
class Change:
    """One thing that a refusal asks for. Topics: refused, most, least, context."""

    topic: str
    name: str
    value: float = 1.0


def parameters(call: Call, form: Form = PLAIN) -> dict[str, Any]:
    """Return what goes into the body beside model and messages. What the settings' `extra` sets to null is left out."""
    body: dict[str, Any] = {"use_activation": False} if call.api == "score" else {}  # logits, no probabilities
    if call.api == "chat":
        limit = call.max_tokens and call.max_tokens + _room(call, form)
        body = {"temperature": call.temperature, "top_p": call.top_p, "seed": call.seed, LIMIT: limit}
        if call.n > 1:
            body["n"] = call.n
    if call.extra:
        body |= call.extra
    fields = {name: value for name, value in body.items() if value is not None}
    if form.refused:
        _rename_limit(fields, form)
        fields = {name: value for name, value in fields.items() if name not in form.refused}
    if form.most or form.least:
        fields = {name: _within(name, value, form) for name, value in fields.items()}
    return fields


def limit_of(sent: Mapping[str, Any]) -> int | None:
    """Return the limit of a reply, in tokens, that the parameters `sent` name, under whichever name; None: none."""
    return max((int(sent[name]) for name in _LIMITS if name in sent), default=None)


def _room(call: Call, form: Form) -> int:
    if not form.context or not call.max_tokens:
        return form.room
    return max(0, min(form.room, form.context - round(form.density * call.size) - call.max_tokens))


def _rename_limit(given: dict[str, Any], form: Form) -> None:
    names = [name for name in _LIMITS if name not in form.refused]
    for name in _LIMITS:
        if name in given and name in form.refused:
            value = given.pop(name)
            if names:
                given.setdefault(names[0], value)


def _within(name: str, value: Any, form: Form) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    fact = LIMIT if name in _LIMITS else name
    bounded = min(form.most.get(fact, value), value)
    bounded = max(form.least.get(fact, bounded), bounded)
    return int(bounded) if isinstance(value, int) else bounded


# ----- what a refusal asks for

_UNTAKEN = re.compile(
    r"\bun(?:supported|recogni[sz]ed|known|expected|permitted)|extra[_ ](?:fields?|inputs?|forbidden|param)|forbidden"
    r"|n[o']t (?:be |yet |currently |a )*(?:support|permit|allow|recogni|available|applicable|accept|valid|compatible"
    r"|implemented|used|specified|known)|cannot find field|no longer|deprecated|do(?:es)? not exist|incompatible",
    re.IGNORECASE,
)
_AMISS = re.compile(
    r"invalid|cannot|can't|must|should|only|remove|too (?:large|big|high|small|low|many)|exceed|at most|at least"
    r"|maximum|minimum|greater|less|range|[<>≤≥]",
    re.IGNORECASE,
)
_OF_CONTEXT = re.compile(
    r"context.?(?:length|window|size|limit)|max_model_len|reduce the length|(?:input|prompt)s? (?:is|are) too long"
    r"|(?:input|prompt) tokens|tokens? in (?:the|your) (?:messages|prompt|input)|sequence length",
    re.IGNORECASE,
)
_CONTEXT = re.compile(
    r"(?:context.?(?:length|window|size|limit)|max_model_len|sequence length)\D{0,30}?(\d[\d,]*)", re.IGNORECASE
)
_OF_CONTENT = re.compile(r"content[_ ](?:filter|management|policy)|moderation|flagged|responsibleai", re.IGNORECASE)
_BOTH = re.compile(r"\bboth\b|only one|one of|together|simultaneously|\beither\b", re.IGNORECASE)
_LISTS_WHAT_IS_TAKEN = re.compile(
    r"(?<!un)(?<!not )\b(?:supported|allowed|valid|accepted|permitted|known) (?:\w+ )?"
    r"(?:parameters|arguments|fields|keys)|\binstead\b",
    re.IGNORECASE,
)
_OF_N = re.compile(
    r"[`'\"\[]n[`'\"\]]|(?<![\w\\'])n\s*(?:must|should|is|=|>|<)|(?:parameter|supplied|argument)s?:?\s+n\b"
    r"|candidate_?count|num_completions|one candidate|multiple (?:choices|completions)",
    re.IGNORECASE,
)
_SENTENCE = re.compile(r"(?<=[.!?;])\s+|\n")
_LOC = re.compile(r"loc['\"]?\s*[:=]\s*[\[(]([^\])]*)[\])]")
_NUMBER = re.compile(r"(?<![\w.-])\d[\d,_]*(?![\w-]|\.\d)")
_DECIMAL = r"(\d+(?:\.\d+)?)"
_WHO_IS_MEANT = {"param", "parameter", "field", "parameter_name", "argument"}
_ECHOES = {"input", "messages", "flagged_input", "body", "url", "doc_url", "documentation_url"}
_MOST_TEXT = 8_000  # characters of an error that are looked through


def changes(sent: Mapping[str, Any], status: int, body: object) -> list[Change]:
    """Return what a refused request's answer asks for; empty where it is not the form that is refused.

    Args:
        sent: the request's parameters: words that name none of them are not about the form.
        status: of HTTP.
        body: of the answer, as JSON.
    """
    strings = list(_strings(body))
    text = "\n".join(value for _, value in strings)[:_MOST_TEXT]
    if (status not in _STATUS and "UnsupportedParams" not in text) or _OF_CONTENT.search(text):
        return []
    of_context = bool(_OF_CONTEXT.search(text))
    if of_context and (limit := _CONTEXT.search(text)):
        return [Change(topic="context", name="", value=float(limit[1].replace(",", "")))]
    requested = list(dict.fromkeys(_changes(sent, strings, text)))
    return [change for change in requested if change.topic == "most"] if of_context else requested


def _changes(sent: Mapping[str, Any], strings: Sequence[tuple[str, str]], text: str) -> list[Change]:
    names = {value.rpartition(".")[2] for key, value in strings if key in _WHO_IS_MEANT}
    names |= {name.strip(" '\"") for match in _LOC.finditer(text) for name in match[1].split(",")}
    meant = [name for name in sent if not names.isdisjoint(_names(name))]
    if meant:
        return [change for name in meant for change in _asked(name, sent, text, is_meant=True)]
    requested: list[Change] = []
    for sentence in _SENTENCE.split(text):
        clause = _LISTS_WHAT_IS_TAKEN.split(sentence)[0]
        about = [name for name in sent if _speaks_of(name, clause)]
        if {"temperature", "top_p"} <= set(about) and _BOTH.search(sentence):
            return [Change(topic="refused", name="top_p")]
        if _UNTAKEN.search(clause) or _AMISS.search(clause):
            requested += [change for name in about for change in _asked(name, sent, text, clause=clause)]
    return requested


def _asked(
    name: str, sent: Mapping[str, Any], text: str, *, clause: str = "", is_meant: bool = False
) -> Sequence[Change]:
    clause = clause or text
    is_untaken = bool(_UNTAKEN.search(clause))
    if name in _LIMITS:
        names_other = any(limit in text for limit in _LIMITS if limit != name and name not in limit)
        if not (is_untaken and names_other) and (ceiling := _ceiling(sent[name], text)):
            return [Change(topic="most", name=LIMIT, value=ceiling)]
        return [Change(topic="refused", name=name)] if is_untaken or names_other or is_meant else []
    if name in _OPTIONAL:
        ranged = _ranged(name, sent[name], text) if name in ("temperature", "top_p") and not is_untaken else None
        return [ranged or Change(topic="refused", name=name)]
    return [Change(topic="refused", name=name)] if is_untaken else []


def _ceiling(value: Any, text: str) -> float:
    """Return the largest number below the limit that was sent, in words that speak of a limit; 0 where none is."""
    if not _AMISS.search(text):
        return 0.0
    numbers = [int(re.sub(r"[,_]", "", number)) for number in _NUMBER.findall(text)]
    ceiling = max((number for number in numbers if 16 <= number < value), default=0)
    return float(ceiling - (1 if "exclusive" in text and ceiling else 0))


def _ranged(name: str, value: float, text: str) -> Change | None:
    """Return the bound that a value has missed, where the words name one."""
    low, high = (bound if bound is None else round(bound, 4) for bound in _range(text))
    if low is not None and value < low:
        return Change(topic="least", name=name, value=low)
    return Change(topic="most", name=name, value=high) if high is not None and value > high else None


def _range(text: str) -> tuple[float | None, float | None]:
    """Return the smallest and the largest value that the words allow; an open end is a hundredth away."""
    span = re.search(rf"([\[(])\s*{_DECIMAL}\s*,\s*{_DECIMAL}\s*([\])])", text)
    if span:
        return float(span[2]) + 0.01 * (span[1] == "("), float(span[3]) - 0.01 * (span[4] == ")")
    span = re.search(rf"(?:between|from|range)\s*{_DECIMAL}\s*(?:and|to|-|–)\s*{_DECIMAL}", text)
    if span:
        return float(span[1]), float(span[2])
    low = re.search(rf"(?:>=|≥|at least|greater than or equal to|no less than)\s*{_DECIMAL}", text)
    above = re.search(rf"(?:>|greater than|more than|above|larger than)\s*{_DECIMAL}", text)
    high = re.search(rf"(?:<=|≤|at most|less than or equal to|no more than|not exceed|up to)\s*{_DECIMAL}", text)
    below = re.search(rf"(?:<|less than|below|smaller than)\s*{_DECIMAL}", text)
    least = float(low[1]) if low else float(above[1]) + 0.01 if above else None
    if least is None and re.search(r"positive|non-?zero", text):
        least = 0.01
    return least, float(high[1]) if high else float(below[1]) - 0.01 if below else None


def _names(name: str) -> set[str]:
    head, *parts = name.split("_")
    return {name, head + "".join(part.title() for part in parts), *_ALIASES.get(name, ())}


def _speaks_of(name: str, text: str) -> bool:
    if name == "n":
        return bool(_OF_N.search(text))
    names = "|".join(re.escape(alias) for alias in _names(name))
    if name in (*_LIMITS, *_OPTIONAL) or "_" in name:
        return bool(re.search(rf"(?<![\w.])(?:{names})(?!\w)", text))
    # A word of everyday, such as `user` or `stop`: only where it is marked as a name.
    marked = rf"(?<!role )[`'\"\[](?:{names})[`'\"\]]|(?:supplied|parameters?|arguments?|fields?):\s*(?:{names})\b"
    return bool(re.search(marked, text))


def _strings(value: object, key: str = "") -> Iterator[tuple[str, str]]:
    """Return all texts of an error's body with the keys they stand under, without what repeats the request."""
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, Mapping):
        for name, item in value.items():
            if name == "loc" and isinstance(item, list):
                yield from (("param", part) for part in item[-1:] if isinstance(part, str))
            elif name not in _ECHOES:
                yield from _strings(item, str(name))
    elif isinstance(value, list):
        for item in value[:50]:
            yield from _strings(item, key)
