"""One module per paper; a new one is a module and a line in RECIPES."""

import sys
from collections.abc import Mapping
from hashlib import sha256
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

from lrq.domain.errors import UsageError
from lrq.recipes.janus import JANUS
from lrq.recipes.judge import Judge, Kind
from lrq.recipes.longpo import LONGPO
from lrq.recipes.longreward import LONGREWARD
from lrq.recipes.ports import Case
from lrq.recipes.recipe import Recipe, Step, simple
from lrq.recipes.rubric import EVALYAKS, RUBRIC
from lrq.recipes.sppo import SPPO

__all__ = ["RECIPES", "Case", "Judge", "Kind", "Recipe", "Step", "code_hash", "load_recipe", "simple"]

RECIPES: Mapping[str, Recipe] = {
    "longreward": LONGREWARD,
    "longpo": LONGPO,
    "janus": JANUS,
    "rubric": RUBRIC,
    "sppo": SPPO,
    **EVALYAKS,
}


def load_recipe(name: str) -> Recipe:
    """Return the recipe `name`, or the one called NAME in a file, for `my_recipe.py:NAME`. Raises UsageError."""
    if name in RECIPES:
        return RECIPES[name]
    path, colon, attribute = name.rpartition(":")
    if not colon or not path.endswith(".py"):
        raise UsageError(
            f"no recipe {name!r}; there is {', '.join(RECIPES)}, or name one of yours as my_recipe.py:NAME"
        )
    recipe = _attribute(Path(path), attribute)
    if not isinstance(recipe, Recipe):
        raise UsageError(f"{attribute} in {path} is no Recipe; name one as my_recipe.py:NAME")
    return recipe


def code_hash(name: str) -> str:
    """Return the SHA-256 of the module in which the recipe `name` stands; raises UsageError where there is none."""
    module = "rubric" if name in EVALYAKS else name
    path = Path(__file__).with_name(f"{module}.py") if name in RECIPES else Path(name.rpartition(":")[0])
    try:
        return sha256(path.read_bytes()).hexdigest()
    except OSError:
        raise UsageError(f"no recipe file {path}; give the path of a Python file before the colon") from None


def _attribute(path: Path, attribute: str) -> object:
    if not path.is_file():
        raise UsageError(f"no recipe file {path}; give the path of a Python file before the colon")
    spec = spec_from_file_location(f"lrq_recipe_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise UsageError(f"{path} cannot be loaded as Python")
    module = module_from_spec(spec)
    sys.modules[spec.name] = module  # records defined in the file look their module up
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # whatever a user's file does wrong, its first line tells
        raise UsageError(
            f"{path} fails on loading: {type(error).__name__}: {str(error).partition(chr(10))[0]}"
        ) from error
    return getattr(module, attribute, None)
