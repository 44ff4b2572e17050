"""Which processes live: what a process holds dies with it."""

import logging
import os
import socket
import threading
import uuid
from collections.abc import Callable
from functools import cache
from pathlib import Path

import orjson
import sqlalchemy as sa

from lrq.ledger.engine import Ledger
from lrq.ledger.schema import leases, processes

SEEN_EVERY = 2.0  # seconds between signs of life
DEAD_AFTER = 10.0  # seconds without one: five missed signs
DEAD_HERE_AFTER = 60.0  # the same for a process whose pid we see alive: it may be starved, or wait for the database

log = logging.getLogger(__name__)


@cache
def here() -> str:
    """This machine and its table of process ids: containers may share a host's name and its ids."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    table = Path("/proc/self/ns/pid")
    known = boot.read_text(encoding="ascii").strip() if boot.exists() else socket.gethostname()
    return f"{known} {table.readlink()}" if table.is_symlink() else known


class Presence:
    """This process in the ledger, with a thread that gives its signs of life."""

    def __init__(self, ledger: Ledger, type_: str, note: Callable[[], object] | None = None) -> None:
        self.id = uuid.uuid4().hex
        self._ledger = ledger
        self._note = note
        self._ended = threading.Event()
        with ledger.writing() as conn:
            now = ledger.now(conn)
            conn.execute(
                processes.insert().values(
                    id=self.id,
                    type=type_,
                    host=socket.gethostname(),
                    place=here(),
                    pid=os.getpid(),
                    started_at=now,
                    seen_at=now,
                )
            )
        self._thread = threading.Thread(target=self._work, name="presence", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Leave orderly: what this process still holds is free at once."""
        self._ended.set()
        self._thread.join()
        with self._ledger.writing() as conn:
            conn.execute(processes.delete().where(processes.c.id == self.id))
            conn.execute(leases.delete().where(leases.c.owner == self.id))

    def _work(self) -> None:
        while not self._ended.wait(SEEN_EVERY):
            try:
                self._give_sign()
            except Exception as error:  # whatever it is, a thread that ends would make this process a dead one
                log.warning("no sign of life could be given: %s", str(error).splitlines()[0])

    def _give_sign(self) -> None:
        values = {"note": orjson.dumps(self._note()).decode()} if self._note else {}
        with self._ledger.writing() as conn:
            seen = processes.update().where(processes.c.id == self.id)
            conn.execute(seen.values(seen_at=self._ledger.now(conn), **values))


def is_dead(ledger: Ledger, conn: sa.Connection, owner: str) -> bool:
    """Whether the process of that id has ended: gone, its pid free on this machine, or silent for long."""
    row = conn.execute(sa.select(processes).where(processes.c.id == owner)).one_or_none()
    if row is None:
        return True
    silent: float = ledger.now(conn) - row.seen_at
    if row.place == here():
        return silent > DEAD_HERE_AFTER or not _pid_lives(row.pid)
    return silent > DEAD_AFTER


def _pid_lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return _state(pid) not in {"Z", "X"}


def _state(pid: int) -> str:
    """A letter for what the process does (Z: it ended, and its parent has not looked yet); empty where unknown."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return ""


def living(ledger: Ledger, conn: sa.Connection) -> list[sa.Row[tuple[object, ...]]]:
    rows = conn.execute(sa.select(processes).order_by(processes.c.type, processes.c.started_at)).all()
    return [row for row in rows if not is_dead(ledger, conn, row.id)]


def take_lease(ledger: Ledger, conn: sa.Connection, name: str, owner: str, seconds: float) -> bool:
    """Take or renew a lease; False while another living process holds it."""
    now = ledger.now(conn)
    if ledger.add_new(conn, leases, {"name": name, "owner": owner, "until": now + seconds}):
        return True
    row = conn.execute(sa.select(leases).where(leases.c.name == name).with_for_update()).one()
    if row.owner != owner and row.until >= now and not is_dead(ledger, conn, row.owner):
        return False
    conn.execute(leases.update().where(leases.c.name == name).values(owner=owner, until=now + seconds))
    return True
