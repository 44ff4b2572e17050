"""What holds for every recipe that comes with lrq."""

import json

import pytest

from lrq.config import Settings
from lrq.recipes import RECIPES
from lrq.recipes.recipe import Recipe
from lrq.recipes.templates import placeholders
from lrq.run_config import snapshot_config
from lrq.trainer.job import TrainJob
from lrq.workers.trainer import train_settings


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_its_settings_and_loss_survive_being_frozen(recipe: Recipe) -> None:
    frozen = snapshot_config(Settings(recipe=recipe.name), train=True)
    assert json.loads(json.dumps(frozen)) == frozen
    assert frozen["prompts"] == recipe.prompt_texts()


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_its_loss_is_one_that_the_trainer_knows(recipe: Recipe) -> None:
    job = TrainJob.model_validate({"model": "m", "rows": "r", "output": "o", **train_settings(recipe.loss)})
    assert len(job.loss_type) == len(job.loss_weights)


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_its_texts_stand_in_both_languages_with_the_same_placeholders(recipe: Recipe) -> None:
    texts = recipe.prompt_texts()
    english = {name.removeprefix("en/") for name in texts if name.startswith("en/")}
    assert english == {name.removeprefix("zh/") for name in texts if name.startswith("zh/")}
    assert all(placeholders(texts[f"en/{name}"]) == placeholders(texts[f"zh/{name}"]) for name in english)


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_every_kind_of_prompt_has_a_text(recipe: Recipe) -> None:
    assert {f"en/{kind}" for kind in recipe.kinds} <= recipe.prompt_texts().keys()


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_each_of_its_settings_is_described(recipe: Recipe) -> None:
    assert recipe.described.keys() == recipe.settings.keys()
