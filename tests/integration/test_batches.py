"""Rows that travel as one JSON text arrive as they left, on SQLite and PostgreSQL."""

import random

import pytest
import sqlalchemy as sa

from lrq.ledger import Ledger
from lrq.ledger.batches import Query, listed, packed, table

COLUMNS = {"number": sa.BigInteger, "text": sa.Text, "perhaps": sa.Integer}


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [(0, "", None)],
        [
            (2**53 + 1, 'quotes " and \\ and / and {"json": [1, "2"]}', 3),
            (-(2**62), "line\nfeed, tab\t, bell\x07", None),
        ],
        [(1, "\u2028 \u007f é 汉字 😀", 5), (2, "x" * 300_000, None)],
    ],
)
def test_rows_arrive_as_they_left(ledger: Ledger, rows: list[tuple[int, str, int | None]]) -> None:
    """There as a parameter, and back as the rows of a query."""
    query = Query(sa.select(*table("sent", COLUMNS, is_sqlite=ledger.is_sqlite).c))
    with ledger.read() as tx:
        assert sorted(map(tuple, query.rows(tx, {"sent": packed(rows)}))) == sorted(rows)


def test_a_fraction_goes_in_whole(ledger: Ledger) -> None:
    """Means of scores have 17 digits, and a reward computed from them must come out the same."""
    rng = random.Random(7)
    fractions = [rng.randint(1, 400) / rng.randint(1, 400) for _ in range(2000)] + [rng.random() for _ in range(2000)]
    sent = table("sent", {"place": sa.Integer, "value": sa.Float}, is_sqlite=ledger.is_sqlite)
    query = sa.select(sent.c.value).order_by(sent.c.place)
    with ledger.read() as tx:
        found = tx.execute(query, {"sent": packed(list(enumerate(fractions)))}).scalars().all()
    assert found == fractions


def test_a_list_names_what_is_in_it(ledger: Ledger) -> None:
    """Numbers and texts, and an empty list names nothing."""
    known = table("known", {"id": sa.BigInteger, "key": sa.Text}, is_sqlite=ledger.is_sqlite)
    by_id = Query(
        sa.select(known.c.key).where(known.c.id.in_(listed("ids", sa.BigInteger, is_sqlite=ledger.is_sqlite)))
    )
    by_key = Query(sa.select(known.c.id).where(known.c.key.in_(listed("keys", sa.Text, is_sqlite=ledger.is_sqlite))))
    rows = packed([(1, "1"), (2**60, "it's"), (3, "c")])
    with ledger.read() as tx:
        assert {row.key for row in by_id.rows(tx, {"known": rows, "ids": packed([2**60, 3, 9])})} == {"it's", "c"}
        assert {row.id for row in by_key.rows(tx, {"known": rows, "keys": packed(["1", "it's"])})} == {1, 2**60}
        assert by_id.rows(tx, {"known": rows, "ids": packed([])}) == []
