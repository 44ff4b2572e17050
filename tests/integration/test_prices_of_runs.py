"""A run's price goes with it: workers that were started without one keep its budget all the same."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import RedisServer
from inline import Judge, World, world
from journals import journals

from lrq.sim.options import Options


@pytest.fixture(scope="module")
def judge() -> Iterator[Judge]:
    made = Judge(Options())
    yield made
    made.close()


@pytest.fixture
def lrq(tmp_path: Path, redis_server: RedisServer, judge: Judge, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    with world(tmp_path, redis_server.url, judge, monkeypatch) as made:
        yield made


def enqueue(lrq: World, *words: str) -> None:
    """From a shell with these options; the workers' own shell knows nothing of them."""
    lrq("enqueue", lrq.write("items", journals(2, 3)), "--no-train", *words)
    os.environ["LRQ_OVERRIDES"] = "{}"


def test_workers_elsewhere_know_the_price(lrq: World) -> None:
    """Tokens times price, as if it stood in their settings."""
    enqueue(lrq, "--price", "3,5")
    lrq.work("items")
    run = lrq.status("items")
    assert run["money"]["unpriced_calls"] == 0
    tokens = run["calls"]["prompt_tokens"], run["calls"]["completion_tokens"]
    assert run["money"]["spent"] == pytest.approx((3 * tokens[0] + 5 * tokens[1]) / 1e6)


def test_a_cap_holds_where_only_the_run_knows_the_price(lrq: World) -> None:
    """It stops under the cap; enqueued again with another price, it goes by that from then on."""
    enqueue(lrq, "--price", "1000,1000", "--max-cost", "20")
    lrq.work("items")
    stopped = lrq.status("items")
    assert stopped["state"] == "stopped"
    assert 0 < stopped["money"]["spent"] <= 20
    enqueue(lrq, "--price", "1,1")
    lrq("budget", "items", "--max-cost", "21")
    lrq.work("items")
    done = lrq.status("items")
    assert done["state"] == "done"
    assert done["money"]["spent"] < 21


def test_a_capped_run_that_no_worker_can_price_is_paused(lrq: World) -> None:
    """Told by nobody: not a call is made, and the reason says what to do."""
    enqueue(lrq, "--price", "1,2", "--max-cost", "5")
    with lrq.ledger() as ledger, ledger.writing() as conn:
        conn.exec_driver_sql("UPDATE runs SET config = replace(config, '\"prices\"', '\"others\"')")
    lrq.work("items")
    paused = lrq.status("items")
    assert paused["state"] == "paused"
    assert "--price" in paused["reason"]
    assert paused["money"]["spent"] == 0
