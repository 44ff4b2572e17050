"""Items that their user leaves out: they cost nothing more, and the run comes to its end without them."""

from pathlib import Path

import pytest
import sqlalchemy as sa
from inline import World
from journals import journals

from lrq.ledger import runs
from lrq.ledger.schema import calls


def pause(lrq: World, path: Path) -> None:
    lrq("enqueue", path, "--no-train")
    lrq("pause", path.stem)


def test_an_item_that_is_left_out_costs_nothing_more(lrq: World) -> None:
    """It fails with the reason; the others are judged as ever, and `--failed` does not bring it back."""
    path = lrq.write("items", journals(3, 2))
    pause(lrq, path)
    said = lrq("resume", "items", "--skip", "item-01", "--detach").err
    assert said.splitlines() == ["item item-01 is left out", "run items is active; `lrq up` goes on with it"]
    lrq.work("items")
    status = lrq.status("items")
    assert (status["state"], status["items"]) == ("done", {"done": 2, "failed": 1})
    assert "item item-01: left out by the user" in lrq("status", "items", "--failed").out
    with lrq.ledger() as ledger, ledger.read() as tx:
        asked = set(tx.execute(sa.select(calls.c.item_id)).scalars())
    assert len(asked) == 2
    lrq("resume", "items", "--failed", "--detach")
    assert lrq.status("items")["items"] == {"done": 2, "failed": 1}


def test_several_items_may_be_left_out_and_the_last_one_ends_the_run(lrq: World) -> None:
    """One of them twice."""
    path = lrq.write("items", journals(2, 2))
    pause(lrq, path)
    skips = [word for name in ("item-00", "item-01", "item-01") for word in ("--skip", name)]
    assert "run items is done\n" in lrq("resume", "items", *skips, "--detach").err
    assert lrq.status("items")["state"] == "done"
    assert lrq.status("items")["items"] == {"failed": 2}


@pytest.mark.parametrize(
    ("item", "state", "words"),
    [("nobody", "paused", "no item 'nobody'"), ("item-00", "done", "is done"), ("item-00", "active", "`lrq pause")],
)
def test_what_cannot_be_left_out_is_said(lrq: World, item: str, state: str, words: str) -> None:
    """An item that is not there or done, and a run that is at work."""
    path = lrq.write("items", journals(1, 2))
    if state == "done":
        lrq.run(path)
    else:
        lrq("enqueue", path, "--no-train")
    if state == "paused":
        lrq("pause", "items")
    said = lrq("resume", "items", "--skip", item, "--detach", code=2)
    assert words in said.err
    with lrq.ledger() as ledger, ledger.read() as tx:
        assert runs.get_run(tx, "items").state == state
