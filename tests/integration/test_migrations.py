"""The schema on both databases: what migrations make is what the code expects."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from click.testing import CliRunner

from lrq.cli import _lrq
from lrq.config import Settings
from lrq.domain.errors import LrqError, UsageError
from lrq.domain.records import Turn
from lrq.ledger import Ledger, open_ledger, schema
from lrq.ledger.engine import _alembic
from lrq.ledger.items import read_row
from lrq.ledger.schema import metadata


def test_the_migrated_schema_is_the_code_s(ledger: Ledger) -> None:
    """Nothing to add, alter or drop: as `alembic check` asks, types included, and defaults where they can be read."""
    with ledger.engine.connect() as conn:
        options = {"compare_type": True, "compare_server_default": not ledger.is_sqlite}
        assert compare_metadata(MigrationContext.configure(conn, opts=options), metadata) == []


def test_a_ledger_is_opened_again_as_the_same(ledger_settings: Settings) -> None:
    """Its id prefixes what it has in Redis: it must not change."""
    first = open_ledger(ledger_settings, create=True)
    again = open_ledger(ledger_settings, create=True)
    only = open_ledger(ledger_settings)
    assert first.id == again.id == only.id
    for one in (first, again, only):
        one.close()


def test_an_old_schema_is_refused_in_one_line(ledger: Ledger, ledger_settings: Settings) -> None:
    """It says what it found, what it needs, and which command mends it."""
    with ledger.engine.begin() as conn:
        conn.execute(sa.text("UPDATE alembic_version SET version_num = '0000'"))
    with pytest.raises(LrqError, match=r"schema is 0000, this lrq needs 0.*`lrq up`") as refused:
        open_ledger(ledger_settings)
    assert "\n" not in str(refused.value)
    assert not isinstance(refused.value, UsageError)


def test_rows_of_an_older_ledger_stay_with_their_trainings(ledger: Ledger) -> None:
    """Six rows, of which two trainings had three and two: one is left for the next."""
    config = _alembic()
    with ledger.engine.connect() as conn:
        config.attributes["connection"] = conn
        with conn.begin():
            command.downgrade(config, "0001")
            conn.execute(schema.runs.insert().values(id=1, name="r", recipe="x", config="{}", created_at=0.0))
            for id_ in range(1, 7):
                item = {"id": id_, "run_id": 1, "key": str(id_), "line": id_, "context_hash": "", "body": "{}"}
                conn.execute(schema.items.insert().values(**item, state="done"))
                row = "INSERT INTO rows (id, run_id, item_id, chosen, rejected) VALUES (:id, 1, :id, 2, 5)"
                conn.execute(sa.text(row), {"id": id_})
            for window, count in enumerate((3, 2)):
                training = {"run_id": 1, "round": 0, "window": window, "state": "done", "rows": count}
                conn.execute(schema.trainings.insert().values(**training))
            command.upgrade(config, "head")
            found = conn.execute(sa.select(schema.rows).order_by(schema.rows.c.id)).all()
    assert [row.window for row in found] == [0, 0, 0, 1, 1, None]
    assert {read_row(row).turns for row in found} == {(Turn(prompt=0, chosen=(0, 2), rejected=(0, 5)),)}


def test_an_empty_database_is_refused_by_who_only_reads(postgres_url: str, home: Path) -> None:
    """Commands that bring work, and workers, make a schema; others would show an empty one."""
    settings = Settings(home=home, database_url=postgres_url)  # type: ignore[arg-type]
    with pytest.raises(LrqError, match="schema is missing"):
        open_ledger(settings)


_MIGRATE = "from lrq.config import load_settings; from lrq.ledger import open_ledger; "
_MIGRATE += "print(open_ledger(load_settings(), create=True).id)"


def test_processes_that_migrate_at_once_all_succeed(ledger_settings: Settings) -> None:
    """Three start on an empty ledger: one migrates, the others wait, and all see the same ledger."""
    env = {"LRQ_HOME": str(ledger_settings.home), "LRQ_DATABASE_URL": ledger_settings.ledger_url()}
    ledger_settings.home.mkdir(parents=True, exist_ok=True)
    started = [
        subprocess.Popen([sys.executable, "-c", _MIGRATE], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(3)
    ]
    ended = [process.communicate(timeout=60) for process in started]
    assert [process.returncode for process in started] == [0, 0, 0], ended
    assert len({out for out, _ in ended}) == 1


@pytest.fixture
def fails(home: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """What `lrq status` says of a database URL, in one line."""

    def run(url: str) -> str:
        monkeypatch.setenv("LRQ_HOME", str(home))
        monkeypatch.setenv("LRQ_DATABASE_URL", url)
        result = CliRunner().invoke(_lrq, ["status"])
        assert result.exception is not None
        assert isinstance(result.exception, LrqError), repr(result.exception)
        assert "\n" not in str(result.exception)
        return str(result.exception)

    return run


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("sqlite:////nowhere/at/all/ledger.db", "no ledger at /nowhere"),
        ("sqlite://", "names a SQLite file .* not sqlite"),
        ("sqlite:///:memory:", "names a SQLite file"),
        ("mysql://u:hidden@h/d", "names a SQLite file"),
        ("hidden", "names a SQLite file"),
        ("postgresql+psycopg://u:hidden@127.0.0.1:1/d", r"cannot open the ledger at postgresql\+psycopg://\*\*\*@"),
        ("postgresql://u:hidden@127.0.0.1:1/d", "cannot open the ledger"),
        ("postgres://u:hidden@127.0.0.1:1/d", "cannot open the ledger"),
    ],
)
def test_a_database_that_cannot_be_opened_is_one_line_without_its_password(
    fails: Callable[[str], str], url: str, said: str
) -> None:
    """Whatever is wrong with the URL."""
    message = fails(url)
    assert re.search(said, message), message
    assert "hidden" not in message
