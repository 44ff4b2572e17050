"""Recipes by name, or from a file of the user's own."""

from pathlib import Path

import pytest

from lrq.domain.errors import UsageError
from lrq.recipes import RECIPES, load_recipe

OWN = """
from __future__ import annotations
from dataclasses import dataclass, replace
from lrq.recipes.longreward import LONGREWARD

@dataclass(frozen=True)
class Note:
    text: str

MINE = replace(LONGREWARD, name="mine")
"""


def test_a_known_recipe_is_found_by_its_name() -> None:
    """The table's names are the recipes' own."""
    assert load_recipe("longreward") is RECIPES["longreward"]
    assert all(name == recipe.name for name, recipe in RECIPES.items())


def test_a_recipe_of_ones_own_is_a_name_in_a_file(tmp_path: Path) -> None:
    """A file may define records of its own, whatever Python needs for them."""
    path = tmp_path / "my_recipe.py"
    path.write_text(OWN)
    assert load_recipe(f"{path}:MINE").name == "mine"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("longrewrd", "", "no recipe 'longrewrd'; there is longreward"),
        ("absent.py:MINE", "", "no recipe file"),
        ("my.py:OTHER", "MINE = 1", "OTHER in .* is no Recipe"),
        ("my.py:MINE", "MINE = 1", "MINE in .* is no Recipe"),
        ("my.py:MINE", "import nowhere_to_be_found", "fails on loading: ModuleNotFoundError"),
        ("my.py:MINE", "def (", "fails on loading: SyntaxError"),
    ],
)
def test_what_cannot_be_loaded_says_so_in_one_line(tmp_path: Path, name: str, content: str, message: str) -> None:
    """The user reads which file, which name and what is wrong."""
    (tmp_path / "my.py").write_text(content)
    if ":" in name:
        name = str(tmp_path / name)
    with pytest.raises(UsageError, match=message) as raised:
        load_recipe(name)
    assert "\n" not in str(raised.value)
