"""Which processes live: what a process holds dies with it."""

import logging
import os
import socket
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import orjson
import sqlalchemy as sa

from lrq.ledger.engine import Ledger
from lrq.ledger.schema import leases, processes
from lrq.ledger.transaction import Transaction

SEEN_EVERY = 2.0  # seconds between signs of life
DEAD_AFTER = 10.0  # seconds without one while we look: five missed signs
DEAD_HERE_AFTER = 60.0  # the same for a process whose pid we see alive: it may be starved, or wait for the database
_LOOKS_APART = 5.0  # seconds; after a longer gap we, or the database, may have been away ourselves

TASKS = "tasks at once"  # in a process's note: how many it works on, or would

log = logging.getLogger(__name__)


@cache
def here() -> str:
    """Name this machine and its table of process ids: containers may share a host's name and its ids."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    table = Path("/proc/self/ns/pid")
    machine = boot.read_text(encoding="ascii").strip() if boot.exists() else socket.gethostname()
    return f"{machine} {table.readlink()}" if table.is_symlink() else machine


class Presence:
    """This process in the ledger, with a thread that gives its signs of life."""

    def __init__(self, ledger: Ledger, type_: str, note: Callable[[], object] | None = None) -> None:
        self.id = uuid.uuid4().hex
        self._ledger = ledger
        self._type = type_
        self.note = note
        self._ended = threading.Event()
        with ledger.write() as tx:
            self._started = tx.now()
            self._enter(tx, self._started)
        self._thread = threading.Thread(target=self._work, name="presence", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Leave orderly: what this process still holds is free at once."""
        self._ended.set()
        self._thread.join()
        with self._ledger.write() as tx:
            tx.execute(processes.delete().where(processes.c.id == self.id))
            tx.execute(leases.delete().where(leases.c.owner == self.id))

    def _work(self) -> None:
        while not self._ended.wait(SEEN_EVERY):
            try:
                self._give_sign()
            except Exception as error:  # whatever it is, a thread that ends would make this process a dead one
                log.warning("no sign of life could be given: %s", str(error).splitlines()[0])

    def _enter(self, tx: Transaction, now: float) -> None:
        who = {"id": self.id, "type": self._type, "host": socket.gethostname(), "place": here(), "pid": os.getpid()}
        tx.execute(processes.insert().values(**who, started_at=self._started, seen_at=now))

    def _give_sign(self) -> None:
        values = {"note": orjson.dumps(self.note()).decode()} if self.note else {}
        with self._ledger.write() as tx:
            now = tx.now()
            sign = processes.update().where(processes.c.id == self.id)
            if tx.execute(sign.values(seen_at=now, **values)).rowcount == 0:
                self._enter(tx, now)  # it was thought dead, and removed


@dataclass
class _Watch:
    """One process as this one sees it; times of our own monotonic clock, which stands while the machine sleeps."""

    sign: float
    since: float
    looked: float


_watched: dict[str, _Watch] = {}


def is_dead(tx: Transaction, owner: str) -> bool:
    """Tell whether the process of that id has ended: gone, its pid free on this machine, or silent for long.

    Silent is who gave no sign while we looked, again and again. How old the last sign is says nothing after the machine
    slept or the database was away: then all signs are old, our own too.
    """
    row = tx.execute(sa.select(processes).where(processes.c.id == owner)).one_or_none()
    if row is None:
        _watched.pop(owner, None)
        return True
    return _is_gone(row) or _silence(owner, row.seen_at) > _patience(row)


def remove_dead(tx: Transaction) -> list[str]:
    """Forget the processes that have ended without leaving, and their leases; who they were."""
    rows = tx.execute(sa.select(processes)).all()
    dead = [row.id for row in rows if _is_gone(row) or _silence(row.id, row.seen_at) > _patience(row)]
    if dead:
        tx.execute(processes.delete().where(processes.c.id.in_(dead)))
        tx.execute(leases.delete().where(leases.c.owner.in_(dead)))
    for owner in dead:
        _watched.pop(owner, None)
    return dead


def _is_gone(row: sa.Row[Any]) -> bool:
    return row.place == here() and not _pid_lives(row.pid)


def _patience(row: sa.Row[Any]) -> float:
    return DEAD_HERE_AFTER if row.place == here() else DEAD_AFTER


def _silence(owner: str, sign: float) -> float:
    """Return the seconds for which this process has looked at the same sign."""
    now = time.monotonic()
    watch = _watched.get(owner)
    if watch is None or watch.sign != sign or now - watch.looked > _LOOKS_APART:
        watch = _watched[owner] = _Watch(sign, now, now)
    watch.looked = now
    return now - watch.since


def _pid_lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return _state(pid) not in {"Z", "X"}


def _state(pid: int) -> str:
    """Return a letter for what the process does (Z: it ended, its parent has not looked yet); empty where unknown."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return ""


def living(tx: Transaction) -> list[sa.Row[Any]]:
    """Return those with a fresh sign of life, for a caller who looks but once."""
    now = tx.now()
    rows = tx.execute(sa.select(processes).order_by(processes.c.type, processes.c.started_at)).all()
    return [row for row in rows if not _is_gone(row) and now - row.seen_at <= _patience(row)]


def tasks_at_once(tx: Transaction) -> Counter[str]:
    """Count the tasks that the living processes of each type work on, or would if there were more."""
    counts: Counter[str] = Counter()
    for row in living(tx):
        counts[row.type] += int(orjson.loads(row.note or "{}").get(TASKS, 0))
    return counts


def take_lease(tx: Transaction, name: str, owner: str, seconds: float) -> bool:
    """Take or renew a lease; False while another living process holds it."""
    now = tx.now()
    if tx.add_new(leases, {"name": name, "owner": owner, "until": now + seconds}):
        return True
    row = tx.execute(sa.select(leases).where(leases.c.name == name).with_for_update(key_share=True)).one()
    if row.owner != owner and row.until >= now and not is_dead(tx, row.owner):
        return False
    tx.execute(leases.update().where(leases.c.name == name).values(owner=owner, until=now + seconds))
    return True
