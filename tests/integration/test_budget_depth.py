"""A budget that does not suffice for all goes into depth: whole items, and hardly anything for those that are not."""

from pathlib import Path
from typing import Any

import pytest
from inline import World
from journals import journals

PRICE = "1,4"


def lines(count: int, seed: str) -> list[dict[str, Any]]:
    """Documents of 2,000 to 5,000 characters in no order of size, five responses each."""
    found = []
    for n in range(count):
        chars = 2000 + 300 * (7 * n % 11)
        found.append({**journals(1, 5, seed=f"{seed} {n}", chars=(chars, chars))[0], "id": f"{seed}-{n}"})
    return found


@pytest.mark.parametrize("what", ["--max-cost", "--max-tokens"])
def test_half_the_estimate_makes_nearly_half_the_pairs(lrq: World, what: str) -> None:
    """Forty items: the first four tell what one takes; the run stops when what is left is not enough for another."""
    file = lrq.write("half", lines(40, "half"))
    facts = lrq("estimate", file, "--sample", 8, "--json", "--price", PRICE).json()
    half = facts["cost"] / 2 if what == "--max-cost" else round(facts["tokens"] / 2)
    words = (what, str(half), "--price", PRICE)
    stopped = lrq.run(file, *words)
    assert (stopped["state"], stopped["halted_by"]) == ("stopped", "budget")
    assert "another item" in stopped["reason"]
    begun = stopped["items"].get("judging", 0)
    assert stopped["items"]["done"] >= 0.95 * 40 / 2
    assert begun <= 1
    lrq("budget", "half", "--max-cost", "1000", "--max-tokens", str(10**9))
    lrq.work("half")
    done = lrq.status("half")
    assert (done["state"], done["items"]) == ("done", {"done": 40})


def test_a_budget_that_suffices_holds_nothing_back(lrq: World, tmp_path: Path) -> None:
    """Twice the estimate: all is done."""
    file = lrq.write("whole", lines(6, "whole"))
    facts = lrq("estimate", file, "--json", "--price", PRICE).json()
    done = lrq.run(file, "--max-cost", str(facts["cost"] * 2), "--price", PRICE)
    assert (done["state"], done["items"]) == ("done", {"done": 6})
