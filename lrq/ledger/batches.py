"""Many rows in one step of the database: they travel as one JSON text, there and back.

At each row that it takes or brings, sqlite3 lets go of the interpreter, and stands in line behind the event loop to
have it again: a thread beside a busy loop pays for that a hundred times what the row costs.

Bytes are not JSON, and of a fraction that comes back SQLite's JSON keeps 15 digits; one that goes in stays whole.
"""

from collections import namedtuple
from collections.abc import Mapping, Sequence
from typing import Any

import orjson
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from lrq.ledger.transaction import Transaction

_Type = sa.types.TypeEngine[Any] | type[sa.types.TypeEngine[Any]]


def packed(rows: Sequence[Any]) -> str:
    """Values, or rows of values, as the parameter of `listed` or `table`."""
    return orjson.dumps(rows).decode()


def listed(parameter: str, type_: _Type, *, is_sqlite: bool) -> sa.Select[Any]:
    """Return the values of a packed list, for `column.in_(…)`."""
    if is_sqlite:
        return sa.select(sa.func.json_each(_text(parameter)).table_valued("value").c.value)
    elements = sa.func.json_array_elements_text(sa.cast(_text(parameter), postgresql.JSON))
    return sa.select(sa.cast(elements.table_valued("value").c.value, type_))


def table(parameter: str, columns: Mapping[str, _Type], *, is_sqlite: bool) -> sa.Subquery:
    """Return the rows of a packed list, with these `columns` in their order."""
    selected: list[sa.ColumnElement[Any]]
    if is_sqlite:
        row = sa.func.json_each(_text(parameter)).table_valued("value").c.value
        selected = [sa.func.json_extract(row, f"$[{i}]", type_=type_) for i, type_ in enumerate(columns.values())]
    else:
        elements = sa.func.json_array_elements(sa.cast(_text(parameter), postgresql.JSON))
        array = sa.cast(elements.table_valued("value").c.value, postgresql.JSON)
        selected = [sa.cast(array.op("->>")(i), type_) for i, type_ in enumerate(columns.values())]
    return sa.select(*(column.label(name) for column, name in zip(selected, columns, strict=True))).subquery(parameter)


class Query:
    """A query whose rows come all at once; its columns hold neither bytes nor fractions. Build it once."""

    def __init__(self, query: sa.Select[Any]) -> None:
        self._row: Any = namedtuple("_row", query.selected_columns.keys())  # type: ignore[misc]
        self._query = query
        rows = query.subquery()
        self._packed = sa.select(sa.func.json_group_array(sa.func.json_array(*rows.c))).select_from(rows)

    def rows(self, tx: Transaction, parameters: Mapping[str, Any]) -> list[Any]:
        """Named tuples, in no order."""
        values: Any
        if tx.is_sqlite:
            values = orjson.loads(tx.execute(self._packed, parameters).scalar_one())
        else:
            values = tx.execute(self._query, parameters)
        return [self._row._make(row) for row in values]


def _text(parameter: str) -> sa.BindParameter[Any]:
    return sa.bindparam(parameter, type_=sa.Text)
