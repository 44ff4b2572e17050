"""Which processes live: what a process holds dies with it."""

import os
import socket
import threading
import uuid
from collections.abc import Callable

import orjson
import sqlalchemy as sa

from lrq.ledger.engine import Ledger
from lrq.ledger.schema import leases, processes

SEEN_EVERY = 2.0  # seconds between signs of life
DEAD_AFTER = 10.0  # seconds without one: five missed signs


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
                    id=self.id, type=type_, host=socket.gethostname(), pid=os.getpid(), started_at=now, seen_at=now
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
            values = {"note": orjson.dumps(self._note()).decode()} if self._note else {}
            try:
                with self._ledger.writing() as conn:
                    seen = processes.update().where(processes.c.id == self.id)
                    conn.execute(seen.values(seen_at=self._ledger.now(conn), **values))
            except sa.exc.OperationalError:
                continue  # the database is away: the next sign may get through


def is_dead(ledger: Ledger, conn: sa.Connection, owner: str) -> bool:
    """Whether the process of that id has ended: gone, silent for long, or its pid is free on this host."""
    row = conn.execute(sa.select(processes).where(processes.c.id == owner)).one_or_none()
    if row is None or row.seen_at < ledger.now(conn) - DEAD_AFTER:
        return True
    return row.host == socket.gethostname() and not _pid_lives(row.pid)


def _pid_lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def living(ledger: Ledger, conn: sa.Connection) -> list[sa.Row[tuple[object, ...]]]:
    rows = conn.execute(sa.select(processes).order_by(processes.c.type, processes.c.started_at)).all()
    return [row for row in rows if not is_dead(ledger, conn, row.id)]


def take_lease(ledger: Ledger, conn: sa.Connection, name: str, owner: str, seconds: float) -> bool:
    """Take or renew a lease; False while another living process holds it."""
    now = ledger.now(conn)
    insert = ledger.insert(leases).values(name=name, owner=owner, until=now + seconds)
    if conn.execute(insert.on_conflict_do_nothing()).rowcount == 1:
        return True
    row = conn.execute(sa.select(leases).where(leases.c.name == name).with_for_update()).one()
    if row.owner != owner and row.until >= now and not is_dead(ledger, conn, row.owner):
        return False
    conn.execute(leases.update().where(leases.c.name == name).values(owner=owner, until=now + seconds))
    return True
