"""Items, their contexts, responses and results."""

import hashlib
from collections import defaultdict
from collections.abc import Mapping, MutableMapping, Sequence
from functools import cache
from typing import Any, NamedTuple

import orjson
import sqlalchemy as sa
import zstandard

from lrq.domain.exports import score_row
from lrq.domain.records import Chunk, Item, NoRow, Prompt, Ref, Response, Reward, Row, Score, Turn
from lrq.ledger.batches import Query, packed, table
from lrq.ledger.schema import (
    contexts,
    items,
    prompts,
    responses,
    rewards,
    rows,
    runs,
    scores,
    set_aside,
)
from lrq.ledger.token_ids import unpack_ids
from lrq.ledger.transaction import Transaction, insert_into

CUT = "length"  # how a response ends that max_new_tokens cut off
_ZSTD_LEVEL = 6  # for text: within 3 % of level 12 at a third of its time


class NewLine(NamedTuple):
    """A usable line of a dataset: its number, item and given responses as (k, text); None: that one is empty."""

    number: int
    item: Item
    given: Sequence[tuple[int, str | None]] = ()


def add_items(
    tx: Transaction,
    run: int,
    batch: Sequence[tuple[int, Item, Sequence[tuple[int, str | None]]]],  # as NewLine
    *,
    source: str = "",
    rounds: int = 1,
) -> tuple[int, int]:
    """Add the items that are new to the run; returns how many were added, how many it had.

    A line whose id stands in the run already, from another line or with other words, is rejected. New items join the
    round where the run is, or are dealt out over it and the later of so many `rounds`; given responses are round 0's.
    """
    lines = [NewLine(*line) for line in batch]
    stands = _standing(tx, run, [line.item.id for line in lines])
    new: list[tuple[NewLine, dict[str, Any]]] = []
    repeated = 0
    for line in lines:
        row = _row(run, line)
        if line.item.id not in stands:
            stands[line.item.id] = row
            new.append((line, row))
        elif reason := _why_aside(row, stands[line.item.id]):
            add_set_aside(tx, run, source, line.number, reason)
        else:
            repeated += 1
    _deal_out(tx, run, [row for _, row in new], rounds)
    added, open_ = _add(tx, new)
    repaired = set_aside.c.line.in_([line.number for line, _ in new])  # torn when the file was shorter
    tx.execute(set_aside.delete().where(set_aside.c.run_id == run, set_aside.c.source == source[:200], repaired))
    tx.execute(runs.update().where(runs.c.id == run).values(open_items=runs.c.open_items + open_))
    if open_:
        tx.execute(runs.update().where(runs.c.id == run, runs.c.state == "done").values(state="active", reason=""))
    return added, repeated + len(new) - added


def _standing(tx: Transaction, run: int, keys: Sequence[str]) -> dict[str, Mapping[str, Any]]:
    query = sa.select(items.c.key, items.c.line, items.c.context_hash, items.c.body)
    rows_ = tx.execute(query.where(items.c.run_id == run, items.c.key.in_(keys)))
    names = ("line", "context_hash", "body")
    return {row.key: {name: getattr(row, name) for name in names} for row in rows_}


def _row(run: int, line: NewLine) -> dict[str, Any]:
    item = line.item
    body = {"question": item.question, "answer": item.answer, "fields": dict(item.fields)}
    return {
        "run_id": run,
        "key": item.id,
        "line": line.number,
        "context_hash": hashlib.sha256(item.context.encode()).hexdigest() if item.context else "",
        "body": orjson.dumps(body).decode(),
        "state": "unjudged" if line.given else "unsampled",
        "given": sum(text is not None for _, text in line.given),
    }


def _deal_out(tx: Transaction, run: int, new: Sequence[dict[str, Any]], rounds: int) -> None:
    """Name the round of each new item, in turn; later rounds sample what they judge."""
    current = tx.execute(sa.select(runs.c.round).where(runs.c.id == run)).scalar_one()
    left = max(1, rounds - current)
    before = sa.select(items.c.round).where(items.c.run_id == run).order_by(items.c.id.desc()).limit(1)
    last = tx.execute(before).scalar() if left > 1 else None
    first = 0 if last is None else last + 1 - current
    for index, row in enumerate(new):
        row["round"] = current + (first + index) % left
        if row["round"] > 0:
            row |= {"state": "waiting" if row["round"] > current else "unsampled", "given": 0}


def _why_aside(row: Mapping[str, Any], stands: Mapping[str, Any]) -> str:
    """Say why a line with an id that stands already cannot be used; empty where it is the very same."""
    if row["line"] != stands["line"]:
        return f"its id {row['key']!r} stands in line {stands['line']} already"
    is_same = row["context_hash"] == stands["context_hash"] and orjson.loads(row["body"]) == orjson.loads(
        stands["body"]
    )
    return "" if is_same else f"its id {row['key']!r} was enqueued with other words, which stand; give it another id"


def _add(tx: Transaction, new: Sequence[tuple[NewLine, Mapping[str, Any]]]) -> tuple[int, int]:
    """Insert contexts, items and given responses; how many nobody else has added meanwhile, and are open now."""
    if not new:
        return 0, 0
    _keep_contexts(tx, {row["context_hash"]: line.item.context for line, row in new if line.item.context})
    insert = tx.insert(items).on_conflict_do_nothing().returning(items.c.id, items.c.key)
    ids = {row.key: row.id for row in tx.execute(insert, [row for _, row in new])}
    brought = [
        {"item_id": ids[line.item.id], "k": k, "text": text, "reason": "empty" if text is None else ""}
        for line, row in new
        if line.item.id in ids and row["round"] == 0
        for k, text in line.given
    ]
    if brought:
        tx.execute(responses.insert(), brought)
    return len(ids), sum(row["key"] in ids and row["state"] != "waiting" for _, row in new)


def _keep_contexts(tx: Transaction, texts: Mapping[str, str]) -> None:
    """Store the texts that are not there yet, under the hashes of their bytes."""
    stored = set(tx.execute(sa.select(contexts.c.hash).where(contexts.c.hash.in_(texts))).scalars())
    compressor = zstandard.ZstdCompressor(level=_ZSTD_LEVEL)
    fresh = [
        {"hash": digest, "chars": len(text), "body": compressor.compress(text.encode())}
        for digest, text in sorted(texts.items())  # in one order: whoever else adds some of them waits, and no more
        if digest not in stored
    ]
    if fresh:
        tx.execute(tx.insert(contexts).on_conflict_do_nothing(), fresh)


def add_set_aside(tx: Transaction, run: int, source: str, line: int, reason: str) -> None:
    insert = tx.insert(set_aside).values(run_id=run, source=source[:200], line=line, reason=reason[:1000])
    tx.execute(insert.on_conflict_do_nothing())


# Built once: every task reads them, and building one costs more than its execution.
_ITEM = sa.select(items).where(items.c.id == sa.bindparam("id"))
_KEY = sa.select(items.c.key).where(items.c.id == sa.bindparam("id"))
_CONTEXT = sa.select(contexts.c.body).where(contexts.c.hash == sa.bindparam("hash"))
_RESPONSES = Query(
    sa.select(responses.c.prompt, responses.c.k, responses.c.round, responses.c.text, responses.c.finish)
    .where(responses.c.item_id == sa.bindparam("item"), responses.c.round == sa.bindparam("round"))
    .where(responses.c.text.is_not(None))
)
_SCORES = (
    sa.select(scores)
    .where(scores.c.item_id == sa.bindparam("item"), scores.c.round == sa.bindparam("round"))
    .order_by(scores.c.prompt, scores.c.k, scores.c.dimension)
)


def load_item(
    tx: Transaction, id_: int, documents: MutableMapping[str, Item] | None = None
) -> tuple[sa.Row[Any], Item]:
    """Return the item's row and the item, which shares its context with those of `documents`, named by its hash."""
    row = tx.execute(_ITEM, {"id": id_}).one()
    body = orjson.loads(row.body)
    document = None if documents is None else documents.get(row.context_hash)
    text = load_context(tx, row.context_hash) if document is None else document.context
    item = Item(id=row.key, context=text, question=body["question"], answer=body["answer"], fields=body["fields"])
    if documents is not None and document is None:
        documents[row.context_hash] = item
    return row, item


def key_of(tx: Transaction, id_: int) -> str:
    """Return the user's id of an item; empty for the work of a whole run."""
    return tx.execute(_KEY, {"id": id_}).scalar() or "" if id_ else ""


def round_of(tx: Transaction, id_: int) -> int:
    """Return the latest round of an item."""
    return int(tx.execute(sa.select(items.c.round).where(items.c.id == id_)).scalar_one())


def load_context(tx: Transaction, digest: str) -> str:
    if not digest:
        return ""
    body = tx.execute(_CONTEXT, {"hash": digest}).scalar_one()
    return zstandard.ZstdDecompressor().decompress(body).decode()


def load_responses(tx: Transaction, item: int, round_: int) -> list[Response]:
    """Return the responses that have a text, by prompt and k."""
    rows_ = sorted(_RESPONSES.rows(tx, {"item": item, "round": round_}))
    return [
        Response(text=row.text, k=row.k, prompt=row.prompt, round=row.round, is_cut=row.finish == CUT) for row in rows_
    ]


def response_rows(tx: Transaction, item: int, round_: int) -> list[sa.Row[Any]]:
    query = sa.select(responses).where(responses.c.item_id == item, responses.c.round == round_)
    return list(tx.execute(query.order_by(responses.c.prompt, responses.c.k)))


def _storable(text: str | None) -> str | None:
    """PostgreSQL keeps no NUL in a text, and models write whatever they like."""
    return text and text.replace("\0", "\ufffd")


def add_responses(tx: Transaction, item: int, round_: int, prompt: int, sampled: Sequence[Mapping[str, Any]]) -> None:
    """Keep what was sampled: k, text, reason, tokens, finish, and ids, written, form where they are known.

    What is committed first stands.
    """
    if sampled:
        common = {"item_id": item, "round": round_, "prompt": prompt, "ids": None, "written": None, "form": ""}
        texts = ("text", "reason", "written")
        values = [{**common, **each, **{name: _storable(each.get(name)) for name in texts}} for each in sampled]
        tx.execute(tx.insert(responses).on_conflict_do_nothing(), values)


class DrawnResponse(NamedTuple):
    """A response as it was drawn."""

    text: str
    ids: Sequence[int]  # empty: not known
    written: str  # thoughts and control tokens included
    form: str  # the message that renders to these ids; empty: none does, or none is known to
    is_cut: bool


def load_drawn(tx: Transaction, item: int, round_: int, prompt: int, k: int) -> DrawnResponse:
    """Load one response with its tokens."""
    query = sa.select(responses).where(responses.c.item_id == item, responses.c.round == round_)
    row = tx.execute(query.where(responses.c.prompt == prompt, responses.c.k == k)).one()
    ids, written = unpack_ids(row.ids), row.text if row.written is None else row.written
    return DrawnResponse(text=row.text, ids=ids, written=written, form=row.form, is_cut=row.finish == CUT)


def add_prompt(tx: Transaction, item: int, round_: int, prompt: int, body: object, **counted: float) -> None:
    """Keep what sampling a prompt brought; `counted`: prompt_tokens, completion_tokens, seconds."""
    values = {"item_id": item, "round": round_, "prompt": prompt, "body": orjson.dumps(body).decode(), **counted}
    tx.execute(tx.insert(prompts).values(**values).on_conflict_do_nothing())


def load_prompt(tx: Transaction, item: int, round_: int, prompt: int) -> Any:
    """Return what was stored of a prompt when it was sampled; None for given responses."""
    identity = prompts.c.item_id == item, prompts.c.round == round_, prompts.c.prompt == prompt
    body = tx.execute(sa.select(prompts.c.body).where(*identity)).scalar()
    return None if body is None else orjson.loads(body)


_PROMPTS = (
    sa.select(prompts.c.body)
    .where(prompts.c.item_id == sa.bindparam("item"), prompts.c.round == sa.bindparam("round"))
    .order_by(prompts.c.prompt)
)


def load_prompts(tx: Transaction, item: int, round_: int) -> list[Prompt]:
    """Return the prompts of a round as they were made; those of a run older than their record are left out."""
    bodies = tx.execute(_PROMPTS, {"item": item, "round": round_}).scalars()
    return [unpack_prompt(body["prompt"]) for body in map(orjson.loads, bodies) if "prompt" in body]


def pack_prompt(prompt: Prompt) -> dict[str, Any]:
    """Return a prompt as JSON; its context stands in the messages as a mark."""
    return {
        "messages": [dict(message) for message in prompt.messages],
        "name": prompt.name,
        "span": prompt.span and [prompt.span.start, prompt.span.end],
        "by": prompt.by,
        "samples": prompt.samples,
        "sampling": dict(prompt.sampling),
        "followup": prompt.followup,
    }


def unpack_prompt(body: Mapping[str, Any]) -> Prompt:
    """Return the prompt of `pack_prompt`."""
    span = body["span"] and Chunk(start=body["span"][0], end=body["span"][1])
    return Prompt(**{**body, "messages": tuple(body["messages"]), "span": span})


def prompt_tokens(tx: Transaction, item: int, round_: int, prompt: int) -> int:
    """Load the tokens of a prompt as its policy counted them; 0: not known."""
    identity = prompts.c.item_id == item, prompts.c.round == round_, prompts.c.prompt == prompt
    return int(tx.execute(sa.select(prompts.c.prompt_tokens).where(*identity)).scalar() or 0)


_OF_SCORE = {
    name: scores.c[name].type
    for name in ("item_id", "round", "prompt", "k", "dimension", "state", "value", "reason", "evidence")
}


def add_scores(tx: Transaction, found: Sequence[tuple[int, int, Score]]) -> None:
    """Keep scores of (item, round); one that was unscored before may be replaced, nothing else."""
    values = [(item, round_, *_of_score(score)) for item, round_, score in found]
    if values:
        tx.execute(_keep_scores(tx.is_sqlite), {"found": packed(values)})


def _of_score(score: Score) -> tuple[Any, ...]:
    judged = score.state, score.value, _storable(score.reason[:1000]), orjson.dumps(score.evidence).decode()
    return score.prompt, score.k, score.dimension, *judged


@cache
def _keep_scores(is_sqlite: bool) -> Any:
    new = table("found", _OF_SCORE, is_sqlite=is_sqlite)
    query = sa.select(*new.c).where(sa.true())  # SQLite takes ON for a join's without it
    insert = insert_into(scores, is_sqlite).from_select([*_OF_SCORE], query)
    return insert.on_conflict_do_update(
        index_elements=["item_id", "round", "prompt", "k", "dimension"],
        set_={name: insert.excluded[name] for name in ("state", "value", "reason", "evidence")},
        where=scores.c.state == "unscored",
    )


def load_scores(tx: Transaction, item: int, round_: int) -> list[Score]:
    return [_score(row) for row in tx.execute(_SCORES, {"item": item, "round": round_})]


def _score(row: sa.Row[Any]) -> Score:
    return Score(
        dimension=row.dimension,
        k=row.k,
        prompt=row.prompt,
        state=row.state,
        value=row.value,
        reason=row.reason,
        evidence=orjson.loads(row.evidence or "{}"),
    )


def set_rewards(tx: Transaction, item: int, round_: int, found: Sequence[Reward]) -> None:
    tx.execute(rewards.delete().where(rewards.c.item_id == item, rewards.c.round == round_))
    if found:
        values = [{"prompt": r.prompt, "k": r.k, "value": r.value, "reason": r.reason} for r in found]
        tx.execute(rewards.insert(), [{"item_id": item, "round": round_, **value} for value in values])


def load_rewards(tx: Transaction, item: int, round_: int) -> list[Reward]:
    query = sa.select(rewards).where(rewards.c.item_id == item, rewards.c.round == round_)
    ordered = tx.execute(query.order_by(rewards.c.prompt, rewards.c.k))
    return [Reward(k=row.k, value=row.value, prompt=row.prompt, reason=row.reason) for row in ordered]


def set_rows(tx: Transaction, run: int, item: int, round_: int, found: Sequence[Row | NoRow]) -> None:
    """Replace the item's rows. What is made again keeps its training: it is for no further one."""
    old = rows.c.item_id == item, rows.c.round == round_
    window = tx.execute(sa.select(sa.func.max(rows.c.window)).where(*old)).scalar_one()
    tx.execute(rows.delete().where(*old))
    for index, row in enumerate(row for row in found if isinstance(row, Row)):
        values = {"place": index, "margin": row.margin, "body": orjson.dumps(_pack_row(row)).decode()}
        tx.execute(rows.insert().values(run_id=run, item_id=item, round=round_, window=window, **values))


def _pack_row(row: Row) -> dict[str, Any]:
    turns = [[turn.prompt, turn.chosen, turn.rejected, turn.reference] for turn in row.turns]
    return {"turns": turns, "figures": dict(row.figures)}


def read_row(stored: sa.Row[Any]) -> Row:
    """Return the training row that a row of the table holds."""
    body = orjson.loads(stored.body)
    turns = tuple(
        Turn(prompt=prompt, chosen=_choice(chosen), rejected=rejected and _choice(rejected), reference=reference)
        for prompt, chosen, rejected, reference in body["turns"]
    )
    return Row(turns=turns, margin=stored.margin, figures=body["figures"])


def _choice(value: Any) -> Ref | str:
    return value if isinstance(value, str) else (value[0], value[1])


def load_rows(tx: Transaction, item: int, round_: int) -> list[sa.Row[Any]]:
    return list(tx.execute(sa.select(rows).where(rows.c.item_id == item, rows.c.round == round_)))


def load_run_rows(
    tx: Transaction, run: int, *, round_: int | None = None, window: int | None = None
) -> Sequence[sa.Row[Any]]:
    """Return the training rows of a run, or of a round or a window of it, in the order of rounds and items."""
    query = sa.select(rows).where(rows.c.run_id == run).order_by(rows.c.round, rows.c.item_id, rows.c.place)
    query = query if round_ is None else query.where(rows.c.round == round_)
    return tx.execute(query if window is None else query.where(rows.c.window == window)).all()


def count_rows(tx: Transaction, run: int) -> int:
    """Count the training rows of all rounds of a run."""
    return int(tx.execute(sa.select(sa.func.count()).where(rows.c.run_id == run)).scalar_one())


def item_ids(tx: Transaction, run: int, *, after: int = 0, limit: int = 500) -> list[int]:
    """Return the numbers of a run's items in their order, a page at a time: at most `limit` of those `after` one."""
    query = sa.select(items.c.id).where(items.c.run_id == run, items.c.id > after)
    return list(tx.execute(query.order_by(items.c.id).limit(limit)).scalars())


def ids_of(tx: Transaction, run: int, keys: Sequence[str]) -> list[int]:
    """Return the numbers of the run's items that have these ids."""
    return list(tx.execute(sa.select(items.c.id).where(items.c.run_id == run, items.c.key.in_(keys))).scalars())


def find_items(tx: Transaction, key: str, run: int | None = None) -> list[sa.Row[Any]]:
    query = sa.select(items, runs.c.name.label("run")).join(runs, runs.c.id == items.c.run_id)
    query = query.where(items.c.key == key)
    return list(tx.execute(query if run is None else query.where(items.c.run_id == run)))


def score_lines(tx: Transaction, id_: int, round_: int | None = None) -> list[dict[str, Any]]:
    """Return the scores of an item's responses in the form of the `scores` export; of all its rounds, or of one."""
    row = tx.execute(sa.select(items.c.key, items.c.round).where(items.c.id == id_)).one()
    rounds = range(row.round + 1) if round_ is None else (round_,)
    return [line for number in rounds for line in _score_lines(tx, id_, row.key, number)]


def _score_lines(tx: Transaction, id_: int, key: str, round_: int) -> list[dict[str, Any]]:
    by_response: dict[tuple[int, int], list[Score]] = defaultdict(list)
    for score in load_scores(tx, id_, round_):
        by_response[score.prompt, score.k].append(score)
    reward_of = {(each.prompt, each.k): each for each in load_rewards(tx, id_, round_)}
    answers = load_responses(tx, id_, round_)
    names = [(each.prompt, each.k) for each in answers]
    return [
        score_row(key, each, by_response[name], reward_of.get(name)) for each, name in zip(answers, names, strict=True)
    ]
