"""What a recipe does unless it is told otherwise is what its paper did."""

import json
from pathlib import Path
from typing import Any

import pytest

from lrq.config import SampleSettings
from lrq.domain.records import Item
from lrq.recipes import RECIPES
from lrq.recipes.janus import JANUS
from lrq.recipes.longpo import LONGPO
from lrq.recipes.ports import Case
from lrq.run_config import SCHEDULE
from lrq.trainer.job import make_job
from lrq.trainer.loss_names import loss_settings

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "defaults.json").read_text(encoding="utf-8"))
NAMES = sorted(GOLDEN.keys() - {"source"})


@pytest.mark.parametrize("name", NAMES)
def test_a_training_has_the_papers_values(name: str) -> None:
    """Those that the recipe leaves to the trainer, too."""
    loss = dict(RECIPES[name].loss)
    files = dict.fromkeys(("model", "rows", "output"), Path())
    job = make_job({**files, **{key: value for key, value in loss.items() if key not in SCHEDULE}})
    trained = {**json.loads(job.model_dump_json()), **{key: loss[key] for key in SCHEDULE if key in loss}}
    expected: dict[str, Any] = GOLDEN[name]["train"]
    adapter = expected.get("adapter", {})
    assert {key: trained[key] for key in expected if key != "adapter"} == {
        key: value for key, value in expected.items() if key != "adapter"
    }
    assert {key: trained["adapter"][key] for key in adapter} == adapter


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_has_the_papers_settings(name: str) -> None:
    expected = GOLDEN[name]["settings"]
    assert {key: RECIPES[name].settings[key] for key in expected} == expected


def test_the_losses_of_janus_by_name() -> None:
    """ORPO with its alpha of 0.1, DPO with the beta that its tool has where none is set."""
    orpo = loss_settings("orpo")
    assert (orpo["loss_type"], orpo["beta"]) == (["orpo"], 0.1)
    assert JANUS.loss["beta"] == 0.1


def test_questions_and_answers_are_drawn_as_published() -> None:
    """LongPO's questions at 0.7 and top-p 0.9, its answers greedy; Janus' at 1.0 and 0.9; 1,024 tokens each.

    LongPO's documents are shorter than the window: none is cut.
    """
    context = "One two three four."
    item = Item(id="1", context=context, question="?", fields={})
    settings = {**LONGPO.settings, "least_chunk_tokens": 1, "chunk_tokens": 50}
    (asked,) = LONGPO.prompts(Case(item=item, texts=LONGPO.prompt_texts(), settings=settings))
    assert asked.sampling == {"temperature": 0.7, "top_p": 0.9, "max_new_tokens": 1024}
    brought = Item(id="1", context=context, fields={"questions": ["What?"], "short_contexts": ["One two"]})
    short, long = LONGPO.prompts(Case(item=brought, texts=LONGPO.prompt_texts(), settings=settings))
    assert short.sampling == long.sampling == {"temperature": 0.0, "over_long": "refuse"}
    assert SampleSettings().max_new_tokens == 1024
    told = Item(id="1", question="What?", fields={"system": ["Be brief."]})
    (answer,) = JANUS.prompts(Case(item=told, texts=JANUS.prompt_texts(), settings=JANUS.settings))
    assert answer.sampling == {"temperature": 1.0, "top_p": 0.9, "max_new_tokens": 1024}
