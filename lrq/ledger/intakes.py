"""Which processes read files into runs: a run whose reader has died must not wait for its lines for ever."""

from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa

from lrq.ledger import runs as runs_
from lrq.ledger.engine import Ledger
from lrq.ledger.processes import Presence, is_dead
from lrq.ledger.schema import leases, runs
from lrq.ledger.transaction import Transaction

# Values of runs.ingesting: no line comes any more, a process reads the file, or a pilot has left the rest for later.
WHOLE, READING, PILOT = range(3)

INTERRUPTED = "interrupted"  # runs.halt of a run that was paused for it
_AS_LONG_AS_IT_LIVES = 1e9  # seconds: whether a reader lives is looked up among the processes


@contextmanager
def reader(ledger: Ledger) -> Iterator[str]:
    """Enter this process among the living for as long as it reads a file; yields its id."""
    presence = Presence(ledger, "reader")
    try:
        yield presence.id
    finally:
        presence.close()


def begin(tx: Transaction, run: int, reader_id: str) -> None:
    """Note that a process adds lines to the run, which cannot end meanwhile."""
    until = tx.now() + _AS_LONG_AS_IT_LIVES
    tx.execute(leases.insert().values(name=_lease(run, reader_id), owner=reader_id, until=until))
    tx.execute(runs.update().where(runs.c.id == run).values(ingesting=READING))
    paused = runs.update().where(runs.c.id == run, runs.c.halt == INTERRUPTED)
    tx.execute(paused.values(state="active", halt="", reason=""))


def end(tx: Transaction, run: int, reader_id: str) -> None:
    """Note that a process has added its last line; where it was the last reader, the run may end."""
    tx.execute(leases.delete().where(leases.c.name == _lease(run, reader_id)))
    if not is_read(tx, run):
        tx.execute(runs.update().where(runs.c.id == run).values(ingesting=WHOLE))


def is_interrupted(tx: Transaction, run: int) -> bool:
    """Say whether the run's file was not read to its end, and nobody reads it any more."""
    reading = tx.execute(sa.select(runs.c.ingesting).where(runs.c.id == run)).scalar() == READING
    return reading and not is_read(tx, run)


def advice(name: str) -> str:
    """Say what to do about a run whose file was not read to its end."""
    return (
        "its file was not read to the end, for the command that read it was stopped: the same command adds the rest, "
        f"`lrq resume {name}` goes on with the items there are"
    )


def pause_interrupted(tx: Transaction) -> list[str]:
    """Pause active runs that wait for lines which nobody reads any more; returns their names."""
    waiting = sa.select(runs.c.id, runs.c.name).where(runs.c.ingesting == READING, runs.c.state == "active")
    names = []
    for row in tx.execute(waiting).all():
        if is_interrupted(tx, row.id):
            runs_.halt(tx, row.id, state="paused", by=INTERRUPTED, reason=advice(row.name))
            names.append(row.name)
    return names


def _lease(run: int, reader_id: str) -> str:
    return f"reads {run} {reader_id[:16]}"


def is_read(tx: Transaction, run: int) -> bool:
    owners = tx.execute(sa.select(leases.c.owner).where(leases.c.name.startswith(f"reads {run} "))).scalars()
    return any(not is_dead(tx, owner) for owner in owners.all())
