"""`lrq recipe check`: a recipe is played on a few items, and nothing is sent."""

from pathlib import Path

import pytest
from inline import Judge, World

from lrq.recipes import RECIPES

EXAMPLES = Path(__file__).parents[2] / "examples" / "recipes"
NAMES = {"controls": ("LONGREWARD", "SPPO", "LONGPO")}  # of files with several recipes
OF_USERS = [
    f"{path}:{name}" for path in sorted(EXAMPLES.glob("*.py")) for name in NAMES.get(path.stem, [path.stem.upper()])
]


@pytest.mark.parametrize("name", [*RECIPES, *OF_USERS])
def test_every_recipe_that_comes_along_plays(lrq: World, judge: Judge, name: str) -> None:
    """Prompts are made, judged and turned into rewards and rows; the server hears nothing."""
    facts = lrq("recipe", "check", name, "--json").json()
    (item,) = facts["items"]
    assert item["responses"] >= 1
    assert item["rows"] or item["reasons"]
    assert judge.stats()["received"] == 0


BROKEN = """
from lrq.recipes import Recipe, simple
NO_TEXT = Recipe(name="r", steps=(simple("wit"),))
BAD_ROWS = Recipe(name="r", steps=(), rows=lambda case, rewards: 1 / 0)
BAD_PROMPTS = Recipe(name="r", prompts=lambda case: case.nonesuch)
"""


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("NO_TEXT", "KeyError in its prompts or steps: \"the recipe has no prompt text 'en/wit'\""),
        ("BAD_ROWS", "ZeroDivisionError in its rewards or rows"),
        ("BAD_PROMPTS", "AttributeError in its prompts or steps"),
    ],
)
def test_what_is_wrong_with_a_recipe_is_one_line(lrq: World, name: str, says: str) -> None:
    path = lrq.folder / "mine.py"
    path.write_text(BROKEN)
    said = lrq("recipe", "check", f"{path}:{name}", code=1)
    assert says in said.err
    assert said.err.count("\n") == 1


def test_items_of_ones_own_are_played(lrq: World) -> None:
    items = lrq.write("items", [{"id": f"{n}", "question": "Why?", "responses": ["a", "b"]} for n in range(9)])
    played = lrq("recipe", "check", f"{EXAMPLES / 'wit.py'}:WIT", "--items", items, "--json").json()["items"]
    assert [(item["id"], item["scores"]) for item in played] == [("0", 2), ("1", 2), ("2", 2)]
