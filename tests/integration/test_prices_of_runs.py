"""A run's price goes with it: workers that were started without one keep its budget all the same."""

import os
from pathlib import Path

import pytest
from inline import World
from journals import journals

from lrq.config import Endpoint, JudgeSettings, Price, Settings
from lrq.run_config import prices


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
    with lrq.ledger() as ledger, ledger.write() as tx:
        tx.connection.exec_driver_sql("UPDATE runs SET config = replace(config, '\"prices\"', '\"others\"')")
    lrq.work("items")
    paused = lrq.status("items")
    assert paused["state"] == "paused"
    assert "--price" in paused["reason"]
    assert paused["money"]["spent"] == 0


def test_of_a_pool_the_most_is_told_and_nothing_where_a_server_has_no_price(home: Path) -> None:
    """Whoever answers, the bound covers it; a published price is found where the call is made."""
    dear, cheap = Price(input=10, output=1), Price(input=1, output=5, cached=0.5)

    def told(*each: Price | None) -> dict[str, object]:
        servers = (Endpoint(url=f"http://{n}/v1", model="m", price=price) for n, price in enumerate(each))
        return prices(Settings(home=home, judge=JudgeSettings(endpoints=tuple(servers))))

    assert told(dear, cheap) == {"judge default m": {"input": 10.0, "output": 5.0, "cached": 10.0}}
    assert told(dear, None) == {}


def test_a_cap_asks_for_the_price_of_every_endpoint(lrq: World) -> None:
    """An embedding server of one's own is told to cost nothing; a price told before need not be told again."""
    embedding = ("--set", "embedding.url=http://127.0.0.1:9/v1", "--set", "embedding.model=e")
    file = lrq.write("items", journals(1, 3))
    words = ("enqueue", file, "--no-train", "--max-cost", "5", *embedding)
    assert "embedding.price" in lrq(*words, "--price", "1,2", code=2).err
    lrq(*words, "--price", "1,2", "--set", "embedding.price.input=0")
    lrq(*words, "--set", "embedding.price.input=0")
