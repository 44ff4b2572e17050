"""How a run's latest calls went, as the ledger has them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ledgers import BOTH, opened, some_ledger

from lrq.ledger import Ledger, pace
from lrq.ledger.pace import pace_of
from lrq.ledger.runs import create_run
from lrq.ledger.schema import calls


@pytest.fixture(params=BOTH)
def ledger(request: pytest.FixtureRequest, home: Path) -> Iterator[Ledger]:
    with some_ledger(request, home) as settings, opened(settings) as made:
        yield made


def add(ledger: Ledger, run: int, *rows: dict[str, Any]) -> None:
    """Add calls that were settled as many seconds ago as `ago` says."""
    with ledger.write() as tx:
        now = tx.now()
        taken = len(tx.execute(calls.select()).all())
        known = {"run_id": run, "role": "judge", "endpoint": "e", "model": "m", "owner": "o", "claimed_at": now}
        for number, row in enumerate(rows, taken):
            values = {"state": "done", "deliveries": 1, "key": f"key-{number}", **known, **row}
            tx.execute(calls.insert().values(settled_at=now - values.pop("ago", 30.0), **values))


def new_run(ledger: Ledger, name: str) -> int:
    with ledger.write() as tx:
        return create_run(tx, name, {"recipe": "longreward"}).id


def test_latency_rate_and_errors_are_those_of_the_run(ledger: Ledger) -> None:
    """20 replies of 0.1 to 2 s, one of them a re-ask and one at the third delivery; two that failed."""
    run, other = new_run(ledger, "a"), new_run(ledger, "b")
    add(ledger, run, *({"latency_ms": 100 * n} for n in range(1, 19)))
    add(ledger, run, {"latency_ms": 1900, "attempt": 1}, {"latency_ms": 2000, "deliveries": 3})
    add(ledger, run, {"state": "failed", "error": "refused", "reason": "HTTP 400: no"}, {"state": "unknown"})
    add(ledger, other, {"latency_ms": 90_000, "attempt": 2})
    with ledger.read() as tx:
        found = pace_of(tx, run)
    assert (found.calls, found.latency_p50, found.latency_p95) == (22, 1.1, 2.0)
    assert (found.reasks, found.resent) == (1, 2)
    assert found.errors == {"refused (HTTP 400)": 1, "unknown": 1}
    assert found.per_second == pytest.approx(20 / 30, rel=0.1)


def test_only_the_newest_calls_are_looked_at(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that asking costs the same for any size of run; replies of long ago give no rate."""
    monkeypatch.setattr(pace, "NEWEST", 3)
    run = new_run(ledger, "a")
    add(ledger, run, *({"latency_ms": 1000 * n, "ago": 500.0} for n in range(1, 6)))
    with ledger.read() as tx:
        found = pace_of(tx, run)
    assert (found.calls, found.latency_p50, found.latency_p95, found.per_second) == (3, 4.0, 5.0, None)


def test_a_run_without_calls_has_no_pace(ledger: Ledger) -> None:
    """Nothing is made up."""
    run = new_run(ledger, "a")
    with ledger.read() as tx:
        assert pace_of(tx, run) == pace.Pace()
