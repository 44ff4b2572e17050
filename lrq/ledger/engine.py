"""Opening the ledger: SQLite with full sync, or PostgreSQL; transactions, clock, migrations."""

import fcntl
import os
import time
import uuid
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.dialects import postgresql, sqlite

from lrq.config import Settings
from lrq.domain.errors import LrqError, UsageError
from lrq.ledger import schema

_NETWORK_FILE_SYSTEMS = {
    "nfs",
    "nfs4",
    "cifs",
    "smb3",
    "smbfs",
    "fuse.sshfs",
    "lustre",
    "ceph",
    "glusterfs",
    "9p",
    "afs",
    "beegfs",
    "gpfs",
}
_NAMES = "names a SQLite file (sqlite:////path/to/file) or PostgreSQL (postgresql+psycopg://…)"
_BUSY_SECONDS = 60  # how long a writer waits for another process's transaction
_CONNECT_SECONDS = 10
_IDLE_SECONDS = 60  # that a transaction may stand open with nothing asked of it
_LOCK = 726  # of PostgreSQL's advisory locks those that are ours; any number
CLOCK: sa.ColumnClause[float] = sa.literal_column("extract(epoch FROM clock_timestamp())::float8", sa.Float)
MIGRATING, SETTLING, FEEDING = range(3)  # what is done alone


class Ledger:
    """The database that holds everything durable; safe to share between threads."""

    def __init__(self, engine: sa.Engine) -> None:
        self.engine = engine
        self.is_sqlite = engine.dialect.name == "sqlite"
        self._id: str | None = None
        weakref.finalize(self, engine.dispose)  # a command that ends lets its ledger go, and its connections with it

    @property
    def id(self) -> str:
        """A short random name that prefixes every key of this ledger in a shared Redis."""
        if self._id is None:
            with self.reading() as conn:
                self._id = conn.execute(sa.select(schema.meta.c.value).where(schema.meta.c.name == "id")).scalar_one()
        return self._id

    @contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        """One transaction; on SQLite it holds the write lock from its beginning."""
        with self.engine.begin() as conn:
            conn.info["alone"] = set()
            yield conn

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """Each statement sees what is committed; no transaction stands open between them."""
        options = {"lrq_read": True} if self.is_sqlite else {"isolation_level": "AUTOCOMMIT"}
        with self.engine.connect().execution_options(**options) as conn:
            yield conn

    def now(self, conn: sa.Connection) -> float:
        """The one clock of all processes, in seconds: the server's, or this machine's for SQLite."""
        if self.is_sqlite:
            return time.time()
        return float(conn.execute(sa.select(CLOCK)).scalar_one())

    def alone(self, conn: sa.Connection, what: int) -> None:
        """Until this transaction ends, let no other one do the same: SQLite has but one writer, PostgreSQL many.

        Transactions that touch the same rows in differing orders would wait for each other until one is broken off.
        A second time in the same transaction costs nothing.
        """
        if not self.is_sqlite and what not in conn.info["alone"]:
            conn.execute(sa.text("SELECT pg_advisory_xact_lock(:lrq, :what)"), {"lrq": _LOCK, "what": what})
            conn.info["alone"].add(what)

    def insert(self, table: sa.Table) -> Any:
        """An insert that knows `on_conflict_do_nothing` and `on_conflict_do_update`."""
        return insert_into(table, self.is_sqlite)

    def add_new(self, conn: sa.Connection, table: sa.Table, values: Mapping[str, Any]) -> bool:
        """Insert a row; False where one with its key is there already. PostgreSQL's rowcount does not tell."""
        key = next(iter(table.primary_key))
        insert = self.insert(table).values(**values).on_conflict_do_nothing().returning(key)
        return conn.execute(insert).first() is not None

    def close(self) -> None:
        self.engine.dispose()


def insert_into(table: sa.Table, is_sqlite: bool) -> Any:
    return sqlite.insert(table) if is_sqlite else postgresql.insert(table)


def open_ledger(settings: Settings, *, create: bool = False) -> Ledger:
    """Open the ledger of these settings; `create` also brings its schema up to date.

    Raises LrqError where it is missing, out of date, unreachable or on a network file system.
    """
    url = _url(settings)
    if url.get_backend_name() == "sqlite":
        _check_file(Path(url.database or ""), create)
    ledger = Ledger(_engine(url))
    try:
        if create:
            _migrate(ledger, settings)
        _check_schema(ledger)
    except sa.exc.OperationalError as error:
        ledger.close()
        where = url.render_as_string(hide_password=True)
        raise LrqError(f"cannot open the ledger at {where}: {str(error.orig).splitlines()[0]}") from None
    except BaseException:
        ledger.close()
        raise
    return ledger


def _url(settings: Settings) -> sa.URL:
    """With our PostgreSQL driver, however the URL names the database. Raises UsageError, which shows no password."""
    try:
        url = sa.make_url(settings.ledger_url())
    except sa.exc.ArgumentError:
        raise UsageError(f"LRQ_DATABASE_URL cannot be read: it {_NAMES}") from None
    if url.drivername in {"postgres", "postgresql"}:
        return url.set(drivername="postgresql+psycopg")
    is_file = url.drivername in {"sqlite", "sqlite+pysqlite"} and url.database not in {None, "", ":memory:"}
    if not is_file and url.drivername != "postgresql+psycopg":
        raise UsageError(f"LRQ_DATABASE_URL {_NAMES}, not {url.drivername}")
    return url


def _check_file(path: Path, create: bool) -> None:
    if create:
        path.parent.mkdir(parents=True, exist_ok=True)
    elif not path.exists():
        raise LrqError(f"no ledger at {path}; `lrq enqueue FILE` makes one, or set LRQ_HOME to the one you mean")
    kind = _file_system(path.parent)
    if kind in _NETWORK_FILE_SYSTEMS:
        raise LrqError(
            f"{path.parent} is on {kind}, where SQLite can lose data; "
            "set LRQ_HOME to a local disk or LRQ_DATABASE_URL to PostgreSQL"
        )


def _file_system(folder: Path) -> str:
    """The type of the file system that holds a folder, from the kernel's mount table; empty where there is none."""
    mounts = Path("/proc/mounts")
    if not mounts.exists():
        return ""
    here, best, kind = str(folder.resolve()), "", ""
    for line in mounts.read_text(encoding="utf-8", errors="replace").splitlines():
        _, point, type_, *_ = line.split(" ")
        inside = here == point or here.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):
            best, kind = point, type_
    return kind


def _engine(url: sa.URL) -> sa.Engine:
    if url.get_backend_name() == "postgresql":
        return _postgresql(url)
    engine = sa.create_engine(
        url, connect_args={"timeout": _BUSY_SECONDS, "check_same_thread": False}, pool_size=5, max_overflow=20
    )

    @sa.event.listens_for(engine, "connect")
    def _on_connect(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # we begin transactions ourselves
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "cache_size=-16000"):
            connection.execute(f"PRAGMA {pragma}")

    @sa.event.listens_for(engine, "begin")
    def _on_begin(conn: sa.Connection) -> None:
        # A deferred transaction that turns to writing fails at once when another writes; this one waits instead.
        # Reading needs none: as on PostgreSQL, each statement sees what is committed.
        if not conn.get_execution_options().get("lrq_read"):
            conn.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def _postgresql(url: sa.URL) -> sa.Engine:
    """What a client that vanishes holds is free within a minute, and a server that vanishes is noticed as soon.

    Else the locks of a machine without power would stop all others for the two hours of TCP's own patience.
    """
    ours = {
        "connect_timeout": _CONNECT_SECONDS,
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 4,
        "tcp_user_timeout": 30_000,  # milliseconds
    }
    told = {name: value for name, value in ours.items() if name not in url.query}
    engine = sa.create_engine(url, pool_pre_ping=True, pool_size=5, max_overflow=10, connect_args=told)

    @sa.event.listens_for(engine, "connect")
    def _on_connect(connection: Any, _record: Any) -> None:
        connection.execute(f"SET idle_in_transaction_session_timeout = '{_IDLE_SECONDS}s'")
        connection.commit()

    return engine


def _alembic() -> Config:
    config = Config()
    config.set_main_option("script_location", "lrq.ledger:migrations")
    return config


def _migrate(ledger: Ledger, settings: Settings) -> None:
    with _migration_lock(ledger, settings), ledger.engine.connect() as conn:
        config = _alembic()
        config.attributes["connection"] = conn
        with conn.begin():
            command.upgrade(config, "head")
            named = conn.execute(sa.select(schema.meta.c.value).where(schema.meta.c.name == "id")).scalar()
            if named is None:
                conn.execute(schema.meta.insert().values(name="id", value=uuid.uuid4().hex[:12]))


@contextmanager
def _migration_lock(ledger: Ledger, settings: Settings) -> Iterator[None]:
    if not ledger.is_sqlite:
        with ledger.writing() as conn:
            ledger.alone(conn, MIGRATING)
            yield
        return
    path = Path(f"{ledger.engine.url.database}.lock")
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _check_schema(ledger: Ledger) -> None:
    head = ScriptDirectory.from_config(_alembic()).get_current_head()
    with ledger.engine.connect() as conn:
        found = MigrationContext.configure(conn).get_current_revision()
    if found != head:
        raise LrqError(
            f"the ledger's schema is {found or 'missing'}, this lrq needs {head}; "
            "run `lrq up` or `lrq enqueue` once to bring it up to date"
        )
