"""PostgreSQL as one finds it: behind a pooler, in other encodings, and without the right to write."""

import asyncio
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from calling import answer, answering

from lrq.config import Settings
from lrq.domain.errors import LrqError
from lrq.ledger import open_ledger


def settings(url: str) -> Settings:
    return Settings.model_validate({"database_url": url})


@contextmanager
def admin(server: str) -> Iterator[sa.Connection]:
    engine = sa.create_engine(server, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    with engine.connect() as conn:
        yield conn


@pytest.fixture
def pooled_url(postgres_url: str) -> Iterator[str]:
    """The same database behind PgBouncer, which hands out two connections, transaction by transaction."""
    program = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
    if program is None:
        pytest.skip("PgBouncer is not installed: apt-get install pgbouncer")
    url = sa.make_url(postgres_url)
    folder = Path(tempfile.mkdtemp(prefix="lrqpgb"))
    config = folder / "pgbouncer.ini"
    config.write_text(
        f"[databases]\n{url.database} = host={url.query['host']} dbname={url.database} user={url.username}\n"
        f"[pgbouncer]\nunix_socket_dir = {folder}\nlisten_addr =\nauth_type = any\npool_mode = transaction\n"
        f"default_pool_size = 2\nlogfile = {folder}/log\nserver_reset_query_always = 0\n"
    )
    user = "postgres" if os.getuid() == 0 else None
    if user:
        shutil.chown(folder, user)
        config.chmod(0o644)
    process = subprocess.Popen([program, "-q", config], user=user, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 20
    while not list(folder.glob(".s.PGSQL.*")):
        assert time.monotonic() < deadline, (folder / "log").read_text()
        time.sleep(0.05)
    try:
        yield f"postgresql+psycopg://{url.username}@/{url.database}?host={folder}&port=6432"
    finally:
        process.terminate()
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


async def test_calls_are_kept_behind_a_pooler(pooled_url: str, redis_server: Any) -> None:
    """Statements repeated often enough to be prepared meet connections that never saw them: sixty calls are settled."""
    opened = open_ledger(settings(pooled_url), create=True)
    async with answering(opened, redis_server.url, lambda _: answer()) as bench:
        for start in range(0, 60, 10):
            await asyncio.gather(*(bench.ask(str(number)) for number in range(start, start + 10)))
        assert [call.state for call in bench.calls()] == ["done"] * 60
    opened.close()


def test_a_session_behind_a_pooler_is_left_as_it_was(pooled_url: str, postgres_url: str) -> None:
    """Whatever is set for a session would be another client's; without a pooler it is set."""
    for url, timeout in ((pooled_url, "0"), (postgres_url, "1min")):
        opened = open_ledger(settings(url), create=True)
        with opened.write() as tx:
            assert tx.execute(sa.text("SHOW idle_in_transaction_session_timeout")).scalar() == timeout
        opened.close()


@pytest.mark.parametrize(("value", "threshold"), [("0", None), ("none", None), ("3", 3)])
def test_prepared_statements_can_be_switched_off(postgres_url: str, value: str, threshold: int | None) -> None:
    """By the URL, for poolers that do not show themselves."""
    opened = open_ledger(settings(f"{postgres_url}&prepare_threshold={value}"), create=True)
    with opened.read() as tx:
        assert tx.connection.connection.dbapi_connection.prepare_threshold == threshold  # type: ignore[union-attr]
    opened.close()


def test_a_threshold_that_is_no_number_is_refused(postgres_url: str) -> None:
    """In one line."""
    with pytest.raises(LrqError, match="prepare_threshold in LRQ_DATABASE_URL is a number"):
        open_ledger(settings(f"{postgres_url}&prepare_threshold=often"))


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII", "EUC_JP"])
def test_a_database_in_another_encoding_is_refused(postgres: str, encoding: str) -> None:
    """Before anything is written: the first text in another script would fail in the middle of an intake."""
    name = f"in_{encoding.lower()}"
    with admin(postgres) as conn:
        conn.execute(sa.text(f"CREATE DATABASE {name} ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0"))
    try:
        for create in (True, False):
            with pytest.raises(LrqError, match=f"is in {encoding}, .*ENCODING 'UTF8'") as refused:
                open_ledger(settings(postgres.replace("/postgres?", f"/{name}?")), create=create)
            assert "\n" not in str(refused.value)
    finally:
        with admin(postgres) as conn:
            conn.execute(sa.text(f"DROP DATABASE {name}"))


def test_a_user_who_may_not_write_is_refused(postgres: str, postgres_url: str) -> None:
    """One that may not make tables where none are, and one that may only read those there are."""
    reader = postgres_url.replace("//lrq@", "//reader@")
    with admin(postgres) as conn:
        conn.execute(sa.text("CREATE ROLE reader LOGIN"))
    try:
        with pytest.raises(LrqError, match="may not create tables in the schema public: GRANT"):
            open_ledger(settings(reader), create=True)
        open_ledger(settings(postgres_url), create=True).close()
        with admin(postgres_url) as conn:
            conn.execute(sa.text("GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader"))
        with pytest.raises(LrqError, match="may not write into its tables"):
            open_ledger(settings(reader), create=True)
        open_ledger(settings(reader)).close()  # to look at a run is enough
    finally:
        with admin(postgres_url) as conn:
            conn.execute(sa.text("DROP OWNED BY reader"))
            conn.execute(sa.text("DROP ROLE reader"))


def test_a_database_that_takes_no_writes_is_refused(postgres_url: str) -> None:
    """As a guard against a full disk leaves it, or a connection to a standby."""
    with admin(postgres_url) as conn:
        name = sa.make_url(postgres_url).database
        conn.execute(sa.text(f"ALTER DATABASE {name} SET default_transaction_read_only = on"))
    with pytest.raises(LrqError, match=r"is read-only .*name the primary"):
        open_ledger(settings(postgres_url), create=True)
