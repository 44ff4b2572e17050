"""SECURITY.md and its design note name tests that are there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("page", ["SECURITY.md", "docs/design/security.md"])
def test_every_test_that_is_named_exists(page: str) -> None:
    """A promise without its test is none."""
    named = re.findall(r"`(tests/[\w/]+\.py)`", (ROOT / page).read_text(encoding="utf-8"))
    assert len(named) > 10
    assert [name for name in named if not (ROOT / name).is_file()] == []


def test_every_promise_names_a_test() -> None:
    """Each row of the table ends in one."""
    promises = (ROOT / "SECURITY.md").read_text(encoding="utf-8").partition("| promise | tests |")[2]
    rows = [line for line in promises.partition("\n\n")[0].splitlines() if line.startswith("| ") and "---" not in line]
    assert len(rows) > 15
    assert [row for row in rows if "`tests/" not in row] == []
