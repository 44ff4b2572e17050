"""Preflight: every row becomes token ids once, and the user learns what was kept, cut and dropped before it costs.

Token ids are those that were sampled where the row has them. Else they are what TRL's DPOTrainer would make of the row,
response starting where prompt and prompt + response part, with one end token after each response and none after one
that was cut off. They go to an Arrow file that all processes map into memory.
"""

import re
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from statistics import median_low
from typing import Any

import pyarrow as pa

from lrq.domain.errors import UsageError
from lrq.domain.time_limit import time_limit
from lrq.policy.fingerprint import tokenizer_fingerprint
from lrq.policy.rendering import LONGEST_RENDERING, Rendering
from lrq.trainer.job import SPPO, Preflight, Spread, TrainJob
from lrq.trainer.reference import response_key
from lrq.trainer.rows import BadRow, PreferenceRow, TokenIds
from lrq.trainer.turns import TurnEnd, change_by_template, turn_end

SCHEMA = pa.schema(
    {
        "prompt_ids": pa.list_(pa.int32()),
        "chosen_ids": pa.list_(pa.int32()),
        "rejected_ids": pa.list_(pa.int32()),
        "chosen_key": pa.string(),  # names the reference log-probability
        "rejected_key": pa.string(),
        "p_w": pa.float64(),  # win rates, for the squared loss
        "p_l": pa.float64(),
    }
)
ROWS_AT_ONCE = 16  # the tokenizer works on these in parallel; 16 documents of 100 KB stay small in memory
REASONS_KEPT = 20
LONGEST_TOKENIZING = 1800.0  # seconds for these rows
SANITIZE = "sanitize_control_tokens"  # a template's argument: control tokens in messages stay plain text
_MOVED = "a token reaches over the border of prompt and response"
SHORTEST_PROMPT = 16  # tokens; with less left beside the response there is nothing to answer from


@dataclass
class Tally:
    """Counts what becomes of the rows."""

    rows: int = 0
    cut: int = 0
    dropped: int = 0
    set_aside: int = 0
    reasons: list[str] = field(default_factory=list)
    lengths: list[tuple[int, int, int]] = field(default_factory=list)  # prompt, chosen, rejected
    remarks: dict[str, list[int]] = field(default_factory=dict)  # what befell rows that are kept, and their lines

    def set_aside_row(self, line: int, reason: str) -> None:
        self.set_aside += 1
        self._explain(line, reason)

    def drop_row(self, line: int, reason: str) -> None:
        self.dropped += 1
        self._explain(line, reason)

    def _explain(self, line: int, reason: str) -> None:
        if len(self.reasons) < REASONS_KEPT:
            self.reasons.append(f"line {line} {reason}")

    def remark(self, line: int, words: str) -> None:
        self.remarks.setdefault(words, []).append(line)

    def notes(self) -> Iterator[str]:
        for words, lines in self.remarks.items():
            where = f"line {lines[0]}" if len(lines) == 1 else f"{len(lines)} rows (line {lines[0]} first)"
            yield f"{where}: {words}"

    def preflight(self, **known: Any) -> Preflight:
        prompts, chosen, rejected = zip(*self.lengths, strict=True) if self.lengths else ((), (), ())
        return Preflight(
            rows=self.rows,
            kept=len(self.lengths),
            cut=self.cut,
            dropped=self.dropped,
            set_aside=self.set_aside,
            reasons=tuple(self.reasons),
            notes=tuple(self.notes()),
            prompt=_spread(prompts),
            chosen=_spread(chosen),
            rejected=_spread(rejected),
            total=_spread([p + max(c, r) for p, c, r in self.lengths]),
            **known,
        )


def _spread(lengths: Sequence[int]) -> Spread:
    return Spread(min=min(lengths), median=median_low(lengths), max=max(lengths)) if lengths else Spread()


@dataclass(frozen=True)
class Chat:
    """A tokenizer with its chat template, and what is asked of them once for all rows."""

    tokenizer: Any
    ends: Collection[int] = ()  # the model's end tokens

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
    def _names(self) -> frozenset[str] | None:
        template = getattr(self.tokenizer, "chat_template", None)
        texts = template.values() if isinstance(template, Mapping) else [template]
        words = (re.findall(r"[^\W\d]\w*", text) for text in texts if isinstance(text, str))
        return frozenset(word for found in words for word in found) or None

    def reads(self, name: str) -> bool:
        """Say whether the chat template knows an argument by that name: others are not passed on."""
        return self._names is None or name in self._names or name in {"tools", "documents"}

    @cached_property
    def control_tokens(self) -> list[str]:
        """All texts that the tokenizer knows as one piece."""
        return [token.content for token in getattr(self.tokenizer, "added_tokens_decoder", {}).values()]


def tokenize(
    rows: Iterable[PreferenceRow | BadRow],
    tokenizer: Any,
    job: TrainJob,
    *,
    model: str,
    target: Path,
    ends: Collection[int] = (),
    give_up: Callable[[str], None] = lambda _: None,
) -> Tally:
    """Write the rows that can be trained on to an Arrow file; `model` is the reference's fingerprint.

    `give_up` is called, in a thread of its own, with the reason where the tokenizer does not end.
    """
    tally, chat = Tally(), Chat(tokenizer, ends)
    temporary = target.with_suffix(".part")
    with pa.OSFile(str(temporary), "wb") as sink, pa.ipc.new_stream(sink, SCHEMA) as writer:
        rendered = _rendered(rows, chat, tally)
        while chunk := list(islice(rendered, ROWS_AT_ONCE)):
            with _watched(chunk, give_up):
                encoded = zip(chunk, encode(chunk, chat), strict=True)
            kept = [(row, ids) for row, ids in encoded if fits(row.row, ids, job, tally)]
            for row, _ in kept:
                _remark(row, chat, tally)
            records = [_record(row.row, ids, model) for row, ids in kept]
            writer.write_batch(pa.RecordBatch.from_pylist(records, schema=SCHEMA))
    temporary.replace(target)
    return tally


@contextmanager
def _watched(chunk: Sequence["Rendered"], give_up: Callable[[str], None]) -> Iterator[None]:
    """Give up where the tokenizer, which nothing can interrupt, does not end."""
    lines = f"lines {chunk[0].row.line} to {chunk[-1].row.line}"
    reason = f"the tokenizer did not end within {LONGEST_TOKENIZING:g} s on {lines}"
    timer = threading.Timer(LONGEST_TOKENIZING, give_up, [reason])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _record(row: PreferenceRow, ids: dict[str, list[int]], model: str) -> dict[str, Any]:
    keys = {
        f"{side}_key": response_key(model, ids["prompt_ids"], ids[f"{side}_ids"]) for side in ("chosen", "rejected")
    }
    return {**ids, **keys, "p_w": row.p_w, "p_l": row.p_l}


@dataclass(kw_only=True)
class Rendered:
    """A row as text: the prompt, then the prompt with each response; as ids where text would not do."""

    row: PreferenceRow
    texts: tuple[str, ...] = ()
    ids: tuple[list[int], ...] = ()
    letters: list[int] | None = None  # the prompt, where control tokens in it are letters and the row says nothing
    drawn: TokenIds | None = None  # the ids of the row itself: nothing is rendered
    change: str = ""  # what the template does to it that its policy never saw


def _rendered(rows: Iterable[PreferenceRow | BadRow], chat: Chat, tally: Tally) -> Iterator[Rendered]:
    for row in rows:
        tally.rows += 1
        if isinstance(row, BadRow):
            tally.set_aside_row(row.line, row.reason)
            continue
        try:
            with time_limit(LONGEST_RENDERING):
                rendered = _as_drawn(row, chat, tally) or render(row, chat)
        except Exception as error:  # a template is a program: it raises what it likes
            tally.set_aside_row(row.line, f"does not fit the chat template: {error}")
            continue
        if row.prompt is None and not rendered.drawn:
            tally.set_aside_row(row.line, "has token ids of another tokenizer and no texts")
            continue
        yield rendered


def _as_drawn(row: PreferenceRow, chat: Chat, tally: Tally) -> Rendered | None:
    """Take the row's own token ids where they are this tokenizer's; where they are not, its texts are rendered."""
    if not row.ids:
        return None
    largest = max(map(max, filter(None, (row.ids.prompt, row.ids.chosen, row.ids.rejected))), default=0)
    known = largest < len(chat.tokenizer)
    unnamed = row.prompt is None and not row.ids.tokenizer
    if known and (unnamed or row.ids.tokenizer == chat.fingerprint):
        return Rendered(row=row, drawn=row.ids)
    if row.prompt is None:
        return Rendered(row=row)
    tally.remark(row.line, "its token ids are another tokenizer's, so its texts are rendered")
    return None


def _remark(rendered: Rendered, chat: Chat, tally: Tally) -> None:
    if rendered.letters is not None:
        tally.remark(rendered.row.line, "control tokens in its prompt are read as letters")
    if rendered.change:
        tally.remark(rendered.row.line, f"the policy cannot have written it like this: {rendered.change}")
    if rendered.row.conversational and not rendered.drawn and not chat.turn_end.is_written:
        end = chat.tokenizer.convert_ids_to_tokens(chat.turn_end.token)
        tally.remark(rendered.row.line, f"the chat template ends no turn, so {end} is added")


def as_chat(tokenizer: Any) -> Chat:
    return tokenizer if isinstance(tokenizer, Chat) else Chat(tokenizer)


def render(row: PreferenceRow, tokenizer: Any) -> Rendered:
    """Render a row's texts; `tokenizer` may come as a Chat, which asks its template once for all rows."""
    chat = as_chat(tokenizer)
    tokenizer = chat.tokenizer
    if not row.conversational:
        end = tokenizer.eos_token or ""
        sides = [
            text if side in row.unended else text.removesuffix(end) + end
            for side, text in (("chosen", row.chosen), ("rejected", row.rejected))
        ]
        return Rendered(row=row, texts=(row.prompt, *(row.prompt + text for text in sides)))
    kwargs = {name: value for name, value in row.template.items() if name != SANITIZE and chat.reads(name)}
    template = partial(tokenizer.apply_chat_template, **kwargs)
    texts = _three(row, chat, partial(template, tokenize=False))
    change = change_by_template(row, texts[0], texts[1:], tokenizer)
    rule = row.template.get(SANITIZE)
    letters = partial(template, tokenize=True, return_dict=False, **{SANITIZE: True})
    if rule is None and _holds_control_tokens([one for one in row.prompt if one["role"] != "assistant"], chat):
        messages = [chat.rendering.message(message) for message in row.prompt]
        return Rendered(row=row, texts=texts, change=change, letters=letters(messages, add_generation_prompt=True))
    if not rule or not _holds_control_tokens([*row.prompt, *row.chosen, *row.rejected], chat):
        return Rendered(row=row, texts=texts, change=change)
    # The tokenizer must know what came from where: that is lost in the text.
    ids = _three(row, chat, letters)
    return Rendered(row=row, ids=ids, change=change)


def _three(row: PreferenceRow, chat: Chat, template: Any) -> tuple[Any, ...]:
    """Apply the template to prompt, prompt and chosen, prompt and rejected; contents in the form that it reads."""
    prompt, *sides = ([chat.rendering.message(m) for m in part] for part in (row.prompt, row.chosen, row.rejected))
    whole = [template(prompt + response) for response in sides]
    return (template(prompt, add_generation_prompt=True), *whole)


def _holds_control_tokens(messages: Sequence[Mapping[str, Any]], chat: Chat) -> bool:
    """Whether any message holds a token that the tokenizer knows as one piece; elsewhere text will do."""
    texts = [message["content"] or "" for message in messages]
    return any(token in text for token in chat.control_tokens for text in texts)


def encode(rendered: Sequence[Rendered], tokenizer: Any) -> list[dict[str, list[int]]]:
    """Token ids of each row: prompt_ids, chosen_ids, rejected_ids."""
    chat = as_chat(tokenizer)
    encoded = {place: _parted(*row.ids) for place, row in enumerate(rendered) if row.ids}
    for plain in (False, True):  # a chat template brings its special tokens itself
        places = [place for place, row in enumerate(rendered) if row.texts and row.row.conversational != plain]
        texts = [text for place in places for text in rendered[place].texts]
        ids = chat.tokenizer(texts, add_special_tokens=plain)["input_ids"] if texts else []
        ids = [_without_doubles(each, chat.tokenizer) for each in ids] if plain else ids
        for n, place in enumerate(places):
            rendered[place].ids = tuple(ids[3 * n : 3 * n + 3])
            encoded[place] = _parted(*rendered[place].ids)
    for place, row in enumerate(rendered):
        end = len(encoded[place]["prompt_ids"]) if row.ids else 0
        left_out = row.ids[0][end:] if row.ids else []
        if left_out and left_out != [getattr(chat.tokenizer, "eos_token_id", None)]:  # an end that the tokenizer added
            row.change = row.change or _MOVED
        if row.letters is not None:  # a template may end a prompt as no conversation goes on: that is not its text
            encoded[place]["prompt_ids"] = row.letters[: len(row.letters) - len(row.ids[0]) + end]
        if row.drawn:
            encoded[place] = {
                "prompt_ids": row.drawn.prompt, "chosen_ids": row.drawn.chosen, "rejected_ids": row.drawn.rejected
            }  # fmt: skip
        elif row.row.conversational:
            _end_turns(encoded[place], row.row, chat.turn_end)
        elif row.row.unended:
            _end_turns(encoded[place], row.row, TurnEnd(token=chat.tokenizer.eos_token_id))
    return [encoded[place] for place in range(len(rendered))]


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
    for side in ("chosen", "rejected"):
        response = ids[f"{side}_ids"]
        if side in row.unended and end.is_written and end.token in response:
            last = len(response) - 1 - response[::-1].index(end.token)
            ids[f"{side}_ids"] = response[:last]
        elif side not in row.unended and not end.is_written and end.token is not None and response[-1:] != [end.token]:
            ids[f"{side}_ids"] = [*response, end.token]


def _parted(prompt: list[int], with_chosen: list[int], with_rejected: list[int]) -> dict[str, list[int]]:
    """Cut where the three part: a template may end a prompt in a way that no conversation goes on."""
    part = min(_same(prompt, with_chosen), _same(prompt, with_rejected))
    return {"prompt_ids": prompt[:part], "chosen_ids": with_chosen[part:], "rejected_ids": with_rejected[part:]}


def _same(left: list[int], right: list[int]) -> int:
    if right[: len(left)] == left:
        return len(left)
    return next((i for i, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), min(len(left), len(right)))


def fits(row: PreferenceRow, ids: dict[str, list[int]], job: TrainJob, tally: Tally) -> bool:
    """Whether the row can be trained on; its prompt is shortened in place if it must be, and it is counted."""
    if reason := _unusable(row, ids, job):
        tally.set_aside_row(row.line, reason)
        return False
    room = (job.max_length or _length(ids)) - max(len(ids["chosen_ids"]), len(ids["rejected_ids"]))
    too_long = len(ids["prompt_ids"]) > room
    if too_long and (job.overlong == "drop" or room < SHORTEST_PROMPT):
        tally.drop_row(row.line, f"has {_length(ids)} tokens, more than max_length {job.max_length}")
        return False
    if too_long:
        ids["prompt_ids"] = cut_middle(ids["prompt_ids"], room)
    tally.cut += too_long or row.cut
    tally.lengths.append((len(ids["prompt_ids"]), len(ids["chosen_ids"]), len(ids["rejected_ids"])))
    return True


def _unusable(row: PreferenceRow, ids: dict[str, list[int]], job: TrainJob) -> str | None:
    if SPPO in job.loss_type and (row.p_w is None or row.p_l is None):
        return f"has no 'p_w' and 'p_l', which the loss {SPPO!r} needs"
    empty = [name.removesuffix("_ids") for name, part in ids.items() if not part]
    if empty:
        return f"has no tokens in {empty[0]!r}"
    return "has the same tokens as 'chosen' and 'rejected'" if ids["chosen_ids"] == ids["rejected_ids"] else None


def _length(ids: dict[str, list[int]]) -> int:
    return len(ids["prompt_ids"]) + max(len(ids["chosen_ids"]), len(ids["rejected_ids"]))


def cut_middle(ids: list[int], room: int) -> list[int]:
    """Keep the beginning and the end, where instructions and questions stand."""
    head = room // 2
    return ids[:head] + ids[len(ids) - (room - head) :]


def check_dropped(preflight: Preflight, job: TrainJob) -> None:
    """Raises UsageError with the remedy if too many rows are too long."""
    if preflight.dropped > job.max_dropped * preflight.rows:
        remedy = "set overlong=cut, or raise max_length" if job.overlong == "drop" else "raise max_length"
        raise UsageError(
            f"{preflight.dropped} of {preflight.rows} rows are longer than max_length {job.max_length} and would be "
            f"dropped, more than {job.max_dropped:.0%}: {remedy}, or allow it with max_dropped"
        )
