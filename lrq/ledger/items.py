"""Items, their contexts, responses and results."""

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import orjson
import sqlalchemy as sa
import zstandard

from lrq.domain.exports import score_row
from lrq.domain.records import Item, NoRow, Pair, Response, Reward, Score
from lrq.ledger.engine import Ledger, insert_into
from lrq.ledger.schema import contexts, items, prompts, responses, rewards, rows, runs, scores, set_aside

_ZSTD_LEVEL = 6  # for text: within 3 % of level 12 at a third of its time


def add_items(
    ledger: Ledger,
    conn: sa.Connection,
    run: int,
    batch: Sequence[tuple[int, Item, Sequence[tuple[int, str]]]],  # line number, item, given (k, text)
    *,
    source: str = "",
) -> tuple[int, int]:
    """Add the items that are new to the run; returns how many were added, how many it had.

    A line whose id stands in the run already from another line of the same source is set aside.
    """
    keys = [item.id for _, item, _ in batch]
    query = sa.select(items.c.key, items.c.line).where(items.c.run_id == run, items.c.key.in_(keys))
    had = {row.key: row.line for row in conn.execute(query)}
    added, known = 0, 0
    for line, item, given in batch:
        if item.id not in had:
            had[item.id] = line
            _add(ledger, conn, run, line, item, given)
            added += 1
        elif had[item.id] == line:
            known += 1
        else:
            add_set_aside(ledger, conn, run, source, line, f"its id {item.id!r} stands in line {had[item.id]} already")
    open_items = runs.c.open_items + added
    conn.execute(runs.update().where(runs.c.id == run).values(open_items=open_items))
    if added:
        conn.execute(runs.update().where(runs.c.id == run, runs.c.state == "done").values(state="active", reason=""))
    return added, known


def _add(
    ledger: Ledger, conn: sa.Connection, run: int, line: int, item: Item, given: Sequence[tuple[int, str]]
) -> None:
    body = {"question": item.question, "answer": item.answer, "fields": dict(item.fields)}
    insert = items.insert().values(
        run_id=run,
        key=item.id,
        line=line,
        context_hash=_keep_context(ledger, conn, item.context),
        body=orjson.dumps(body).decode(),
        state="unjudged" if given else "unsampled",
        given=len(given),
    )
    id_ = conn.execute(insert).inserted_primary_key[0]  # type: ignore[index]
    if given:
        conn.execute(responses.insert(), [{"item_id": id_, "k": k, "text": text} for k, text in given])


def _keep_context(ledger: Ledger, conn: sa.Connection, text: str) -> str:
    if not text:
        return ""
    raw = text.encode()
    digest = hashlib.sha256(raw).hexdigest()
    if conn.execute(sa.select(contexts.c.hash).where(contexts.c.hash == digest)).scalar() is None:
        body = zstandard.ZstdCompressor(level=_ZSTD_LEVEL).compress(raw)
        insert = ledger.insert(contexts).values(hash=digest, chars=len(text), body=body)
        conn.execute(insert.on_conflict_do_nothing())
    return digest


def add_set_aside(ledger: Ledger, conn: sa.Connection, run: int, source: str, line: int, reason: str) -> None:
    insert = ledger.insert(set_aside).values(run_id=run, source=source[:200], line=line, reason=reason[:1000])
    conn.execute(insert.on_conflict_do_nothing())


def load_item(conn: sa.Connection, id_: int) -> tuple[sa.Row[Any], Item]:
    """The item's row and the item with its context."""
    row = conn.execute(sa.select(items).where(items.c.id == id_)).one()
    body = orjson.loads(row.body)
    text = load_context(conn, row.context_hash)
    return row, Item(id=row.key, context=text, question=body["question"], answer=body["answer"], fields=body["fields"])


def load_context(conn: sa.Connection, digest: str) -> str:
    if not digest:
        return ""
    body = conn.execute(sa.select(contexts.c.body).where(contexts.c.hash == digest)).scalar_one()
    return zstandard.ZstdDecompressor().decompress(body).decode()


def load_responses(conn: sa.Connection, item: int, round_: int) -> list[Response]:
    """The responses that have a text, by prompt and k."""
    query = sa.select(responses).where(
        responses.c.item_id == item, responses.c.round == round_, responses.c.text.is_not(None)
    )
    rows_ = conn.execute(query.order_by(responses.c.prompt, responses.c.k))
    return [Response(text=row.text, k=row.k, prompt=row.prompt, round=row.round) for row in rows_]


def response_rows(conn: sa.Connection, item: int, round_: int) -> list[sa.Row[Any]]:
    query = sa.select(responses).where(responses.c.item_id == item, responses.c.round == round_)
    return list(conn.execute(query.order_by(responses.c.prompt, responses.c.k)))


def add_responses(
    ledger: Ledger, conn: sa.Connection, item: int, round_: int, prompt: int, sampled: Sequence[Mapping[str, Any]]
) -> None:
    """What is committed first stands."""
    if sampled:
        found = [{"item_id": item, "round": round_, "prompt": prompt, **one} for one in sampled]
        conn.execute(ledger.insert(responses).on_conflict_do_nothing(), found)


def add_prompt(
    ledger: Ledger, conn: sa.Connection, item: int, round_: int, prompt: int, body: object, **counted: float
) -> None:
    """Keep what sampling a prompt brought; `counted`: prompt_tokens, completion_tokens, seconds."""
    values = {"item_id": item, "round": round_, "prompt": prompt, "body": orjson.dumps(body).decode(), **counted}
    conn.execute(ledger.insert(prompts).values(**values).on_conflict_do_nothing())


def load_prompt(conn: sa.Connection, item: int, round_: int, prompt: int) -> Any:
    """What was stored of a prompt when it was sampled; None for given responses."""
    known = prompts.c.item_id == item, prompts.c.round == round_, prompts.c.prompt == prompt
    body = conn.execute(sa.select(prompts.c.body).where(*known)).scalar()
    return None if body is None else orjson.loads(body)


def add_scores(ledger: Ledger, conn: sa.Connection, item: int, round_: int, found: Sequence[Score]) -> None:
    """Keep scores; one that was unscored before may be replaced, nothing else."""
    values = [
        {
            "item_id": item,
            "round": round_,
            "prompt": score.prompt,
            "k": score.k,
            "dimension": score.dimension,
            "state": score.state,
            "value": score.value,
            "reason": score.reason[:1000],
            "evidence": orjson.dumps(score.evidence).decode(),
        }
        for score in found
    ]
    if values:
        conn.execute(_keep_score(ledger.is_sqlite), values)


@cache
def _keep_score(is_sqlite: bool) -> Any:
    insert = insert_into(scores, is_sqlite)
    return insert.on_conflict_do_update(
        index_elements=["item_id", "round", "prompt", "k", "dimension"],
        set_={name: insert.excluded[name] for name in ("state", "value", "reason", "evidence")},
        where=scores.c.state == "unscored",
    )


def load_scores(conn: sa.Connection, item: int, round_: int) -> list[Score]:
    query = sa.select(scores).where(scores.c.item_id == item, scores.c.round == round_)
    return [_score(row) for row in conn.execute(query.order_by(scores.c.prompt, scores.c.k, scores.c.dimension))]


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


def set_rewards(conn: sa.Connection, item: int, round_: int, found: Sequence[Reward]) -> None:
    conn.execute(rewards.delete().where(rewards.c.item_id == item, rewards.c.round == round_))
    if found:
        values = [{"prompt": r.prompt, "k": r.k, "value": r.value, "reason": r.reason} for r in found]
        conn.execute(rewards.insert(), [{"item_id": item, "round": round_, **value} for value in values])


def load_rewards(conn: sa.Connection, item: int, round_: int) -> list[Reward]:
    query = sa.select(rewards).where(rewards.c.item_id == item, rewards.c.round == round_)
    ordered = conn.execute(query.order_by(rewards.c.prompt, rewards.c.k))
    return [Reward(k=row.k, value=row.value, prompt=row.prompt, reason=row.reason) for row in ordered]


def set_rows(conn: sa.Connection, run: int, item: int, round_: int, found: Sequence[Pair | NoRow]) -> None:
    conn.execute(rows.delete().where(rows.c.item_id == item, rows.c.round == round_))
    pairs = [row for row in found if isinstance(row, Pair)]
    for pair in pairs:
        values = {name: getattr(pair, name) for name in ("prompt", "chosen", "rejected", "margin", "p_w", "p_l")}
        conn.execute(rows.insert().values(run_id=run, item_id=item, round=round_, **values))


def load_rows(conn: sa.Connection, item: int, round_: int) -> list[sa.Row[Any]]:
    return list(conn.execute(sa.select(rows).where(rows.c.item_id == item, rows.c.round == round_)))


def count_rows(conn: sa.Connection, run: int, round_: int) -> int:
    counted = sa.select(sa.func.count()).where(rows.c.run_id == run, rows.c.round == round_)
    return int(conn.execute(counted).scalar_one())


def item_ids(conn: sa.Connection, run: int, *, after: int = 0, limit: int = 500) -> list[int]:
    """The numbers of a run's items in their order, a page at a time."""
    query = sa.select(items.c.id).where(items.c.run_id == run, items.c.id > after)
    return list(conn.execute(query.order_by(items.c.id).limit(limit)).scalars())


def find_items(conn: sa.Connection, key: str, run: int | None = None) -> list[sa.Row[Any]]:
    query = sa.select(items, runs.c.name.label("run")).join(runs, runs.c.id == items.c.run_id)
    query = query.where(items.c.key == key)
    return list(conn.execute(query if run is None else query.where(items.c.run_id == run)))


def score_lines(conn: sa.Connection, id_: int) -> list[dict[str, Any]]:
    """The scores of an item's responses in the form of the `scores` export."""
    row = conn.execute(sa.select(items.c.key, items.c.round).where(items.c.id == id_)).one()
    by_response: dict[tuple[int, int], list[Score]] = defaultdict(list)
    for score in load_scores(conn, id_, row.round):
        by_response[score.prompt, score.k].append(score)
    reward_of = {(one.prompt, one.k): one for one in load_rewards(conn, id_, row.round)}
    found = load_responses(conn, id_, row.round)
    names = [(one.prompt, one.k) for one in found]
    return [
        score_row(row.key, one, by_response[name], reward_of.get(name)) for one, name in zip(found, names, strict=True)
    ]
