"""What tests of every floor share: a real PostgreSQL, ledgers on both databases, a folder of one's own."""

import importlib.util
import os
import pwd
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

# One thread for each process's torch: models here are tiny, and threads that wait for each other on busy cores take
# many times the work. Set before anything imports torch; subprocesses inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import sqlalchemy as sa

from lrq.config import Settings
from lrq.ledger import Ledger, open_ledger


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs lrq[train] where that is not installed."""
    if importlib.util.find_spec("torch") is None:
        for item in items:
            if item.get_closest_marker("torch"):
                item.add_marker(pytest.mark.skip(reason="lrq[train] is not installed"))


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests say what they need; the developer's own LRQ_ variables and keys are not among it."""
    for name in os.environ:
        if name.startswith("LRQ_") or name == "OPENAI_API_KEY":
            monkeypatch.delenv(name)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / ".lrq"


def _program(name: str) -> str | None:
    """A PostgreSQL program: Debian keeps initdb and postgres off the PATH."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return str(found[-1]) if found else shutil.which(name)


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The URL of a PostgreSQL server on a unix socket, started for these tests; initdb refuses to run as root."""
    initdb, server = _program("initdb"), _program("postgres")
    if initdb is None or server is None:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    user = "postgres" if os.getuid() == 0 else None
    if user and not any(entry.pw_name == user for entry in pwd.getpwall()):
        pytest.skip("root cannot run PostgreSQL, and there is no user postgres")
    folder = Path(tempfile.mkdtemp(prefix="lrqpg"))
    if user:
        shutil.chown(folder, user)
    data = folder / "data"
    make = [initdb, "-D", data, "-U", "lrq", "--auth=trust", "--no-sync"]
    subprocess.run(make, user=user, cwd=folder, check=True, capture_output=True)
    options = ["-c", "listen_addresses=", "-c", f"unix_socket_directories={folder}", "-c", "max_connections=200"]
    log = (folder / "log").open("wb")
    process = subprocess.Popen([server, "-D", data, *options], user=user, cwd=folder, stdout=log, stderr=log)
    url = f"postgresql+psycopg://lrq@/postgres?host={folder}"
    try:
        _wait(url)
        yield url
    finally:
        process.terminate()
        process.wait()
        log.close()
        shutil.rmtree(folder, ignore_errors=True)


def _wait(url: str) -> None:
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    for _ in range(200):
        try:
            with engine.connect():
                return
        except sa.exc.OperationalError:
            subprocess.run(["sleep", "0.1"], check=True)
    raise TimeoutError("PostgreSQL did not start in 20 s")


@pytest.fixture
def postgres_url(postgres: str) -> Iterator[str]:
    """An empty database of its own."""
    name = f"t{uuid.uuid4().hex[:12]}"
    engine = sa.create_engine(postgres, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    with engine.connect() as conn:
        conn.execute(sa.text(f"CREATE DATABASE {name}"))
    yield postgres.replace("/postgres?", f"/{name}?")
    with engine.connect() as conn:
        conn.execute(sa.text(f"DROP DATABASE {name} WITH (FORCE)"))


@pytest.fixture(params=["sqlite", "postgresql"])
def ledger_settings(request: pytest.FixtureRequest, home: Path) -> Settings:
    """Settings of an empty ledger, on each database."""
    if request.param == "sqlite":
        return Settings(home=home)
    return Settings(home=home, database_url=request.getfixturevalue("postgres_url"))


@pytest.fixture
def ledger(ledger_settings: Settings) -> Iterator[Ledger]:
    opened = open_ledger(ledger_settings, create=True)
    yield opened
    opened.close()
