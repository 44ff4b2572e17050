"""Empty ledgers in little time: SQLite files copied from a migrated one, a PostgreSQL database that is emptied."""

import atexit
import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import sqlalchemy as sa
from pydantic import SecretStr

from lrq.config import Settings
from lrq.ledger import Ledger, open_ledger
from lrq.ledger.schema import metadata

BOTH = ["sqlite", "postgresql"]


@contextlib.contextmanager
def opened(settings: Settings) -> Iterator[Ledger]:
    ledger = open_ledger(settings)
    try:
        yield ledger
    finally:
        ledger.close()


@contextlib.contextmanager
def some_ledger(request: pytest.FixtureRequest, home: Path) -> Iterator[Settings]:
    """Settings of a ledger on the database that the fixture's parameter names."""
    if request.param == "sqlite":
        with sqlite_ledger(home) as settings:
            yield settings
    else:
        url = _migrated_database(request.getfixturevalue("postgres"))
        _empty(url)
        yield Settings(home=home, database_url=SecretStr(url))


@contextlib.contextmanager
def sqlite_ledger(home: Path) -> Iterator[Settings]:
    home.mkdir(parents=True, exist_ok=True)
    shutil.copy(_migrated_file(), home / "ledger.db")
    yield Settings(home=home)


@cache
def _migrated_file() -> Path:
    folder = tempfile.TemporaryDirectory(prefix="lrq")
    atexit.register(folder.cleanup)
    open_ledger(Settings(home=Path(folder.name)), create=True).close()
    return Path(folder.name) / "ledger.db"


@cache
def _migrated_database(server: str) -> str:
    """The URL of a database for all tests that come here."""
    engine = sa.create_engine(server, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    with engine.connect() as conn:
        conn.execute(sa.text("CREATE DATABASE shared"))
    url = server.replace("/postgres?", "/shared?")
    with tempfile.TemporaryDirectory() as home:
        open_ledger(Settings(home=Path(home), database_url=SecretStr(url)), create=True).close()
    return url


def _empty(url: str) -> None:
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    tables = ", ".join(name for name in metadata.tables if name != "meta")
    with engine.begin() as conn:
        conn.execute(sa.text(f"TRUNCATE {tables} RESTART IDENTITY"))
