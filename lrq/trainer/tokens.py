"""Preflight: every row becomes token ids once, and the user learns what was kept, cut and dropped before it costs.

Token ids are those that were sampled where the row has them. Else they are what TRL's DPOTrainer would make of the row,
response starting where prompt and prompt + response part, with one end token after each response and none after one
that was cut off. They go to an Arrow file that all processes map into memory.
"""

import faulthandler
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import islice, takewhile
from pathlib import Path
from typing import Any

import pyarrow as pa

from lrq.domain.time_limit import time_limit
from lrq.policy.fingerprint import tokenizer_fingerprint
from lrq.policy.rendering import LONGEST_RENDERING, Rendering
from lrq.trainer.conversation import Ids, Opening, join, opening, parts
from lrq.trainer.job import TrainJob
from lrq.trainer.reference import response_key
from lrq.trainer.rows import SIDES, BadRow, PreferenceRow, TokenIds
from lrq.trainer.tally import Tally
from lrq.trainer.turns import TurnEnd, change_by_template, turn_end

IDS = ("prompt_ids", "chosen_ids", "rejected_ids")
_TOKENS = pa.list_(pa.int32())
SCHEMA = pa.schema(
    {
        **dict.fromkeys(IDS, _TOKENS),  # of several turns: the first prompt, and all that follows it on each side
        "chosen_mask": pa.list_(pa.int8()),  # of several turns: 1 on answers; else null
        "rejected_mask": pa.list_(pa.int8()),
        "reference": pa.list_(pa.struct(dict.fromkeys(IDS, _TOKENS))),  # turn by turn; empty: it sees the same
        "chosen_keys": pa.list_(pa.string()),  # name the reference log-probabilities, whose sum counts
        "rejected_keys": pa.list_(pa.string()),
        "p_w": pa.float64(),  # win rates, for the squared loss
        "p_l": pa.float64(),
        "length": pa.int32(),  # tokens of both sides, for batches of like rows
    }
)
ROWS_AT_ONCE = 16  # the tokenizer works on these in parallel; 16 documents of 100 KB stay small in memory
LONGEST_TOKENIZING = 1800.0  # seconds for these rows
_UNINTERRUPTED = 2.0  # times as long as it may take, after which a template is not to be interrupted
SANITIZE = "sanitize_control_tokens"  # a template's argument: control tokens in messages stay plain text
_VERBATIM = "{{ messages[0]['content'] }}"  # the template of a plain text
_MOVED = "a token reaches over the border of prompt and response"
SHORTEST_PROMPT = 16  # tokens; with less left beside the response there is nothing to answer from


@dataclass(frozen=True)
class Chat:
    """A tokenizer with its chat template, and what is asked of them once for all rows."""

    tokenizer: Any
    ends: Collection[int] = ()  # the model's end tokens
    reads_control_tokens: bool = False  # in rows of plain texts; else they are letters there

    @cached_property
    def fingerprint(self) -> str:
        return tokenizer_fingerprint(self.tokenizer)

    @cached_property
    def turn_end(self) -> TurnEnd:
        return turn_end(self.tokenizer, self.ends)

    @cached_property
    def rendering(self) -> Rendering:
        return Rendering(tokenizer=self.tokenizer, template={})

    @cached_property
    def opening(self) -> Opening:
        return opening(self.tokenizer)

    @cached_property
    def _names(self) -> frozenset[str] | None:
        template = getattr(self.tokenizer, "chat_template", None)
        texts = template.values() if isinstance(template, Mapping) else [template]
        words = (re.findall(r"[^\W\d]\w*", text) for text in texts if isinstance(text, str))
        return frozenset(word for text_words in words for word in text_words) or None

    def reads(self, name: str) -> bool:
        """Tell whether the chat template knows an argument `name`: others are not passed on."""
        return self._names is None or name in self._names or name in {"tools", "documents"}

    @cached_property
    def control_tokens(self) -> list[str]:
        """Return all texts that the tokenizer knows as one piece."""
        return [token.content for token in getattr(self.tokenizer, "added_tokens_decoder", {}).values()]

    @cached_property
    def special_tokens(self) -> list[str]:
        """Return those of them that end a turn or the like; marks of thoughts mostly are none."""
        added = getattr(self.tokenizer, "added_tokens_decoder", {}).values()
        return [token.content for token in added if token.special]

    @cached_property
    def start(self) -> list[int]:
        """Return the tokens that the tokenizer puts before a plain text."""
        [ids] = self.tokenizer([""], add_special_tokens=True)["input_ids"]
        return list(takewhile(lambda token: token == self.tokenizer.bos_token_id, ids))

    def letters(self, text: str) -> list[int]:
        """Return the ids of a plain text whose control tokens are letters; no end is added."""
        ids = self.tokenizer.apply_chat_template(
            [{"role": "user", "content": text}], chat_template=_VERBATIM, return_dict=False, **{SANITIZE: True}
        )
        return [*self.start, *ids]


def tokenize(
    rows: Iterable[PreferenceRow | BadRow],
    tokenizer: Any,
    job: TrainJob,
    *,
    model: str,
    target: Path,
    ends: Collection[int] = (),
    overtime: Path | None = None,
) -> Tally:
    """Write the rows that can be trained on to an Arrow file; `model` is the reference's fingerprint.

    A template or tokenizer that does not end and that nothing can interrupt ends this process with status 1: the file
    `overtime` then holds the reason.
    """
    tally, chat = Tally(), Chat(tokenizer, ends, job.control_tokens)
    temporary = target.with_suffix(".part")
    if job.is_one_sided:
        rows = (row if isinstance(row, BadRow) else row.demonstration() for row in rows)
    with pa.OSFile(str(temporary), "wb") as sink, pa.ipc.new_stream(sink, SCHEMA) as writer:
        rendered = _rendered(rows, chat, tally, overtime)
        while chunk := list(islice(rendered, ROWS_AT_ONCE)):
            lines = f"lines {chunk[0].row.line} to {chunk[-1].row.line}"
            with _watched("tokenizer", lines, LONGEST_TOKENIZING, overtime):
                encoded = list(_encoded(chunk, chat, tally))
            records = [_record(plan.row, ids, model) for plan, ids in encoded if fits(plan.row, ids, job, tally)]
            writer.write_batch(pa.RecordBatch.from_pylist(records, schema=SCHEMA))
    temporary.replace(target)
    return tally


def _encoded(plans: Sequence["Plan"], chat: Chat, tally: Tally) -> Iterator[tuple["Plan", Ids]]:
    encoded = iter(encode([part for plan in plans for part in plan.parts], chat))
    for plan in plans:
        encoded_parts = list(islice(encoded, len(plan.parts)))
        try:
            ids = join(plan.row, encoded_parts, chat.opening if plan.row.later else None)
        except ValueError as error:
            tally.set_aside_row(plan.row.line, f"does not fit the chat template: {error}")
            continue
        for part in plan.parts:
            _remark(part, chat, tally)
        yield plan, ids


@contextmanager
def _watched(what: str, lines: str, seconds: float, overtime: Path | None) -> Iterator[None]:
    """End this process where the block does not end, even if it holds the interpreter: a thread of C looks to it."""
    if overtime is None:
        yield
        return
    overtime.write_text(f"the {what} did not end within {seconds:g} s on {lines}")
    faulthandler.dump_traceback_later(seconds, exit=True)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
        overtime.unlink()


def _record(row: PreferenceRow, ids: Ids, model: str) -> dict[str, Any]:
    references = ids.get("reference") or [ids]
    keys = {
        f"{side}_keys": [
            response_key(model, part["prompt_ids"], part[f"{side}_ids"], part.get(f"{side}_mask"))
            for part in references
        ]
        for side in row.sides
    }
    return {**ids, **keys, "p_w": row.p_w, "p_l": row.p_l, "length": sum(len(ids[name]) for name in IDS)}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A row as the texts and tokens that are rendered for it: one part, or one for each turn and its reference."""

    row: PreferenceRow
    parts: "list[Rendered]"


@dataclass(kw_only=True)
class Rendered:
    """A row as text: the prompt, then the prompt with each response; as ids where text would not do."""

    row: PreferenceRow
    texts: tuple[str, ...] = ()
    ids: tuple[list[int], ...] = ()
    letters: list[int] | None = None  # the prompt, where control tokens in it are letters and the row says nothing
    is_broken: bool = False  # a plain row in whose texts control tokens are letters
    own_ids: TokenIds | None = None  # the ids of the row itself: nothing is rendered
    change: str = ""  # what the template does to it that its policy never saw


def _rendered(
    rows: Iterable[PreferenceRow | BadRow], chat: Chat, tally: Tally, overtime: Path | None
) -> Iterator[Plan]:
    for row in rows:
        tally.rows += 1
        if isinstance(row, BadRow):
            tally.set_aside_row(row.line, row.reason)
            continue
        row_with_ids = _with_own_ids(row, chat, tally)
        if row_with_ids.prompt is None and not row_with_ids.ids:
            tally.set_aside_row(row.line, "has token ids of another tokenizer and no texts")
            continue
        try:
            watched = _watched("chat template", f"line {row.line}", _UNINTERRUPTED * LONGEST_RENDERING, overtime)
            with watched, time_limit(LONGEST_RENDERING):
                rendered = [
                    Rendered(row=part, own_ids=part.ids) if part.ids else render(part, chat)
                    for part in parts(row_with_ids)
                ]
        except Exception as error:  # a template is a program: it raises what it likes
            tally.set_aside_row(row.line, f"does not fit the chat template: {error}")
            continue
        yield Plan(row=row_with_ids, parts=rendered)


def _with_own_ids(row: PreferenceRow, chat: Chat, tally: Tally) -> PreferenceRow:
    """Keep a row's token ids where all are this tokenizer's; else its texts are rendered."""
    turns = (row, *row.later, *row.reference)
    if not any(turn.ids for turn in turns):
        return row
    is_known = [_is_of(chat, turn) for turn in turns if turn.ids]
    prompts = [turn.ids.prompt for turn in (row, *row.reference) if turn.ids]  # later turns' are rendered
    has_prompts = not row.later or all(prompts)
    if all(turn.ids for turn in turns) and all(is_known) and has_prompts:
        return row
    if not all(is_known) and row.prompt is not None:
        tally.remark(row.line, "its token ids are another tokenizer's, so its texts are rendered")
    later, reference = (tuple(replace(turn, ids=None) for turn in part) for part in (row.later, row.reference))
    return replace(row, ids=None, later=later, reference=reference)


def _is_of(chat: Chat, row: PreferenceRow) -> bool:
    """Tell whether a row's token ids are those of this tokenizer, as far as can be told."""
    ids = row.ids or TokenIds(prompt=[], chosen=[], rejected=[])
    largest = max(map(max, filter(None, (ids.prompt, ids.chosen, ids.rejected))), default=0)
    unnamed = row.prompt is None and not ids.tokenizer
    return largest < len(chat.tokenizer) and (unnamed or ids.tokenizer == chat.fingerprint)


def _remark(rendered: Rendered, chat: Chat, tally: Tally) -> None:
    if rendered.letters is not None:
        tally.remark(rendered.row.line, "control tokens in its prompt are read as letters")
    if rendered.is_broken:
        words = "control tokens in its texts are read as letters; control_tokens=true reads them as tokens"
        tally.remark(rendered.row.line, words)
    if rendered.change:
        tally.remark(rendered.row.line, f"the policy cannot have written it like this: {rendered.change}")
    if rendered.row.conversational and not rendered.own_ids and not chat.turn_end.is_written:
        end = chat.tokenizer.convert_ids_to_tokens(chat.turn_end.token)
        tally.remark(rendered.row.line, f"the chat template ends no turn, so {end} is added")


def as_chat(tokenizer: Any) -> Chat:
    return tokenizer if isinstance(tokenizer, Chat) else Chat(tokenizer)


def render(row: PreferenceRow, tokenizer: Any) -> Rendered:
    """Render a row's texts; `tokenizer` may come as a Chat, which asks its template once for all rows."""
    chat = as_chat(tokenizer)
    tokenizer = chat.tokenizer
    if not row.conversational:
        return _render_plain(row, chat)
    kwargs = {name: value for name, value in row.template.items() if name != SANITIZE and chat.reads(name)}
    template = partial(tokenizer.apply_chat_template, **kwargs)
    texts = _applied(row, chat, partial(template, tokenize=False))
    change = change_by_template(row, texts[0], texts[1:], tokenizer)
    rule = row.template.get(SANITIZE)
    letters = partial(template, tokenize=True, return_dict=False, **{SANITIZE: True})
    if rule is None and _holds_control_tokens([part for part in row.prompt if part["role"] != "assistant"], chat):
        messages = [chat.rendering.message(message) for message in row.prompt]
        return Rendered(row=row, texts=texts, change=change, letters=letters(messages, add_generation_prompt=True))
    messages_of_row = [*row.prompt, *(message for side in row.sides for message in getattr(row, side))]
    if not rule or not _holds_control_tokens(messages_of_row, chat):
        return Rendered(row=row, texts=texts, change=change)
    # The tokenizer must know what came from where: that is lost in the text.
    ids = _applied(row, chat, letters)
    return Rendered(row=row, ids=ids, change=change)


def _render_plain(row: PreferenceRow, chat: Chat) -> Rendered:
    """Render a row of plain texts, with one start and one end, whether the text has them or the tokenizer adds them."""
    start, end = (getattr(chat.tokenizer, f"{name}_token", None) or "" for name in ("bos", "eos"))
    ends = [side not in row.unended for side in row.sides]
    sides = [getattr(row, side) for side in row.sides]
    sides = [text.removesuffix(end) if is_ended else text for text, is_ended in zip(sides, ends, strict=True)]
    prompt = row.prompt.removeprefix(start)
    texts = [prompt, *(prompt + text for text in sides)]
    if chat.reads_control_tokens or not any(token in text for token in chat.special_tokens for text in texts):
        ended = (
            row.prompt + text + end if is_ended else row.prompt + text
            for text, is_ended in zip(sides, ends, strict=True)
        )
        return Rendered(row=row, texts=(row.prompt, *ended))
    first = [chat.tokenizer.bos_token_id] if prompt != row.prompt else []
    last = [] if chat.tokenizer.eos_token_id is None else [chat.tokenizer.eos_token_id]
    prompt_ids, *wholes = (_without_doubles(first + chat.letters(text), chat.tokenizer) for text in texts)
    ids = (text_ids + last if is_ended else text_ids for text_ids, is_ended in zip(wholes, ends, strict=True))
    return Rendered(row=row, ids=(prompt_ids, *ids), is_broken=True)


def _applied(row: PreferenceRow, chat: Chat, template: Any) -> tuple[Any, ...]:
    """Apply the template to the prompt, and to the prompt with each response; contents in the form that it reads."""
    responses = (getattr(row, side) for side in row.sides)
    prompt, *sides = ([chat.rendering.message(m) for m in part] for part in (row.prompt, *responses))
    return (template(prompt, add_generation_prompt=True), *(template(prompt + response) for response in sides))


def _holds_control_tokens(messages: Sequence[Mapping[str, Any]], chat: Chat) -> bool:
    """Tell whether any message holds a token that the tokenizer knows as one piece; elsewhere text will do."""
    texts = [message["content"] or "" for message in messages]
    return any(token in text for token in chat.control_tokens for text in texts)


def encode(rendered: Sequence[Rendered], tokenizer: Any) -> list[dict[str, list[int]]]:
    """Return the token ids of each row: prompt_ids, chosen_ids, rejected_ids; of a demonstration the last are empty."""
    chat = as_chat(tokenizer)
    encoded = {index: _parted(*row.ids) for index, row in enumerate(rendered) if row.ids}
    for plain in (False, True):  # a chat template brings its special tokens itself
        places = [index for index, row in enumerate(rendered) if row.texts and row.row.conversational != plain]
        texts = [text for index in places for text in rendered[index].texts]
        ids = chat.tokenizer(texts, add_special_tokens=plain)["input_ids"] if texts else []
        ids = [_without_doubles(text_ids, chat.tokenizer) for text_ids in ids] if plain else ids
        remaining = iter(ids)
        for index in places:
            rendered[index].ids = tuple(islice(remaining, len(rendered[index].texts)))
            encoded[index] = _parted(*rendered[index].ids)
    for index, row in enumerate(rendered):
        end = len(encoded[index]["prompt_ids"]) if row.ids else 0
        left_out = row.ids[0][end:] if row.ids else []
        if left_out and left_out != [getattr(chat.tokenizer, "eos_token_id", None)]:  # an end that the tokenizer added
            row.change = row.change or _MOVED
        if row.letters is not None:  # a template may end a prompt as no conversation goes on: that is not its text
            encoded[index]["prompt_ids"] = row.letters[: len(row.letters) - len(row.ids[0]) + end]
        if own := row.own_ids:
            encoded[index] = {"prompt_ids": own.prompt, "chosen_ids": own.chosen, "rejected_ids": own.rejected}
        elif row.row.conversational:
            _end_turns(encoded[index], row.row, chat.turn_end)
        elif row.row.unended:
            _end_turns(encoded[index], row.row, TurnEnd(token=chat.tokenizer.eos_token_id))
    return [encoded[index] for index in range(len(rendered))]


def _without_doubles(ids: list[int], tokenizer: Any) -> list[int]:
    """Take out the second of two starts or ends: one stands in the text, the other the tokenizer adds."""
    start, end = (getattr(tokenizer, f"{name}_token_id", None) for name in ("bos", "eos"))
    if len(ids) > 1 and ids[0] == ids[1] == start:
        ids = ids[1:]
    if len(ids) > 1 and ids[-1] == ids[-2] == end:
        ids = ids[:-1]
    return ids


def _end_turns(ids: dict[str, list[int]], row: PreferenceRow, end: TurnEnd) -> None:
    """End each response once, and leave one open that was cut off."""
    for side in row.sides:
        response = ids[f"{side}_ids"]
        if side in row.unended and end.is_written and end.token in response:
            last = len(response) - 1 - response[::-1].index(end.token)
            ids[f"{side}_ids"] = response[:last]
        elif side not in row.unended and not end.is_written and end.token is not None and response[-1:] != [end.token]:
            ids[f"{side}_ids"] = [*response, end.token]


def _parted(prompt: list[int], *wholes: list[int]) -> dict[str, list[int]]:
    """Cut where all part: a template may end a prompt in a way that no conversation goes on."""
    part = min(_same(prompt, ids) for ids in wholes)
    sides = {f"{side}_ids": ids[part:] for side, ids in zip(SIDES, wholes, strict=False)}
    return {"prompt_ids": prompt[:part], "rejected_ids": [], **sides}


def _same(left: list[int], right: list[int]) -> int:
    if right[: len(left)] == left:
        return len(left)
    return next((i for i, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), min(len(left), len(right)))


def fits(row: PreferenceRow, ids: Ids, job: TrainJob, tally: Tally) -> bool:
    """Tell whether the row can be trained on, and count it in `tally`; `ids` are shortened in place if they must be."""
    if reason := _unusable(row, ids, job):
        tally.set_aside_row(row.line, reason)
        return False
    sequences = [ids, *ids.get("reference", ())]
    rooms = [(job.max_length or _length(sequence)) - _longer(sequence) for sequence in sequences]
    too_long = [len(sequence["prompt_ids"]) > room for sequence, room in zip(sequences, rooms, strict=True)]
    if any(too_long) and (job.overlong == "drop" or min(rooms) < SHORTEST_PROMPT):
        tally.drop_row(row.line, f"has {max(map(_length, sequences))} tokens, more than max_length {job.max_length}")
        return False
    for sequence, room in zip(sequences, rooms, strict=True):
        if len(sequence["prompt_ids"]) > room:
            sequence["prompt_ids"] = cut_middle(sequence["prompt_ids"], room)
    tally.cut += any(too_long) or row.cut
    tally.also += row.is_also
    tally.lengths.append((len(ids["prompt_ids"]), len(ids["chosen_ids"]), len(ids["rejected_ids"])))
    return True


def _unusable(row: PreferenceRow, ids: Ids, job: TrainJob) -> str | None:
    if lacking := row.lacks(job.loss_type):
        return lacking
    empty = [side for side in ("prompt", *row.sides) if not ids[f"{side}_ids"]]
    if empty:
        return f"has no tokens in {empty[0]!r}"
    return "has the same tokens as 'chosen' and 'rejected'" if ids["chosen_ids"] == ids["rejected_ids"] else None


def _longer(ids: Ids) -> int:
    return max(len(ids["chosen_ids"]), len(ids["rejected_ids"]))


def _length(ids: Ids) -> int:
    return len(ids["prompt_ids"]) + _longer(ids)


def cut_middle(ids: list[int], room: int) -> list[int]:
    """Keep the beginning and the end of `ids`, `room` tokens: there instructions and questions stand."""
    head = room // 2
    return ids[:head] + ids[len(ids) - (room - head) :]
