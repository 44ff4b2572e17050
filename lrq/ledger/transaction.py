"""A transaction of the ledger: what its functions read and write with."""

import time
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

CLOCK: sa.ColumnClause[float] = sa.literal_column("extract(epoch FROM clock_timestamp())::float8", sa.Float)
MIGRATING, SETTLING, FEEDING = range(3)  # what is done alone
_LOCK = 726  # of PostgreSQL's advisory locks those that are ours; any number


class Transaction:
    """A connection between its beginning and its commit (`Ledger.write`), or one that reads (`Ledger.read`)."""

    def __init__(self, connection: sa.Connection) -> None:
        self.connection = connection
        self.execute = connection.execute
        self.is_sqlite = connection.dialect.name == "sqlite"
        self._alone: set[int] = set()

    def now(self) -> float:
        """Return the one clock of all processes, in seconds: the server's, or this machine's for SQLite."""
        if self.is_sqlite:
            return time.time()
        return float(self.execute(sa.select(CLOCK)).scalar_one())

    def alone(self, what: int) -> None:
        """Until this transaction ends, let no other one do the same: SQLite has but one writer, PostgreSQL many.

        Transactions that touch the same rows in differing orders would wait for each other until one is broken off.
        A second time in the same transaction costs nothing.

        what: MIGRATING, SETTLING or FEEDING.
        """
        if not self.is_sqlite and what not in self._alone:
            self.execute(sa.text("SELECT pg_advisory_xact_lock(:lrq, :what)"), {"lrq": _LOCK, "what": what})
            self._alone.add(what)

    def insert(self, table: sa.Table) -> Any:
        """Return an insert that knows `on_conflict_do_nothing` and `on_conflict_do_update`."""
        return insert_into(table, self.is_sqlite)

    def add_new(self, table: sa.Table, values: Mapping[str, Any]) -> bool:
        """Insert a row; False where one with its key is there already. PostgreSQL's rowcount does not tell."""
        key = next(iter(table.primary_key))
        insert = self.insert(table).values(**values).on_conflict_do_nothing().returning(key)
        return self.execute(insert).first() is not None


def insert_into(table: sa.Table, is_sqlite: bool) -> Any:
    """Return the insert of a database, for statements that are built once."""
    return sqlite.insert(table) if is_sqlite else postgresql.insert(table)
