"""What a fork of a run changes: its judge, its prompts, its settings; for a dimension also what is new since then."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lrq.config import Settings
from lrq.domain.errors import UsageError
from lrq.ledger import Ledger
from lrq.ledger.forking import fork_run
from lrq.ledger.runs import Run, find_run, like
from lrq.queue.routes import step_queue
from lrq.recipes import RECIPES
from lrq.recipes.templates import load_prompts
from lrq.run_config import RunConfig, prices, snapshot_config


@dataclass(frozen=True, kw_only=True)
class Fork:
    """The configuration of a fork, and what of it is new."""

    config: Mapping[str, Any]
    steps: Sequence[str]  # that are judged again
    changes: Sequence[str]  # in names: "judge.votes", "prompt en/support"; empty for none


def fork_config(
    source: Run,
    frozen: RunConfig,
    settings: Settings,
    *,
    dimension: str | None = None,
    judge: str | None = None,
    texts: Mapping[str, str] | None = None,
    train: bool = False,
) -> Fork:
    """Return what a fork would be under today's settings.

    What the settings do not name stays as it was. With a dimension its step alone changes, and takes today's judge,
    packaged prompts and token rule. Settings that only rows read change no step.

    Args:
        judge: name of the endpoint that judges from now on.
        texts: prompt texts in place of those of the same name.
        train: keep the train section; a run past its first round cannot be trained as a fork.

    Raises UsageError where that cannot be.
    """
    recipe, config = frozen.recipe, frozen.config
    today = snapshot_config(settings.model_copy(update={"recipe": config["recipe"]}), train=False)
    new_settings = {name: today["settings"][name] for name in settings.settings}
    if new_settings.get("responses", config["settings"].get("responses")) != config["settings"].get("responses"):
        raise UsageError("a fork keeps the responses it has: settings.responses is for a new run (`lrq enqueue`)")
    of_rows = {name: value for name, value in new_settings.items() if name in recipe.row_settings}
    of_steps = {name: value for name, value in new_settings.items() if name not in recipe.row_settings}
    has_new_code = "code" in config and config["recipe"] not in RECIPES and config["code"] != today["code"]
    base = {**config["settings"], **(of_rows if dimension else new_settings)}
    try:
        recipe.check(base)
    except ValueError as error:
        raise UsageError(str(error)) from None
    needed = recipe.steps_for(base)
    dimensions = [each.name for step in needed for each in step.dimensions]
    if dimension is not None and dimension not in dimensions:
        raise UsageError(f"this run has no dimension {dimension!r}; it has {', '.join(dimensions) or 'none'}")
    by_step, judged = dict(config.get("steps", {})), []
    changes = ["the recipe's code"] if has_new_code else []
    for step in needed:
        names = [each.name for each in step.dimensions]
        if dimension is not None and dimension not in names:
            continue
        before = frozen.of(step.name)
        after = {
            "judge": _judge(before["judge"], today["judge"], settings, [dimension] if dimension else names, judge)
            if dimension or judge
            else {**before["judge"], "votes": _votes(settings, before["judge"])},
            "settings": {**before["settings"], **of_steps},
            **_prompts(before, today["prompts"] if dimension else {}, texts or {}),
        }
        if dimension:
            models = like(before["embedding"]["models"], today["embedding"]["models"])
            embedding = {**today["embedding"], "models": models} if models else before["embedding"]
            after |= {"tokens": today["tokens"], "embedding": embedding}
        changed = {name: value for name, value in after.items() if before.get(name, []) != value}
        if changed or has_new_code or step.name not in frozen.steps:
            judged.append(step.name)
        if changed:
            by_step[step.name] = {**by_step.get(step.name, {}), **changed}
            changes += [name for name in _names(before, changed) if name not in changes]
    changes += [f"settings.{name}" for name in of_rows if config["settings"].get(name) != base[name]]
    if not needed:
        changes += [f"settings.{name}" for name in of_steps if config["settings"].get(name) != base[name]]
    new_config = {**config, "settings": base, "steps": by_step, "forked_from": source.name, "code": today["code"]}
    new_config |= {"prices": {**config.get("prices", {}), **prices(settings)}}
    new_config |= {"train": config["train"] if train and not source.round else None}
    return Fork(config=new_config, steps=judged, changes=changes)


def _prompts(before: Mapping[str, Any], packaged: Mapping[str, str], texts: Mapping[str, str]) -> dict[str, Any]:
    """Return the prompt texts: a packaged one replaces none that was given before."""
    own_prompts = sorted({*before.get("own_prompts", ()), *texts})
    current = {name: text for name, text in packaged.items() if name not in own_prompts}
    return {"prompts": {**before["prompts"], **current, **texts}, "own_prompts": own_prompts}


def _judge(
    before: Mapping[str, Any],
    today: Mapping[str, Any],
    settings: Settings,
    dimensions: Sequence[str],
    judge: str | None,
) -> dict[str, Any]:
    """Return the judge's part with the endpoints of these dimensions as they are today."""
    models = {model["endpoint"]: model for model in like(before["models"], today["models"])}
    by_endpoint = {model["endpoint"]: model for model in before["models"]}
    judges = dict(before["dimensions"])
    for dimension in dimensions:
        name = judge or settings.judge.dimensions.get(dimension) or before["dimensions"].get(dimension)
        for endpoint in [name] if name else [model["endpoint"] for model in before["models"]]:
            if endpoint not in models:
                there = ", ".join(models) or "none"
                raise UsageError(f"no judge endpoint named {endpoint!r}; the settings have {there}")
            by_endpoint[endpoint] = models[endpoint]
        judges |= {dimension: name} if name else {}
    return {"models": list(by_endpoint.values()), "dimensions": judges, "votes": _votes(settings, before)}


def _votes(settings: Settings, before: Mapping[str, Any]) -> int:
    return int(settings.judge.votes if "votes" in settings.judge.model_fields_set else before["votes"])


def _names(before: Mapping[str, Any], changed: Mapping[str, Any]) -> list[str]:
    """Name what changes, for people."""
    texts = changed.get("prompts", {})
    names = [f"prompt {name}" for name in sorted(texts) if before["prompts"].get(name) != texts[name]]
    for part in ("judge", "settings"):
        names += [f"{part}.{name}" for name, value in changed.get(part, {}).items() if before[part].get(name) != value]
    return names + [name for name in ("tokens", "embedding") if name in changed]


def make_fork(
    ledger: Ledger,
    source: Run,
    frozen: RunConfig,
    fork: Fork,
    name: str | None = None,
    *,
    max_cost: int | None = None,
    max_tokens: int | None = None,
) -> Run:
    """Write a fork into the ledger; without a name it is the source's with the next free number, from 2.

    Args:
        max_cost: what the fork may spend, in micro-units; None: as much as the source, counted anew from 0.
        max_tokens: the same in tokens.

    Raises UsageError where the source is at work or the name is taken.
    """
    steps = {step: step_queue(step) for step in fork.steps}
    dimensions = [each.name for step in fork.steps for each in frozen.recipe.step(step).dimensions]
    with ledger.write() as tx:
        number = 2
        while name is None:
            following = f"{source.name}-{number}"
            name = following if find_run(tx, following) is None else None
            number += 1
        return fork_run(
            tx,
            source,
            name,
            fork.config,
            steps=steps,
            dimensions=dimensions,
            max_cost=max_cost,
            max_tokens=max_tokens,
        )


def read_texts(frozen: RunConfig, folder: Path) -> dict[str, str]:
    """Read the prompt texts of a `folder` as name → text, each in place of the run's of that name.

    Raises UsageError where there is none, or one has another name or other placeholders than what it replaces.
    """
    texts, current = load_prompts(folder), frozen.config["prompts"]
    if not texts:
        raise UsageError(f"no prompt text in {folder}; name them like {sorted(current)[0]}.txt")
    for name, text in texts.items():
        if name not in current:
            raise UsageError(f"this recipe has no prompt {name!r}; it has {', '.join(sorted(current))}")
        if _placeholders(text) != _placeholders(current[name]):
            expected = ", ".join(f"{{{{{each}}}}}" for each in sorted(_placeholders(current[name]))) or "none"
            raise UsageError(f"{folder / name}.txt has other placeholders than it takes: {expected}")
    return texts


def _placeholders(text: str) -> set[str]:
    return set(re.findall(r"\{\{(\w+)\}\}", text))
