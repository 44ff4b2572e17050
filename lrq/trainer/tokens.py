"""Preflight: every row becomes token ids once, and the user learns what was kept, cut and dropped before it costs.

Token ids are what TRL's DPOTrainer would make of the row, response starting where prompt and prompt + response part;
they go to an Arrow file that all processes map into memory.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from statistics import median_low
from typing import Any

import pyarrow as pa

from lrq.domain.errors import UsageError
from lrq.trainer.job import SPPO, Preflight, Spread, TrainJob
from lrq.trainer.reference import response_key
from lrq.trainer.rows import BadRow, PreferenceRow

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
SANITIZE = "sanitize_control_tokens"  # a template's argument: control tokens in messages stay plain text
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

    def set_aside_row(self, line: int, reason: str) -> None:
        self.set_aside += 1
        self._explain(line, reason)

    def drop_row(self, line: int, reason: str) -> None:
        self.dropped += 1
        self._explain(line, reason)

    def _explain(self, line: int, reason: str) -> None:
        if len(self.reasons) < REASONS_KEPT:
            self.reasons.append(f"line {line} {reason}")

    def preflight(self, **known: str) -> Preflight:
        prompts, chosen, rejected = zip(*self.lengths, strict=True) if self.lengths else ((), (), ())
        return Preflight(
            rows=self.rows,
            kept=len(self.lengths),
            cut=self.cut,
            dropped=self.dropped,
            set_aside=self.set_aside,
            reasons=tuple(self.reasons),
            prompt=_spread(prompts),
            chosen=_spread(chosen),
            rejected=_spread(rejected),
            total=_spread([p + max(c, r) for p, c, r in self.lengths]),
            **known,
        )


def _spread(lengths: Sequence[int]) -> Spread:
    return Spread(min=min(lengths), median=median_low(lengths), max=max(lengths)) if lengths else Spread()


def tokenize(
    rows: Iterable[PreferenceRow | BadRow], tokenizer: Any, job: TrainJob, *, model: str, target: Path
) -> Tally:
    """Write the rows that can be trained on to an Arrow file; `model` is the reference's fingerprint."""
    tally = Tally()
    temporary = target.with_suffix(".part")
    with pa.OSFile(str(temporary), "wb") as sink, pa.ipc.new_stream(sink, SCHEMA) as writer:
        rendered = _rendered(rows, tokenizer, tally)
        while chunk := list(islice(rendered, ROWS_AT_ONCE)):
            encoded = zip(chunk, encode(chunk, tokenizer), strict=True)
            records = [_record(row.row, ids, model) for row, ids in encoded if fits(row.row, ids, job, tally)]
            writer.write_batch(pa.RecordBatch.from_pylist(records, schema=SCHEMA))
    temporary.replace(target)
    return tally


def _record(row: PreferenceRow, ids: dict[str, list[int]], model: str) -> dict[str, Any]:
    keys = {
        f"{side}_key": response_key(model, ids["prompt_ids"], ids[f"{side}_ids"]) for side in ("chosen", "rejected")
    }
    return {**ids, **keys, "p_w": row.p_w, "p_l": row.p_l}


@dataclass(frozen=True, kw_only=True)
class Rendered:
    """A row as text: the prompt, then the prompt with each response; as ids where text would not do."""

    row: PreferenceRow
    texts: tuple[str, ...] = ()
    ids: tuple[list[int], ...] = ()


def _rendered(rows: Iterable[PreferenceRow | BadRow], tokenizer: Any, tally: Tally) -> Iterator[Rendered]:
    for row in rows:
        tally.rows += 1
        if isinstance(row, BadRow):
            tally.set_aside_row(row.line, row.reason)
            continue
        try:
            yield render(row, tokenizer)
        except Exception as error:  # a template is a program: it raises what it likes
            tally.set_aside_row(row.line, f"does not fit the chat template: {error}")


def render(row: PreferenceRow, tokenizer: Any) -> Rendered:
    if not row.conversational:
        end = tokenizer.eos_token or ""
        texts = [row.prompt, *(row.prompt + text.removesuffix(end) + end for text in (row.chosen, row.rejected))]
        return Rendered(row=row, texts=tuple(texts))
    sanitize = bool(row.template.get(SANITIZE)) and _holds_control_tokens(row, tokenizer)
    kwargs = {name: value for name, value in row.template.items() if name != SANITIZE}
    if sanitize:  # the tokenizer must know what came from where: that is lost in the text
        kwargs |= {SANITIZE: True, "return_dict": False}
    template = partial(tokenizer.apply_chat_template, tokenize=sanitize, **kwargs)
    whole = [template(row.prompt + response) for response in (row.chosen, row.rejected)]
    parts = (template(row.prompt, add_generation_prompt=True), *whole)
    return Rendered(row=row, ids=parts) if sanitize else Rendered(row=row, texts=parts)


def _holds_control_tokens(row: PreferenceRow, tokenizer: Any) -> bool:
    """Whether any message holds a token that the tokenizer knows as one piece; elsewhere text will do."""
    added = [token.content for token in tokenizer.added_tokens_decoder.values()]
    texts = [message["content"] for message in (*row.prompt, *row.chosen, *row.rejected)]
    return any(token in text for token in added for text in texts)


def encode(rendered: Sequence[Rendered], tokenizer: Any) -> list[dict[str, list[int]]]:
    """Token ids of each row: prompt_ids, chosen_ids, rejected_ids."""
    encoded = {place: _parted(*row.ids) for place, row in enumerate(rendered) if row.ids}
    for plain in (False, True):  # a chat template brings its special tokens itself
        places = [place for place, row in enumerate(rendered) if row.texts and row.row.conversational != plain]
        texts = [text for place in places for text in rendered[place].texts]
        ids = tokenizer(texts, add_special_tokens=plain)["input_ids"] if texts else []
        encoded |= {place: _parted(*ids[3 * n : 3 * n + 3]) for n, place in enumerate(places)}
    return [encoded[place] for place in range(len(rendered))]


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
