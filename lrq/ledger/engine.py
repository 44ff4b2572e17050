"""Opening the ledger: SQLite with full sync, or PostgreSQL; transactions, clock, migrations."""

import fcntl
import logging
import os
import uuid
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from lrq.config import Settings
from lrq.domain.errors import LrqError, UsageError
from lrq.domain.urls import safe_url
from lrq.ledger import schema
from lrq.ledger.transaction import MIGRATING, Transaction

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
logging.getLogger("alembic").setLevel(logging.WARNING)  # else each worker's log would tell of its set-up


class Ledger:
    """The database that holds everything durable; safe to share between threads."""

    def __init__(self, engine: sa.Engine) -> None:
        self.engine = engine
        self.is_sqlite = engine.dialect.name == "sqlite"
        self._id: str | None = None
        weakref.finalize(self, engine.dispose)  # a command that ends lets its ledger go, and its connections with it

    @property
    def id(self) -> str:
        """Return a short random name that prefixes every key of this ledger in a shared Redis."""
        if self._id is None:
            with self.read() as tx:
                self._id = tx.execute(sa.select(schema.meta.c.value).where(schema.meta.c.name == "id")).scalar_one()
        return self._id

    @property
    def place(self) -> str:
        """Say where it is, for people: no user and no password."""
        url = self.engine.url
        return str(url.database) if self.is_sqlite else safe_url(url.render_as_string(hide_password=False))

    @contextmanager
    def write(self) -> Iterator[Transaction]:
        """Begin a transaction, which is committed at its end; on SQLite it holds the write lock from its beginning."""
        with self.engine.begin() as connection:
            yield Transaction(connection)

    @contextmanager
    def read(self) -> Iterator[Transaction]:
        """Read what is committed, statement by statement; no transaction stands open between them."""
        options = {"lrq_read": True} if self.is_sqlite else {"isolation_level": "AUTOCOMMIT"}
        with self.engine.connect().execution_options(**options) as connection:
            yield Transaction(connection)

    def check_writing(self) -> None:
        """Write a little that changes nothing. Raises LedgerUnavailable where the database does not take it."""
        try:
            with self.write() as tx:
                tx.execute(schema.meta.update().values(value=schema.meta.c.value))
        except sa.exc.DBAPIError as error:
            raise LedgerUnavailable(f"the ledger at {self.place} takes no writes: {explain(error)}") from None

    def close(self) -> None:
        self.engine.dispose()


# What PostgreSQL says when it refuses us for as long as nobody changes something.
_LASTING = ("authentication failed", "no password supplied", "does not exist", "no pg_hba.conf entry", "SSL")


class LedgerUnavailable(LrqError):
    """The ledger does not answer or takes no writes; it may do so later."""


def open_ledger(settings: Settings, *, create: bool = False) -> Ledger:
    """Open the ledger of these settings; `create` also makes it or brings its schema up to date.

    Raises LrqError where it is missing, out of date, of the wrong kind or on a network file system, and of these
    LedgerUnavailable where it is unreachable, full or read-only.
    """
    url = _url(settings)
    if url.get_backend_name() == "sqlite":
        _check_file(Path(url.database or ""), create)
    ledger = Ledger(_engine(url))
    try:
        if not ledger.is_sqlite:
            _check_encoding(ledger)
        if create:
            _check_writable(ledger)
            _migrate(ledger)
        _check_schema(ledger)
    except sa.exc.DBAPIError as error:
        ledger.close()
        words = explain(error)
        kind = LrqError if any(sign in words for sign in _LASTING) else LedgerUnavailable
        raise kind(f"cannot open the ledger at {ledger.place}: {words}") from None
    except BaseException:
        ledger.close()
        raise
    return ledger


def explain(error: Exception) -> str:
    """Say in one line why the database did not take something; a full disk by its name."""
    original = getattr(error, "orig", None) or error
    words = (str(original).splitlines() or [type(original).__name__])[0]
    if "disk is full" in words or "No space left" in words:
        return "no space left on the disk that holds it; free some"
    if "attempt to write a readonly database" in words:
        return "its file is read-only for this user"
    return words


def _check_encoding(ledger: Ledger) -> None:
    with ledger.read() as tx:
        encoding = tx.execute(sa.text("SHOW server_encoding")).scalar()
    if encoding != "UTF8":
        raise LrqError(
            f"the database at {ledger.place} is in {encoding}, and texts are kept in UTF8: make another with "
            "CREATE DATABASE lrq ENCODING 'UTF8' TEMPLATE template0"
        )


def _check_writable(ledger: Ledger) -> None:
    """Refuse a PostgreSQL server or user that will not let us write; a file is looked at before it is opened."""
    if ledger.is_sqlite:
        return
    with ledger.read() as tx:
        is_standby = tx.execute(sa.text("SELECT pg_is_in_recovery()")).scalar()
        read_only = tx.execute(sa.text("SHOW transaction_read_only")).scalar() == "on"
        missing = _missing_privilege(tx)
    if is_standby or read_only:
        what = "a standby server" if is_standby else "read-only (default_transaction_read_only)"
        raise LedgerUnavailable(f"the database at {ledger.place} is {what}, and lrq has to write: name the primary")
    if missing:
        raise LrqError(f"the user of the database at {ledger.place} may not {missing}: GRANT it, or name another user")


def _missing_privilege(tx: Transaction) -> str:
    """Name what this user would have to do and may not; empty where nothing is missing."""
    row = tx.execute(sa.text("SELECT current_schema(), to_regclass('meta') IS NOT NULL")).one()
    name, is_made = row
    if name is None:
        return "use a schema of it (USAGE on the search path)"
    if not is_made:
        may_create = tx.execute(sa.text("SELECT has_schema_privilege(current_schema(), 'CREATE')")).scalar()
        return "" if may_create else f"create tables in the schema {name}"
    may_write = sa.text(
        "SELECT bool_and(has_table_privilege(to_regclass(name), kind))"
        " FROM unnest(CAST(:names AS text[])) AS name, unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS kind"
        " WHERE to_regclass(name) IS NOT NULL"
    )
    return "" if tx.execute(may_write, {"names": list(schema.metadata.tables)}).scalar() else "write into its tables"


def _url(settings: Settings) -> sa.URL:
    """Set our PostgreSQL driver, however the URL names the database. Raises UsageError, which shows no password."""
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
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    elif not path.exists():
        raise LrqError(f"no ledger at {path}; `lrq enqueue FILE` makes one, or set LRQ_HOME to the one you mean")
    if create and not all(os.access(each, os.W_OK) for each in (path, path.parent) if each.exists()):
        raise LedgerUnavailable(f"{path} is read-only for this user, and lrq has to write into it and its folder")
    kind = _file_system(path.parent)
    if kind in _NETWORK_FILE_SYSTEMS:
        raise LrqError(
            f"{path.parent} is on {kind}, where SQLite can lose data; "
            "set LRQ_HOME to a local disk or LRQ_DATABASE_URL to PostgreSQL"
        )


def _file_system(folder: Path) -> str:
    """Return the type of a folder's file system, from the kernel's mount table; empty where there is none."""
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
    def _on_begin(connection: sa.Connection) -> None:
        # A deferred transaction that turns to writing fails at once when another writes; this one waits instead.
        # Reading needs none: as on PostgreSQL, each statement sees what is committed.
        if not connection.get_execution_options().get("lrq_read"):
            connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def _prepare_threshold(value: str) -> int | None:
    """Read how often a statement is sent before it is prepared; 0, none and off: it never is."""
    if value.lower() in {"0", "none", "off", ""}:
        return None
    if not value.isdecimal():
        raise UsageError("prepare_threshold in LRQ_DATABASE_URL is a number of times, or 0 for never")
    return int(value)


def _is_pooled(connection: Any) -> bool:
    """Tell whether a pooler such as PgBouncer stands between: it tells of a process that is not the server's own.

    Statement by statement or transaction by transaction it may hand us another of its connections, so nothing that
    a session keeps can be relied on.
    """
    (pid,) = connection.execute("SELECT pg_backend_pid()", prepare=False).fetchone()
    connection.commit()
    return bool(pid != connection.info.backend_pid)


def _postgresql(url: sa.URL) -> sa.Engine:
    """Connect so that what a vanished client holds is free within a minute, and a vanished server is noticed as soon.

    Else the locks of a machine without power would stop all others for the two hours of TCP's own patience.
    """
    defaults = {
        "connect_timeout": _CONNECT_SECONDS,
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 4,
        "tcp_user_timeout": 30_000,  # milliseconds
    }
    arguments: dict[str, Any] = {name: value for name, value in defaults.items() if name not in url.query}
    arguments["client_encoding"] = "UTF8"  # else a database in SQL_ASCII gives bytes, and one in LATIN1 takes few texts
    threshold = url.query.get("prepare_threshold")
    if threshold is not None:
        arguments["prepare_threshold"] = _prepare_threshold(str(threshold))
    url = url.difference_update_query(["prepare_threshold", "client_encoding"])
    engine = sa.create_engine(url, pool_pre_ping=True, pool_size=5, max_overflow=10, connect_args=arguments)

    @sa.event.listens_for(engine, "connect")
    def _on_connect(connection: Any, _record: Any) -> None:
        if _is_pooled(connection):
            if threshold is None:
                connection.prepare_threshold = None
            return  # a setting of the session would be another client's, too; a pooler has such a limit of its own
        connection.execute(f"SET idle_in_transaction_session_timeout = '{_IDLE_SECONDS}s'")
        connection.commit()

    return engine


def _alembic() -> Config:
    config = Config()
    config.set_main_option("script_location", "lrq.ledger:migrations")
    return config


def _migrate(ledger: Ledger) -> None:
    """Bring the schema up to date, alone; one that is up to date is left as it is."""
    if _revision(ledger) == _head():
        return
    with _migration_lock(ledger), ledger.write() as tx:
        tx.alone(MIGRATING)
        current = MigrationContext.configure(tx.connection).get_current_revision()
        if current is not None and current not in {each.revision for each in _scripts().walk_revisions()}:
            raise LrqError(
                f"the ledger's schema is {current}, which a newer lrq made; this one cannot use it: upgrade lrq"
            )
        config = _alembic()
        config.attributes["connection"] = tx.connection
        command.upgrade(config, "head")
        ledger_id = tx.execute(sa.select(schema.meta.c.value).where(schema.meta.c.name == "id")).scalar()
        if ledger_id is None:
            tx.execute(schema.meta.insert().values(name="id", value=uuid.uuid4().hex[:12]))


@contextmanager
def _migration_lock(ledger: Ledger) -> Iterator[None]:
    """Hold the lock of a SQLite file's migration; on PostgreSQL the transaction has one."""
    if not ledger.is_sqlite:
        yield
        return
    path = Path(f"{ledger.engine.url.database}.lock")
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _scripts() -> ScriptDirectory:
    return ScriptDirectory.from_config(_alembic())


def _head() -> str | None:
    return _scripts().get_current_head()


def _revision(ledger: Ledger) -> str | None:
    with ledger.read() as tx:
        return MigrationContext.configure(tx.connection).get_current_revision()


def _check_schema(ledger: Ledger) -> None:
    head, revision = _head(), _revision(ledger)
    if revision != head:
        raise LrqError(
            f"the ledger's schema is {revision or 'missing'}, this lrq needs {head}; "
            "run `lrq up` or `lrq enqueue` once to bring it up to date"
        )
