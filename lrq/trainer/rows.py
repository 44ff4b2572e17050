"""Reading preference rows: any TRL preference file, one bad line at the cost of one row.

A row holds `prompt`, `chosen`, `rejected`, each a text, or each a list of messages; without `prompt` the common
beginning of the two is the prompt. Of lrq's own fields, `cut` says that the prompt was shortened before, `p_w` and
`p_l` are the win rates of the two responses, `chosen_finish` and `rejected_finish` say "length" of a response that was
cut off, and `prompt_ids`, `chosen_ids`, `rejected_ids` are the tokens as they were drawn with the tokenizer
`tokenizer`.

Without `rejected` a row is a demonstration; TRL's `completion`, and the last message of its `messages`, are read as
`chosen`. Published files are read as they are: LongReward's pairs (`context`, `query`, `win_response`,
`lose_response`), and the Multifaceted sets (`system`, `prompt` and `output`, or `chosen` and `rejected` as messages;
`input`, `chosen`, `rejected`).

A row of several turns holds them as `turns`, each with `prompt` (after the first what the user says then), `chosen`,
`rejected`, and in all or none of them `reference`: the messages that the reference model sees instead of all that
stands before the answers, with `reference_ids`.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import orjson

from lrq.trainer.files import read_records
from lrq.trainer.loss_names import lack

Text = str | list[dict[str, Any]]  # a plain text, or messages

SIDES = ("chosen", "rejected")
_ROLE = re.compile(r"[A-Za-z][\w.-]{0,63}")  # templates write it into control tokens

# What fills a chat template, not what a template reads: no row sets it, least of all the template.
_NOT_OF_ROWS = {
    *("chat_template", "conversation", "messages", "tools", "add_generation_prompt", "continue_final_message"),
    *("tokenize", "padding", "truncation", "max_length", "tokenizer_kwargs", "processor_kwargs"),
    *("return_tensors", "return_dict", "return_assistant_tokens_mask", "raise_exception", "strftime_now"),
    *("additional_special_tokens", "extra_special_tokens"),
}


@dataclass(frozen=True, kw_only=True)
class TokenIds:
    """The tokens of a row as they were sampled, the end tokens included."""

    prompt: list[int]
    chosen: list[int]
    rejected: list[int]
    tokenizer: str = ""  # fingerprint; empty: the row names none


@dataclass(frozen=True, kw_only=True)
class PreferenceRow:
    """One pair, or a demonstration; the three are all texts or all messages."""

    line: int | str  # its number, with the file's name where there are two
    prompt: Any  # None: the row has token ids alone
    chosen: Any
    rejected: Any = None  # None: a demonstration, unless the row has token ids alone
    cut: bool = False  # before it came here
    p_w: float | None = None  # win rates in [0, 1]
    p_l: float | None = None
    template: Mapping[str, Any] = field(default_factory=dict)  # further arguments of the chat template
    ids: TokenIds | None = None
    unended: tuple[str, ...] = ()  # the sides whose response was cut off: no end token follows it
    later: "tuple[PreferenceRow, ...]" = ()  # the turns after this one; their prompts are what the user says then
    reference: "tuple[PreferenceRow, ...]" = ()  # what the reference sees, for each turn; empty: what the policy sees
    is_also: bool = False  # from the further file of ordinary pairs

    @property
    def conversational(self) -> bool:
        return isinstance(self.prompt, list)

    @property
    def sides(self) -> tuple[str, ...]:
        """Chosen and, of a pair, rejected."""
        has_rejected = self.rejected is not None or (self.prompt is None and self.ids and self.ids.rejected)
        return SIDES if has_rejected else SIDES[:1]

    def lacks(self, losses: Collection[str]) -> str:
        """Return what the row has not and one of `losses` reads; empty: nothing."""
        rates = {"p_w"} if self.p_w is not None and self.p_l is not None else set[str]()
        lacking = lack(losses, {*self.sides, *rates})
        return f"has {lacking}" if lacking else ""

    def demonstration(self) -> "PreferenceRow":
        """Return the row without what is rejected, and without what a reference sees."""
        ids = self.ids and replace(self.ids, rejected=[])
        later = tuple(turn.demonstration() for turn in self.later)
        return replace(self, rejected=None, ids=ids, later=later, reference=())


@dataclass(frozen=True, kw_only=True)
class BadRow:
    """A line that is no preference row, and why."""

    line: int | str
    reason: str


def read_rows(path: Path, also: Path | None = None) -> Iterator[PreferenceRow | BadRow]:
    """Yield one record per row of the file or folder, in order; raises LrqError where a file cannot be read.

    `also`: a further file, whose rows come after and say so.
    """
    for number, record in read_records(path):
        yield read_row(record, number)
    if also is None:
        return
    for number, record in read_records(also):
        row = replace(read_row(record, number), line=f"{number} of {also.name}")
        yield replace(row, is_also=True) if isinstance(row, PreferenceRow) else row


def no_rows(path: Path, losses: Collection[str] = ()) -> str | None:
    """Return why nothing in `path` can be trained on with `losses`; None if it can. Reads up to the first good row."""
    bad: list[BadRow] = []
    for row in read_rows(path):
        reason = row.reason if isinstance(row, BadRow) else row.lacks(losses)
        if not reason:
            return None
        bad.append(BadRow(line=row.line, reason=reason))
    return (
        f"none of {len(bad)} rows can be read; line {bad[0].line} {bad[0].reason}" if bad else "the file holds no rows"
    )


def read_row(record: bytes | dict[str, Any], number: int) -> PreferenceRow | BadRow:
    try:
        data = orjson.loads(record) if isinstance(record, bytes) else record
    except orjson.JSONDecodeError:
        return BadRow(line=number, reason="is not JSON")
    try:
        return _row(data, number)
    except ValueError as error:
        return BadRow(line=number, reason=str(error))


def _row(data: Any, number: int) -> PreferenceRow:
    if not isinstance(data, dict):
        raise ValueError("is no JSON object")  # noqa: TRY004 - one kind of error for one kind of trouble
    if data.get("turns") is not None:
        return _several(data, number)
    data = _in_our_names(data)
    ids = _ids(data)
    texts = not ids or any(data.get(name) is not None for name in SIDES)
    prompt, chosen, rejected = _texts(data) if texts else (None, None, None)
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
        ids=ids,
        unended=tuple(side for side in SIDES if data.get(f"{side}_finish") == "length"),
    )


def _in_our_names(data: dict[str, Any]) -> dict[str, Any]:
    """Read the forms in which others write rows."""
    if data.get("win_response") is not None:  # LongReward-10k
        shown = f"{data.get('context') or ''}\n\n{data.get('query') or ''}".strip()
        return _as_messages("", shown, {"chosen": data["win_response"], "rejected": data.get("lose_response")})
    prompt: Any = data.get("prompt")
    system: Any = data.get("system") or ""
    sides: dict[str, Any] = {side: data.get(side) for side in SIDES}
    if prompt is None and isinstance(data.get("input"), str) and None not in sides.values():  # Multifaceted-RM
        return _as_messages("", data["input"], sides)
    if isinstance(prompt, str) and isinstance(system, str):
        if system and sides["chosen"] is None:  # Multifaceted-Collection
            sides = {"chosen": data.get("output"), "rejected": None}
        responses = [value for value in sides.values() if value is not None]
        if responses and (system or all(isinstance(value, list) for value in responses)):  # Multifaceted-DPO, -ORPO
            return {**data, **_as_messages(system, prompt, sides)}
    if data.get("chosen") is None and data.get("completion") is not None:
        return {**data, "chosen": data["completion"]}
    messages = data.get("messages")
    if data.get("chosen") is None and data.get("prompt") is None and isinstance(messages, list) and messages:
        return {**data, "prompt": messages[:-1], "chosen": messages[-1:]}
    return data


def _as_messages(system: str, asked: str, sides: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row of messages from texts.

    Of a side that is a chat its last message is the response; what precedes it is the prompt, unless it only repeats
    the system message and what is asked. Raises ValueError for chats that end otherwise, or begin differently.
    """
    prompt = [{"role": "system", "content": system}] if system else []
    prompt.append({"role": "user", "content": asked})
    row: dict[str, Any] = {}
    before: list[Any] = []
    for side, value in sides.items():
        if value is None:
            continue
        chat = value if isinstance(value, list) else [{"role": "assistant", "content": value}]
        if not chat or not isinstance(chat[-1], dict) or chat[-1].get("role") != "assistant":
            raise ValueError(f"has messages as {side!r} whose last is not the assistant's")
        row[side] = chat[-1:]
        before.append(chat[:-1])
    texts = {system.strip(), asked.strip(), f"{system}\n{asked}".strip(), f"{system}\n\n{asked}".strip()}
    preceding = next((chat for chat in before if any(_content(turn).strip() not in texts for turn in chat)), None)
    if preceding is not None and any(chat != preceding for chat in before):
        raise ValueError("has 'chosen' and 'rejected' that answer different messages")
    return {**row, "prompt": prompt if preceding is None else preceding}


def _content(message: Any) -> str:
    content = message.get("content") if isinstance(message, dict) else None
    return content if isinstance(content, str) else ""


def _several(data: dict[str, Any], number: int) -> PreferenceRow:
    """Read a row of turns; the fields beside them hold for all. Raises ValueError."""
    turns = data["turns"]
    if not isinstance(turns, list) or not turns or not all(isinstance(turn, dict) for turn in turns):
        raise ValueError("has 'turns' that are no list of turns")
    shared = {name: value for name, value in data.items() if name != "turns"}
    first, *later = (_turn({**shared, **turn}, number) for turn in turns)
    if len({turn.sides for turn in (first, *later)}) > 1:
        raise ValueError("has turns with 'rejected' and turns without")
    references = [_seen_by_reference({**shared, **turn}, number) for turn in turns]
    reference = tuple(row for row in references if row)
    if len(reference) not in {0, len(turns)}:
        raise ValueError("has turns with 'reference' and turns without")
    cut = any(turn.cut for turn in (first, *later))
    return replace(first, later=tuple(later), reference=reference, cut=cut)


def _turn(data: dict[str, Any], number: int) -> PreferenceRow:
    """After the first, a turn's prompt is rendered: its ids are those of its answers."""
    has_answers = all(data.get(f"{side}_ids") is not None for side in SIDES if data.get(side) is not None)
    row = _row({**data, **({"prompt_ids": data.get("prompt_ids") or []} if has_answers else {})}, number)
    if not row.conversational:
        raise ValueError("has turns that are no messages")
    return row


def _seen_by_reference(data: dict[str, Any], number: int) -> PreferenceRow | None:
    if data.get("reference") is None:
        return None
    return _row({**data, "prompt": data["reference"], "prompt_ids": data.get("reference_ids")}, number)


def _texts(data: dict[str, Any]) -> tuple[Text, Text, Text | None]:
    chosen = _text(data, "chosen")
    if data.get("rejected") is None:
        prompt = _text(data, "prompt")
        if type(prompt) is not type(chosen):
            raise ValueError("mixes a text and messages")
        _check_filled(prompt=prompt, chosen=chosen)
        return prompt, chosen, None
    rejected = _text(data, "rejected")
    if type(chosen) is not type(rejected):
        raise ValueError("mixes a text and messages")
    implicit = data.get("prompt") is None
    prompt = _common(chosen, rejected) if implicit else _text(data, "prompt")
    if implicit:
        chosen, rejected = chosen[len(prompt) :], rejected[len(prompt) :]
    if type(prompt) is not type(chosen):
        raise ValueError("mixes a text and messages")
    _check_filled(prompt=prompt, chosen=chosen, rejected=rejected)
    if chosen == rejected:
        raise ValueError("has the same text as 'chosen' and 'rejected'")
    return prompt, chosen, rejected


def _check_filled(**parts: Text) -> None:
    for name, value in parts.items():
        if not value:
            raise ValueError(f"has an empty {name!r}")


def _text(data: dict[str, Any], name: str) -> Text:
    value = data.get(name)
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(_is_message(message) for message in value):
        return [_message(message) for message in value]
    raise ValueError(f"has no {name!r} that is a text or a list of messages with role and content")


def _is_message(message: Any) -> bool:
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        return False
    if not _ROLE.fullmatch(message["role"]):
        return False
    content = message.get("content")
    if content is None:
        return bool(message.get("tool_calls"))
    return isinstance(content, str) or (isinstance(content, list) and all(isinstance(part, dict) for part in content))


def _message(message: dict[str, Any]) -> dict[str, Any]:
    """Join the parts of a content, and leave out what a table's other rows brought: columns without a value."""
    fields = {name: value for name, value in message.items() if value is not None or name == "content"}
    fields.setdefault("content", None)  # of a call of tools alone
    if isinstance(content := message.get("content"), list):
        if others := [part.get("type") for part in content if not isinstance(part.get("text"), str)]:
            raise ValueError(f"has a message with a part of type {others[0]!r}: texts alone are trained on")
        fields["content"] = "".join(part["text"] for part in content)
    return fields


def _ids(data: dict[str, Any]) -> TokenIds | None:
    lists = [data.get(f"{name}_ids") for name in ("prompt", *SIDES)]
    is_demonstration = data.get("chosen") is not None and data.get("rejected") is None
    if lists[2] is None and is_demonstration:
        lists[2] = []
    if any(value is None for value in lists):
        return None
    for value in lists:
        if not isinstance(value, list) or not all(type(token) is int and token >= 0 for token in value):
            raise ValueError("has token ids that are no list of numbers")
    if lists[1] == lists[2]:
        raise ValueError("has the same tokens as 'chosen' and 'rejected'")
    prompt, chosen, rejected = (value or [] for value in lists)
    return TokenIds(prompt=prompt, chosen=chosen, rejected=rejected, tokenizer=str(data.get("tokenizer") or ""))


def _rate(data: dict[str, Any], name: str) -> float | None:
    value = data.get(name)
    if value is None or (isinstance(value, int | float) and 0 <= value <= 1):
        return value
    raise ValueError(f"has a {name!r} that is no number from 0 to 1")


def _tools(data: dict[str, Any]) -> list[Any] | None:
    """Read tools as TRL does: a list, or its JSON as text."""
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
        refused = [name for name in value or {} if name in _NOT_OF_ROWS or name.endswith("_token")]
        if refused:
            raise ValueError(f"has 'chat_template_kwargs' that set {refused[0]!r}, which no row may")
        return value or {}
    raise ValueError("has 'chat_template_kwargs' that are no JSON object")


def _common(chosen: Text, rejected: Text) -> Text:
    """Return the beginning that both share; of texts, up to the last space or end, so that no word is split."""
    if isinstance(chosen, str):
        chosen, rejected = f"{chosen} ", f"{rejected} "
    pairs = enumerate(zip(chosen, rejected, strict=False))
    same = next((index for index, (a, b) in pairs if a != b), min(len(chosen), len(rejected)))
    return chosen[: max(0, chosen.rfind(" ", 0, same))] if isinstance(chosen, str) else chosen[:same]
