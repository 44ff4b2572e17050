"""Reading preference rows: any TRL preference file in JSON lines, one bad line at the cost of one row.

A row holds `prompt`, `chosen`, `rejected`, each a text, or each a list of messages; without `prompt` the common
beginning of the two is the prompt. Of lrq's own fields, `cut` says that the prompt was shortened before, and `p_w` and
`p_l` are the win rates of the two responses.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

Text = str | list[dict[str, Any]]  # a plain text, or messages


@dataclass(frozen=True, kw_only=True)
class PreferenceRow:
    """One pair; the three are all texts or all messages."""

    line: int
    prompt: Any
    chosen: Any
    rejected: Any
    cut: bool = False  # before it came here
    p_w: float | None = None  # win rates in [0, 1]
    p_l: float | None = None
    template: Mapping[str, Any] = field(default_factory=dict)  # further arguments of the chat template

    @property
    def conversational(self) -> bool:
        return isinstance(self.prompt, list)


@dataclass(frozen=True, kw_only=True)
class BadRow:
    """A line that is no preference row, and why."""

    line: int
    reason: str


def read_rows(path: Path) -> Iterator[PreferenceRow | BadRow]:
    """Yield one record per line that is not blank, in order."""
    with path.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            if line.strip():
                yield read_row(line, number)


def no_rows(path: Path) -> str | None:
    """Why nothing can be trained on, without reading past the first good row; None if there is one."""
    bad: list[BadRow] = []
    for row in read_rows(path):
        if isinstance(row, PreferenceRow):
            return None
        bad.append(row)
    return (
        f"none of {len(bad)} rows can be read; line {bad[0].line} {bad[0].reason}" if bad else "the file holds no rows"
    )


def read_row(line: bytes, number: int) -> PreferenceRow | BadRow:
    try:
        data = orjson.loads(line)
    except orjson.JSONDecodeError:
        return BadRow(line=number, reason="is not JSON")
    try:
        return _row(data, number)
    except ValueError as error:
        return BadRow(line=number, reason=str(error))


def _row(data: Any, number: int) -> PreferenceRow:
    if not isinstance(data, dict):
        raise ValueError("is no JSON object")  # noqa: TRY004 - one kind of error for one kind of trouble
    chosen, rejected = _text(data, "chosen"), _text(data, "rejected")
    if type(chosen) is not type(rejected):
        raise ValueError("mixes a text and messages")
    prompt = _text(data, "prompt") if "prompt" in data else _common(chosen, rejected)
    if "prompt" not in data:
        chosen, rejected = chosen[len(prompt) :], rejected[len(prompt) :]
    if type(prompt) is not type(chosen):
        raise ValueError("mixes a text and messages")
    for name, value in (("prompt", prompt), ("chosen", chosen), ("rejected", rejected)):
        if not value:
            raise ValueError(f"has an empty {name!r}")
    if chosen == rejected:
        raise ValueError("has the same text as 'chosen' and 'rejected'")
    template = {"tools": _tools(data), **_template(data)}
    return PreferenceRow(
        line=number,
        prompt=prompt,
        chosen=chosen,
        rejected=rejected,
        cut=bool(data.get("cut")),
        p_w=_rate(data, "p_w"),
        p_l=_rate(data, "p_l"),
        template={name: value for name, value in template.items() if value is not None},
    )


def _text(data: dict[str, Any], name: str) -> Text:
    value = data.get(name)
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(_is_message(message) for message in value):
        return value
    raise ValueError(f"has no {name!r} that is a text or a list of messages with role and content")


def _rate(data: dict[str, Any], name: str) -> float | None:
    value = data.get(name)
    if value is None or (isinstance(value, int | float) and 0 <= value <= 1):
        return value
    raise ValueError(f"has a {name!r} that is no number from 0 to 1")


def _tools(data: dict[str, Any]) -> list[Any] | None:
    """As TRL reads them: a list, or its JSON as text."""
    value = data.get("tools")
    try:
        value = orjson.loads(value) if isinstance(value, str) else value
    except orjson.JSONDecodeError:
        value = ""
    if value is None or isinstance(value, list):
        return value
    raise ValueError("has 'tools' that are no list")


def _template(data: dict[str, Any]) -> dict[str, Any]:
    value = data.get("chat_template_kwargs")
    if value is None or isinstance(value, dict):
        return value or {}
    raise ValueError("has 'chat_template_kwargs' that are no JSON object")


def _is_message(message: Any) -> bool:
    return isinstance(message, dict) and all(isinstance(message.get(name), str) for name in ("role", "content"))


def _common(chosen: Text, rejected: Text) -> Text:
    """The beginning that both share; of texts, up to the last space or end, so that neither's words are split."""
    if isinstance(chosen, str):
        chosen, rejected = f"{chosen} ", f"{rejected} "
    pairs = enumerate(zip(chosen, rejected, strict=False))
    same = next((place for place, (a, b) in pairs if a != b), min(len(chosen), len(rejected)))
    return chosen[: max(0, chosen.rfind(" ", 0, same))] if isinstance(chosen, str) else chosen[:same]
