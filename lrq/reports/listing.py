"""The items of a run as a list: searched, filtered, sorted and paged by the database, whatever the run's size."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
import sqlalchemy as sa

from lrq.domain.errors import UsageError
from lrq.ledger import Transaction
from lrq.ledger.runs import Run
from lrq.ledger.schema import calls, items, responses, rewards, rows, scores

PAGE = 50  # items
_CLOSE = 1e-6  # bounds were written with few digits
_EXCERPT = 240  # characters of a question
OPERATORS = {"<": "__lt__", "<=": "__le__", ">": "__gt__", ">=": "__ge__", "=": "__eq__"}


@dataclass(frozen=True, kw_only=True)
class Condition:
    """One figure of an item compared with a number: margin < 0.5, faithfulness >= 8."""

    name: str
    operator: str
    number: float


@dataclass(frozen=True, kw_only=True)
class Range:
    """Bounds between which a value of some response of the item lies: of a dimension, reward or margin."""

    name: str
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class ItemQuery:
    """Which items of a run, in which order, and which page of them."""

    text: str = ""  # in the item's id or line
    state: str = ""
    reason: str = ""  # part of it; of the item, or of one of its scores
    conditions: tuple[Condition, ...] = ()
    ranges: tuple[Range, ...] = ()
    sort: str = "line"  # a figure's name, or "line" for the order of the dataset
    descending: bool = False
    offset: int = 0
    limit: int = PAGE

    @property
    def is_costly(self) -> bool:
        """Tell whether every score of the run may have to be read for it."""
        return bool(self.conditions or self.ranges or self.sort != "line")


def list_items(tx: Transaction, run: Run, query: ItemQuery, matching: Sequence[int] | None = None) -> dict[str, Any]:
    """Return a page of items with their figures, and how many there are on all pages.

    `matching`: the answer of `find_items` to this query, where it is known. A condition on a figure that an item does
    not have leaves it out; in an order by figures such items are last.
    """
    if matching is None:
        statement = _matching(run, query)
        total = int(tx.execute(sa.select(sa.func.count()).select_from(statement.subquery())).scalar_one())
        ids = list(tx.execute(statement.offset(query.offset).limit(query.limit)).scalars())
    else:
        total, ids = len(matching), list(matching[query.offset : query.offset + query.limit])
    return {"total": total, "offset": query.offset, "items": item_figures(tx, run, ids)}


def find_items(tx: Transaction, run: Run, query: ItemQuery) -> list[int]:
    """Return the numbers of all items of `query` in its order, whatever its page."""
    return list(tx.execute(_matching(run, query)).scalars())


def _matching(run: Run, query: ItemQuery) -> sa.Select[Any]:
    names = list(dict.fromkeys([*(condition.name for condition in query.conditions), *_sorted_by(query)]))
    tables = {name: _figure(run, name).subquery() for name in names}
    matching = sa.select(items.c.id).select_from(items).where(items.c.run_id == run.id, *_plain(query))
    for table in tables.values():
        matching = matching.outerjoin(table, table.c.item_id == items.c.id)
    for condition in query.conditions:
        column = tables[condition.name].c.figure
        matching = matching.where(getattr(column, OPERATORS[condition.operator])(condition.number))
    order = [tables[name].c.figure for name in _sorted_by(query)]
    ordered = [sa.nulls_last(column.desc() if query.descending else column) for column in order]
    last = items.c.id.desc() if query.descending and not order else items.c.id
    return matching.order_by(*ordered, last)


def _sorted_by(query: ItemQuery) -> list[str]:
    return [] if query.sort == "line" else [query.sort]


def _plain(query: ItemQuery) -> Iterable[sa.ColumnElement[bool]]:
    """Return the conditions on the item's own row."""
    if query.text:
        text = orjson.dumps(query.text).decode()[1:-1]  # as it stands within the line's JSON
        yield items.c.key.icontains(query.text, autoescape=True) | items.c.body.icontains(text, autoescape=True)
    if query.state:
        yield items.c.state == query.state
    if query.reason:
        of_score = sa.select(scores.c.id).where(scores.c.item_id == items.c.id, scores.c.round == items.c.round)
        of_score = of_score.where(scores.c.reason.icontains(query.reason, autoescape=True))
        yield items.c.reason.icontains(query.reason, autoescape=True) | of_score.exists()
    yield from map(_within, query.ranges)


def _within(bounds: Range) -> sa.ColumnElement[bool]:
    """Tell in SQL whether a response of the item has a value between the bounds."""
    tables: Mapping[str, tuple[sa.Table, sa.Column[Any]]] = {
        "reward": (rewards, rewards.c.value),
        "margin": (rows, rows.c.margin),
    }
    table, value = tables.get(bounds.name, (scores, scores.c.value))
    query = sa.select(sa.literal(1)).select_from(table).where(value.between(bounds.low - _CLOSE, bounds.high + _CLOSE))
    query = query.where(table.c.item_id == items.c.id, table.c.round == items.c.round)
    return (query.where(scores.c.dimension == bounds.name) if table is scores else query).exists()


def _figure(run: Run, name: str) -> sa.Select[Any]:
    """Select (item_id, figure) of all items of a run; a name that is no figure is a dimension's."""
    value = rewards.c.value
    low, high = sa.func.min(value), sa.func.max(value)
    of_rewards = {"reward": sa.func.avg(value), "best": high, "worst": low, "spread": high - low}
    if name in of_rewards:
        return _of_run(run, rewards, of_rewards[name])
    if name in _FIGURES:
        return _FIGURES[name](run)
    return _of_run(run, scores, sa.func.avg(scores.c.value), scores.c.dimension == name)


def _margin(run: Run) -> sa.Select[Any]:
    of_run = rows.c.run_id == run.id, rows.c.round == run.round
    query = sa.select(rows.c.item_id, sa.func.max(rows.c.margin).label("figure"))
    return query.where(*of_run).group_by(rows.c.item_id)


def _unscored(run: Run) -> sa.Select[Any]:
    return _of_run(run, scores, sa.func.sum(sa.case((scores.c.state == "unscored", 1), else_=0)))


def _responses(run: Run) -> sa.Select[Any]:
    return _of_run(run, responses, sa.func.count())


def _cost(run: Run) -> sa.Select[Any]:
    query = sa.select(calls.c.item_id, (sa.func.sum(calls.c.cost) / 1e6).label("figure"))
    return query.where(calls.c.run_id == run.id).group_by(calls.c.item_id)


def _of_run(run: Run, table: sa.Table, figure: sa.ColumnElement[Any], *more: sa.ColumnElement[bool]) -> sa.Select[Any]:
    of_run = items.c.run_id == run.id, table.c.round == items.c.round
    query = sa.select(table.c.item_id, figure.label("figure")).join(items, items.c.id == table.c.item_id)
    return query.where(*of_run, *more).group_by(table.c.item_id)


def _disagreement(run: Run) -> sa.Select[Any]:
    """Return the gap between a response's highest and lowest dimension, as the mean over the item's responses."""
    of_run = items.c.run_id == run.id, scores.c.round == items.c.round, scores.c.state == "value"
    gap = (sa.func.max(scores.c.value) - sa.func.min(scores.c.value)).label("gap")
    query = sa.select(scores.c.item_id, gap).join(items, items.c.id == scores.c.item_id).where(*of_run)
    # By the columns of the scores' key in their order, round included: then nothing has to be sorted.
    gaps = query.group_by(scores.c.item_id, scores.c.round, scores.c.prompt, scores.c.k).subquery()
    return sa.select(gaps.c.item_id, sa.func.avg(gaps.c.gap).label("figure")).group_by(gaps.c.item_id)


_FIGURES: Mapping[str, Callable[[Run], sa.Select[Any]]] = {
    "margin": _margin,
    "unscored": _unscored,
    "responses": _responses,
    "cost": _cost,
    "disagreement": _disagreement,
}


def item_figures(tx: Transaction, run: Run, ids: Sequence[int]) -> list[dict[str, Any]]:
    """Return what the list shows of the items with the numbers `ids`, in their order; costs in the currency."""
    query = sa.select(items.c.id, items.c.key, items.c.state, items.c.reason, items.c.body).where(items.c.id.in_(ids))
    stored = {row.id: row for row in tx.execute(query)}
    names = ("reward", "best", "worst", "margin", "disagreement", "unscored", "responses", "cost")
    figures = {name: _figures_of(tx, _figure(run, name), ids) for name in names}
    dimensions = _dimension_means(tx, ids)
    return [
        {
            "number": id_,
            "id": stored[id_].key,
            "state": stored[id_].state,
            "reason": stored[id_].reason,
            "question": _question(stored[id_].body),
            **{name: figures[name].get(id_) for name in names},
            "dimensions": dimensions.get(id_, {}),
        }
        for id_ in ids
    ]


def _figures_of(tx: Transaction, query: sa.Select[Any], ids: Sequence[int]) -> dict[int, float]:
    column = query.selected_columns[0]
    return {row.item_id: row.figure for row in tx.execute(query.where(column.in_(ids)))}


def _dimension_means(tx: Transaction, ids: Sequence[int]) -> dict[int, dict[str, float]]:
    query = sa.select(scores.c.item_id, scores.c.dimension, sa.func.avg(scores.c.value).label("mean"))
    query = query.join(items, items.c.id == scores.c.item_id).where(scores.c.round == items.c.round)
    query = query.where(scores.c.item_id.in_(ids)).group_by(scores.c.item_id, scores.c.dimension)
    means: dict[int, dict[str, float]] = {}
    for row in tx.execute(query.order_by(scores.c.dimension)):
        means.setdefault(row.item_id, {})[row.dimension] = row.mean
    return means


def _question(body: str) -> str:
    question = str(orjson.loads(body)["question"])
    return question if len(question) <= _EXCERPT else f"{question[:_EXCERPT]}…"


def read_query(arguments: Mapping[str, str]) -> ItemQuery:
    """Read a query as the viewer sends it in `arguments`; `where` and `ranges` are JSON lists. Raises UsageError."""
    try:
        conditions = tuple(
            Condition(name=str(name), operator=operator, number=float(number))
            for name, operator, number in orjson.loads(arguments.get("where") or "[]")
            if operator in OPERATORS
        )
        ranges = tuple(
            Range(name=str(name), low=float(low), high=float(high))
            for name, low, high in orjson.loads(arguments.get("ranges") or "[]")
        )
        offset, limit = int(arguments.get("offset") or 0), int(arguments.get("limit") or PAGE)
    except (ValueError, TypeError) as wrong:
        raise UsageError(f"this list of items cannot be read: {wrong}") from None
    return ItemQuery(
        text=arguments.get("text", ""),
        state=arguments.get("state", ""),
        reason=arguments.get("reason", ""),
        conditions=conditions,
        ranges=ranges,
        sort=arguments.get("sort") or "line",
        descending=arguments.get("descending") == "1",
        offset=max(0, offset),
        limit=max(1, min(limit, 500)),
    )


def item_values(tx: Transaction, ids: Sequence[int]) -> dict[int, dict[str, Any]]:
    """Return by item's number all `values` of its responses, by dimension, reward and margin, and its `reasons`."""
    by_item: dict[int, dict[str, Any]] = {id_: {"values": {}, "reasons": []} for id_ in ids}
    for table, name, value in (
        (scores, scores.c.dimension, scores.c.value),
        (rewards, sa.literal("reward"), rewards.c.value),
        (rows, sa.literal("margin"), rows.c.margin),
    ):
        reason = sa.literal("") if table is rows else table.c.reason
        query = sa.select(table.c.item_id, name.label("name"), value.label("number"), reason.label("reason"))
        query = query.join(items, items.c.id == table.c.item_id).where(table.c.round == items.c.round)
        for row in tx.execute(query.where(table.c.item_id.in_(ids))):
            facts = by_item[row.item_id]
            if row.number is not None:
                facts["values"].setdefault(row.name, []).append(row.number)
            if row.reason and row.reason not in facts["reasons"]:
                facts["reasons"].append(row.reason)
    return by_item
