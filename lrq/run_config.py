"""A run's frozen configuration: made once from the settings, read by every worker ever after."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from lrq.config import Endpoint, Price, Settings, TrainSchedule
from lrq.config_errors import unknown_setting
from lrq.domain.errors import UsageError
from lrq.domain.records import Item, Prompt, Response, Role, Score
from lrq.domain.tokens import TOKEN_RULE
from lrq.judge.asking import JudgeModel
from lrq.policy.folder import find, fingerprint
from lrq.queue.routes import step_queue
from lrq.recipes import RECIPES, code_hash, load_recipe
from lrq.recipes.ports import Case
from lrq.recipes.recipe import Recipe
from lrq.trainer.files import find_rows
from lrq.trainer.job import TrainJob
from lrq.trainer.loss_names import DEFAULT_LOSS, SUMS, lack

_OF_MODEL = ("endpoint", "model", "extra", "identity", "api")  # a run frozen by an earlier release has no identity
SCHEDULE = TrainSchedule.model_fields.keys()  # of the train section: ours, the rest is the trainer's
# What it may hold: which models are trained on which rows is the rounds' affair.
TRAINING = (TrainJob.model_fields.keys() - {"model", "reference_model", "rows", "output"}) | SCHEDULE
PRICED: tuple[Role, ...] = ("judge", "teacher", "embedding", "policy")


def snapshot_config(settings: Settings, *, train: bool) -> dict[str, Any]:
    """Return everything a run's results depend on, as JSON; no secret and no limit, and of URLs the address.

    `train`: whether the run trains; without it the section is None. Raises UsageError for settings that do not exist,
    have no such value, or do not go together.
    """
    recipe = load_recipe(settings.recipe)
    for name in sorted(settings.settings.keys() - recipe.settings.keys()):
        raise unknown_setting(("settings", name), recipe.settings)
    for name in sorted(settings.train.keys() - TRAINING) if train else ():
        raise unknown_setting(("train", name), TRAINING)
    for name, value in settings.settings.items():
        _check_value(name, value, recipe.settings[name], recipe.choices.get(name, ()))
    _check_dimensions(settings, recipe)
    _check_judges(settings, recipe)
    values = json.loads(json.dumps({**recipe.settings, **settings.settings}))  # keys of YAML may be numbers: here texts
    try:
        recipe.check(values)
    except ValueError as error:
        raise UsageError(str(error)) from None
    loss = {**recipe.loss, **settings.train} if train else None
    if loss and loss.get("adapter") == "lora" and "adapter" in recipe.loss:
        loss["adapter"] = recipe.loss["adapter"]
    if loss and loss.get("also"):
        loss["also"] = str(find_rows(Path(loss["also"])))  # workers may have another working directory
    schedule_of(loss)
    if loss is not None:
        _check_loss(recipe, values, loss)
    sample = settings.sample.model_dump()
    sample["responses"] = sample["responses"] or values.get("responses", 1)
    sample["choose_cut"] = sample["choose_cut"] or None  # as in runs of before that know no such setting
    return {
        "recipe": settings.recipe,
        "code": code_hash(settings.recipe),
        "settings": values,
        "prompts": recipe.prompt_texts(),
        "tokens": TOKEN_RULE,
        "embedding": _models(settings, "embedding"),
        "sample": sample,
        "train": loss,
        **named(settings),
    }


def schedule_of(train: Mapping[str, Any] | None) -> TrainSchedule | None:
    """Return when the `train` section says that it trains, and how often; None for no training. Raises UsageError."""
    if train is None:
        return None
    try:
        return TrainSchedule(**{name: value for name, value in train.items() if name in SCHEDULE})
    except ValidationError as error:
        first = error.errors()[0]
        raise UsageError(f"train.{first['loc'][0]}: {first['msg']}, not {first['input']!r}") from None


def check_rounds(config: Mapping[str, Any]) -> None:
    """Refuse rounds whose policy nobody could sample: no server knows the model of the round before.

    `config` is what `snapshot_config` returned. Raises UsageError.
    """
    schedule, policy = schedule_of(config["train"]), config["policy"]
    if schedule and schedule.rounds > 1 and policy["models"] and not policy["path"]:
        raise UsageError(
            f"{schedule.rounds} rounds are asked for, and the policy is behind a URL, where no server has the model "
            "that a round makes: set policy.path (LRQ_POLICY) to its folder, and policy.serve to a command that starts "
            "a server on one; or --rounds 1 and --no-train"
        )


_SORTS = {bool: "yes or no", int: "a whole number", float: "a number", str: "a text"}


def _check_value(name: str, value: Any, default: Any, choices: Collection[str] = ()) -> None:
    """Refuse a setting of another type than its default, before anything is paid. Raises UsageError."""
    if default is None:
        return
    sort = type(default)
    fits = type(value) in ((int, float) if sort is float else (sort,))
    least = min(default, 1 if sort is int else 0) if sort in (int, float) else None
    if not fits or (least is not None and value < least):
        what = _SORTS.get(sort, f"a {sort.__name__}") + ("" if least is None else f" from {least:g}")
        raise UsageError(f"settings.{name} is {what}, not {value!r}")
    if choices and value not in choices:
        *others, last = choices
        raise UsageError(f"settings.{name} is {', '.join(others)} or {last}, not {value!r}")


def _check_loss(recipe: Recipe, own: Mapping[str, Any], loss: Mapping[str, Any]) -> None:
    """Refuse a loss that reads what the rows do not carry, before anything is paid. Raises UsageError."""
    loss_type = loss.get("loss_type", DEFAULT_LOSS)
    losses = [loss_type] if isinstance(loss_type, str) else list(loss_type)
    terms = [term for name in losses for term in SUMS.get(name, {name: 1.0})]
    if lacking := lack(terms, recipe.carried(own)):
        raise UsageError(f"rows of recipe {recipe.name} have {lacking}")


def _check_judges(settings: Settings, recipe: Recipe) -> None:
    """Refuse a preference model for a step that asks the judge for text. Raises UsageError."""
    for step in recipe.steps_for({**recipe.settings, **settings.settings}):
        names = {settings.judge.dimensions.get(dimension.name) for dimension in step.dimensions}
        judges = [each for each in settings.endpoints("judge") if None in names or each.name in names]
        apis = {endpoint.api for endpoint in judges}
        if "score" in apis and not step.compares:
            raise UsageError(
                f"recipe {recipe.name} asks its judge for text, and a preference model (judge.api: score, judge.path) "
                "only compares responses: name a judge that chats, or a recipe that compares, as sppo"
            )
        if len(apis) > 1:
            raise UsageError(f"of the judges of step {step.name} either all are preference models, or none")


def _check_dimensions(settings: Settings, recipe: Recipe) -> None:
    names = [dimension.name for dimension in recipe.dimensions]
    endpoints = sorted({endpoint.name for endpoint in settings.endpoints("judge")})
    for dimension, endpoint in settings.judge.dimensions.items():
        if dimension not in names:
            raise UsageError(f"recipe {recipe.name} has no dimension {dimension!r}; it has {', '.join(names)}")
        if endpoints and endpoint not in endpoints:
            raise UsageError(
                f"no judge endpoint is named {endpoint!r}, which judge.dimensions.{dimension} wants; "
                f"there is {', '.join(endpoints)}"
            )


def named(settings: Settings) -> dict[str, Any]:
    """Return who judges, who answers, and what they cost.

    These parts of the configuration a run that was made without them may be told later.
    """
    policy = {
        "path": settings.policy.path,
        "dtype": settings.policy.dtype,
        "template": settings.policy.template or None,
    }
    return {
        "judge": _models(settings, "judge") | {"dimensions": settings.judge.dimensions, "votes": settings.judge.votes},
        "policy": policy | _models(settings, "policy"),
        "teacher": _models(settings, "teacher"),
        "prices": prices(settings),
    }


def _models(settings: Settings, role: Any) -> dict[str, Any]:
    models = {
        endpoint.name: {
            "endpoint": endpoint.name,
            "model": _frozen_model(settings, endpoint),
            "extra": endpoint.extra,
            "identity": settings.identity(role, endpoint.name),
            **({} if endpoint.api == "chat" else {"api": endpoint.api}),
        }
        for endpoint in settings.endpoints(role)
    }
    return {"models": list(models.values())}  # one for each pool


def _frozen_model(settings: Settings, endpoint: Endpoint) -> str:
    """Return the model's name; of one that the scorer serves, with the fingerprint of its folder."""
    if endpoint is not settings.scorer or settings.judge.path is None:
        return endpoint.model
    return scored_model(settings.judge.path)


def scored_model(path: str) -> str:
    """Return under which name the scorer serves the folder at `path`: its own, and its fingerprint's start.

    Raises UsageError where it holds no model. The fingerprint changes with the weights, and so do the calls' keys.
    """
    folder = find(path)
    return f"{Path(path).name}@{fingerprint(folder)[:12]}"


def prices(settings: Settings) -> dict[str, Any]:
    """Return the prices that the settings name, by `price_name`.

    Whoever works on the run knows them then; its budget holds everywhere. Of a pool of servers the most, and nothing
    where one of them has none.
    """
    by_name = {}
    for role in PRICED:
        for name in {endpoint.name for endpoint in settings.endpoints(role)}:
            pool = settings.pool(role, name)
            values = [endpoint.price for endpoint in pool if endpoint.price is not None]
            if len(values) == len(pool):
                highest = Price(
                    input=max(price.input for price in values),
                    output=max(price.output for price in values),
                    cached=max(price.input if price.cached is None else price.cached for price in values),
                )
                by_name[price_name(role, name, pool[0].model)] = highest.model_dump()
    return by_name


def price_name(role: str, endpoint: str, model: str) -> str:
    """Return the key of a price in `RunConfig.prices`; `endpoint` is the pool's name."""
    return f"{role} {endpoint} {model}"


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """A run's configuration as the workers use it."""

    config: Mapping[str, Any]
    recipe: Recipe

    @property
    def steps(self) -> dict[str, str]:
        """Name of each step of judging that the settings ask for → its queue."""
        return {step.name: step_queue(step.name) for step in self.recipe.steps_for(self.config["settings"])}

    @property
    def needs_judge(self) -> bool:
        """Tell whether the run asks a judge anything."""
        return self.recipe.needs_judge(self.config["settings"])

    @property
    def step_of(self) -> dict[str, str]:
        """Dimension → name of the step that scores it."""
        return {dimension.name: step.name for step in self.recipe.steps for dimension in step.dimensions}

    @cached_property
    def schedule(self) -> TrainSchedule | None:
        """Return when the run is trained, and how often it goes round; None for no training."""
        return schedule_of(self.config["train"])

    @cached_property
    def prices(self) -> dict[str, Price]:
        """`price_name` → the price that the run was given."""
        return {name: Price(**price) for name, price in self.config.get("prices", {}).items()}

    def of(self, step: str) -> Mapping[str, Any]:
        """Return the configuration that `step` is judged by: the run's, with what a fork has for this step alone.

        Of a name that is no step, such as "", it is the run's.
        """
        config = dict(self.config)
        for revision in self.config.get("revisions", ()):  # of a run that an earlier release rescored
            if revision["step"] == step:
                changed = revision["changed"]
                config |= {**changed, "prompts": config["prompts"] | changed.get("prompts", {})}
        return {**config, **config.get("steps", {}).get(step, {})}

    def case(
        self,
        item: Item,
        *,
        step: str = "",
        prompts: Sequence[Prompt] = (),
        responses: Sequence[Response] = (),
        scores: Sequence[Score] = (),
    ) -> Case:
        """Return what a recipe's functions see of an item; `step` names the step whose configuration holds."""
        config = self.of(step)
        return Case(
            item=item,
            texts=config["prompts"],
            settings=config["settings"],
            prompts=tuple(prompts),
            responses=tuple(responses),
            scores=tuple(scores),
        )

    def is_compared(self, step: str) -> bool:
        """Tell whether the judge of a `step` is a preference model, which gives one number to a pair and no text."""
        dimension = self.recipe.step(step).dimensions[0].name
        judge = self.of(step)["judge"]
        endpoint = judge["dimensions"].get(dimension)
        return any(model.get("api") == "score" for model in judge["models"] if endpoint in {None, model["endpoint"]})

    def votes(self, step: str) -> int:
        """Return how many times a `step` asks the same question; the votes are made one."""
        return int(self.of(step)["judge"]["votes"])

    def judge_of(self, dimension: str, prompt: str) -> JudgeModel:
        """Return the judge of a `dimension`; where several serve it, the `prompt` decides.

        So the same question meets the same judge again. Raises UsageError where the run names no judge for it.
        """
        judge = self.of(self.step_of.get(dimension, ""))["judge"]
        models: Sequence[Mapping[str, Any]] = judge["models"]
        if not models:
            raise UsageError("the run names no judge: set LRQ_JUDGE_URL and LRQ_JUDGE_MODEL")
        endpoint = judge["dimensions"].get(dimension)
        fit = [model for model in models if endpoint in {None, model["endpoint"]}]
        if not fit:
            raise UsageError(f"no judge endpoint named {endpoint!r} for {dimension}; name it under judge.endpoints")
        chosen = fit[0] if len(fit) == 1 else fit[int(sha256(prompt.encode()).hexdigest()[:8], 16) % len(fit)]
        return JudgeModel(**{name: chosen[name] for name in _OF_MODEL if name in chosen})

    def check_code(self) -> None:
        """Raise UsageError where a recipe of one's own has other code than the run was frozen with."""
        name, code = self.config["recipe"], self.config.get("code")
        if code is not None and name not in RECIPES and code_hash(name) != code:
            raise UsageError(
                f"recipe {name} has changed since the run was frozen: put the file back as it was, "
                "or `lrq fork RUN --name NEW` for a run by the file as it is"
            )


def load_run_config(name: str, config: Mapping[str, Any]) -> RunConfig:
    """Return the configuration that a run was frozen with; `name` is its recipe's, a name or FILE.py:NAME."""
    return RunConfig(config=config, recipe=load_recipe(name) if name in RECIPES else _recipe(name, code_hash(name)))


@lru_cache(maxsize=16)
def _recipe(name: str, _code: str) -> Recipe:
    """Load a file once for each content that it has."""
    return load_recipe(name)
