"""A run's frozen configuration: what is in it, what never is, and which judge it names."""

import dataclasses
from types import SimpleNamespace
from typing import Any

import orjson
import pytest

from lrq.config import Endpoint, JudgeSettings, PolicySettings, Price, RoleSettings, Settings, TrainSchedule
from lrq.domain.errors import UsageError
from lrq.domain.tokens import TOKEN_RULE
from lrq.recipes import RECIPES
from lrq.run_config import load_run_config, snapshot_config
from lrq.trainer.loss_names import loss_settings
from lrq.workers import sampler

KEY = "sk-secret-of-mine"


def endpoint(name: str = "default", model: str = "m", **fields: Any) -> Endpoint:
    return Endpoint(name=name, url=f"http://user:{KEY}@{name}:1/v1", model=model, **fields)


def settings(*endpoints: Endpoint, **fields: Any) -> Settings:
    return Settings(judge=JudgeSettings(endpoints=endpoints or (endpoint(),), **fields.pop("judge", {})), **fields)


def test_all_that_results_depend_on_is_frozen() -> None:
    """Prompt texts, token rule, models, the recipe's settings, sampling and loss."""
    found = snapshot_config(settings(), train=True)
    recipe = RECIPES["longreward"]
    assert found["prompts"] == recipe.prompt_texts()
    assert found["tokens"] == TOKEN_RULE
    assert found["judge"]["models"] == [{"endpoint": "default", "model": "m", "extra": {}, "identity": "default:1/v1"}]
    assert found["settings"]["min_scored"] == 5
    assert found["sample"]["responses"] == 10
    assert found["train"]["beta"] == 0.15
    assert snapshot_config(settings(), train=False)["train"] is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("passages", "abc"),
        ("passages", 2.5),
        ("passages", 0),
        ("passages", -3),
        ("passages", None),
        ("passages", True),
        ("min_margin", "wide"),
        ("min_margin", -0.1),
        ("batch_statements", "maybe"),
        ("batch_statements", 1),
    ],
)
def test_a_value_that_the_recipe_cannot_use_is_refused(name: str, value: Any) -> None:
    """Before anything is paid, not when the rewards are made of what was."""
    with pytest.raises(UsageError, match=rf"settings\.{name} is .*, not {value!r}"):
        snapshot_config(settings(settings={name: value}), train=False)


def test_values_that_fit_are_frozen() -> None:
    """Whole numbers do for fractions, and zero where it is the default."""
    told = {"passages": 1, "min_margin": 0, "min_scored": 2, "batch_statements": True}
    frozen = snapshot_config(settings(settings=told), train=False)["settings"]
    assert {name: frozen[name] for name in told} == told


@pytest.mark.parametrize(
    ("dimensions", "said"),
    [
        ({"faithfullness": "default"}, "no dimension 'faithfullness'; it has helpfulness"),
        ({"faithfulness": "strong"}, "no judge endpoint is named 'strong'.*there is default"),
    ],
)
def test_a_dimension_or_judge_that_is_not_there_is_refused(dimensions: dict[str, str], said: str) -> None:
    """A run that has frozen it could not be judged, nor mended."""
    with pytest.raises(UsageError, match=said):
        snapshot_config(settings(judge={"dimensions": dimensions}), train=False)


def test_runs_with_other_models_behind_one_server_have_policies_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run is sampled from the model it has frozen, whatever was sampled before."""
    monkeypatch.setattr(sampler, "_policies", {})
    asked = []
    for model in ("small", "large", "large"):
        told = settings(policy=PolicySettings(endpoints=(Endpoint(url="http://policy:1/v1", model=model),)))
        config = snapshot_config(told, train=False)
        worker: Any = SimpleNamespace(settings=told, caller=None)
        asked.append(sampler._policy(worker, load_run_config("longreward", config)))
    assert asked[0].fingerprint != asked[1].fingerprint
    assert asked[1] is asked[2]


def test_it_survives_the_ledger_unchanged() -> None:
    """It is kept as JSON, and compared after that."""
    found = snapshot_config(settings(embedding=RoleSettings(url="http://e/v1", model="e")), train=True)
    assert orjson.loads(orjson.dumps(found)) == found


def test_no_secret_url_or_limit_is_part_of_it() -> None:
    """They may change while the run goes on, and the ledger is no place for keys. Prices go along, apart."""
    plain = snapshot_config(settings(), train=True)
    told = settings(
        endpoint(api_key=KEY, rpm=5, price=Price(input=1.0), timeout=3.0),
        redis_url=f"redis://:{KEY}@h/0",
        database_url=f"postgresql+psycopg://u:{KEY}@h/d",
        judge_threads=2,
    )
    frozen = snapshot_config(told, train=True)
    assert frozen["prices"] == {"judge default m": {"input": 1.0, "output": 0.0, "cached": 1.0}}
    assert {**frozen, "prices": plain["prices"]} == plain
    assert KEY.encode() not in orjson.dumps(plain)
    assert b"http" not in orjson.dumps(plain["judge"])


def test_a_setting_the_recipe_does_not_know_is_an_error_that_lists_what_it_does() -> None:
    """A typo must not run with the default."""
    with pytest.raises(UsageError, match=r"settings.min_scord: .*mean settings.min_scored"):
        snapshot_config(settings(settings={"min_scord": 3}), train=False)


def test_own_values_go_over_the_recipe_s() -> None:
    """For settings, samples and loss."""
    own = settings(settings={"min_scored": 3}, sample={"responses": 4}, train={"beta": 0.3, "every_rows": 8})
    found = snapshot_config(own, train=True)
    assert (found["settings"]["min_scored"], found["sample"]["responses"], found["train"]["beta"]) == (3, 4, 0.3)
    assert load_run_config("longreward", found).schedule == TrainSchedule(every_rows=8)


def test_steps_know_their_queues_and_dimensions_their_steps() -> None:
    """As the recipe says."""
    frozen = load_run_config("longreward", snapshot_config(settings(), train=False))
    assert frozen.steps["faithfulness"] == "judge.faithfulness"
    assert frozen.step_of == {name: name for name in frozen.steps}
    assert frozen.schedule is None


def test_a_dimension_s_own_judge_is_asked_for_it_alone() -> None:
    """The others go to whoever serves them."""
    two = settings(endpoint("a"), endpoint("b", "n"), judge={"dimensions": {"faithfulness": "b"}})
    frozen = load_run_config("longreward", snapshot_config(two, train=False))
    assert {frozen.judge_of("faithfulness", f"prompt {n}").model for n in range(50)} == {"n"}


def test_among_several_judges_the_prompt_decides() -> None:
    """The same question meets the same judge, whoever asks; different ones are spread."""
    frozen = load_run_config("longreward", snapshot_config(settings(endpoint("a"), endpoint("b")), train=False))
    asked = [frozen.judge_of("helpfulness", f"prompt {n}").endpoint for n in range(200)]
    assert asked == [frozen.judge_of("helpfulness", f"prompt {n}").endpoint for n in range(200)]
    assert 60 < asked.count("a") < 140


def test_a_dimension_whose_judge_is_missing_is_a_usage_error() -> None:
    """It names both."""
    config = snapshot_config(settings(), train=False)
    config["judge"]["dimensions"] = {"logicality": "gone"}
    frozen = load_run_config("longreward", config)
    with pytest.raises(UsageError, match="'gone' for logicality"):
        frozen.judge_of("logicality", "p")


def test_a_frozen_run_reads_its_own_prompts() -> None:
    """Texts that a later release changes are used as they were stored."""
    config = snapshot_config(settings(), train=False)
    config["prompts"] = config["prompts"] | {"en/helpfulness": "old words"}
    frozen = load_run_config("longreward", config)
    assert frozen.config["prompts"]["en/helpfulness"] == "old words"
    with pytest.raises(dataclasses.FrozenInstanceError):
        frozen.config = {}  # type: ignore[misc]


PAIRED = ("dpo", "dpo+sft", "longpo", "orpo", "simpo", "hinge")


@pytest.mark.parametrize(
    ("recipe", "allowed"),
    [
        ("longreward", {*PAIRED, "sppo", "sft"}),  # responses with rewards: win rates are made of them
        ("sppo", {*PAIRED, "sppo", "sft"}),
        ("longpo", {*PAIRED, "sft"}),
        ("janus", {*PAIRED, "sft"}),
        ("rubric", {"sft"}),  # demonstrations
    ],
)
@pytest.mark.parametrize("loss", [*PAIRED, "sppo", "sft"])
def test_a_loss_that_reads_what_the_rows_lack_is_refused_at_once(recipe: str, allowed: set[str], loss: str) -> None:
    """Nothing is asked or paid for rows that could not be trained on; the reason names what is missing."""
    wanted = settings(recipe=recipe, train=loss_settings(loss))
    if loss in allowed:
        assert snapshot_config(wanted, train=True)["train"]["loss_type"] == loss_settings(loss)["loss_type"]
        return
    lacking = "'p_w'" if recipe != "rubric" else "'rejected'"
    with pytest.raises(UsageError, match=f"rows of recipe {recipe} have no .*{lacking}"):
        snapshot_config(wanted, train=True)
