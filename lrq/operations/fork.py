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
    named = {name: today["settings"][name] for name in settings.settings}
    if named.get("responses", config["settings"].get("responses")) != config["settings"].get("responses"):
        raise UsageError("a fork keeps the responses it has: settings.responses is for a new run (`lrq enqueue`)")
    of_rows = {name: value for name, value in named.items() if name in recipe.row_settings}
    of_steps = {name: value for name, value in named.items() if name not in recipe.row_settings}
    has_new_code = "code" in config and config["recipe"] not in RECIPES and config["code"] != today["code"]
    base = {**config["settings"], **(of_rows if dimension else named)}
    try:
        recipe.check(base)
    except ValueError as error:
        raise UsageError(str(error)) from None
    needed = recipe.steps_for(base)
    known = [each.name for step in needed for each in step.dimensions]
    if dimension is not None and dimension not in known:
        raise UsageError(f"this run has no dimension {dimension!r}; it has {', '.join(known) or 'none'}")
    own, judged = dict(config.get("steps", {})), []
    changes = ["the recipe's code"] if has_new_code else []
    for step in needed:
        names = [each.name for each in step.dimensions]
        if dimension is not None and dimension not in names:
            continue
        held = frozen.of(step.name)
        wanted = {
            "judge": _judge(held["judge"], today["judge"], settings, [dimension] if dimension else names, judge)
            if dimension or judge
            else {**held["judge"], "votes": _votes(settings, held["judge"])},
            "settings": {**held["settings"], **of_steps},
            **_prompts(held, today["prompts"] if dimension else {}, texts or {}),
        }
        if dimension:
            models = like(held["embedding"]["models"], today["embedding"]["models"])
            embedding = {**today["embedding"], "models": models} if models else held["embedding"]
            wanted |= {"tokens": today["tokens"], "embedding": embedding}
        changed = {name: value for name, value in wanted.items() if held.get(name, []) != value}
        if changed or has_new_code or step.name not in frozen.steps:
            judged.append(step.name)
        if changed:
            own[step.name] = {**own.get(step.name, {}), **changed}
            changes += [name for name in _names(held, changed) if name not in changes]
    changes += [f"settings.{name}" for name in of_rows if config["settings"].get(name) != base[name]]
    if not needed:
        changes += [f"settings.{name}" for name in of_steps if config["settings"].get(name) != base[name]]
    made = {**config, "settings": base, "steps": own, "forked_from": source.name, "code": today["code"]}
    made |= {"prices": {**config.get("prices", {}), **prices(settings)}}
    made |= {"train": config["train"] if train and not source.round else None}
    return Fork(config=made, steps=judged, changes=changes)


def _prompts(held: Mapping[str, Any], packaged: Mapping[str, str], texts: Mapping[str, str]) -> dict[str, Any]:
    """Return the prompt texts: a packaged one replaces none that was given before."""
    given = sorted({*held.get("own_prompts", ()), *texts})
    current = {name: text for name, text in packaged.items() if name not in given}
    return {"prompts": {**held["prompts"], **current, **texts}, "own_prompts": given}


def _judge(
    held: Mapping[str, Any],
    today: Mapping[str, Any],
    settings: Settings,
    dimensions: Sequence[str],
    judge: str | None,
) -> dict[str, Any]:
    """Return the judge's part with the endpoints of these dimensions as they are today."""
    models = {model["endpoint"]: model for model in like(held["models"], today["models"])}
    known = {model["endpoint"]: model for model in held["models"]}
    judges = dict(held["dimensions"])
    for dimension in dimensions:
        name = judge or settings.judge.dimensions.get(dimension) or held["dimensions"].get(dimension)
        for endpoint in [name] if name else [model["endpoint"] for model in held["models"]]:
            if endpoint not in models:
                there = ", ".join(models) or "none"
                raise UsageError(f"no judge endpoint named {endpoint!r}; the settings have {there}")
            known[endpoint] = models[endpoint]
        judges |= {dimension: name} if name else {}
    return {"models": list(known.values()), "dimensions": judges, "votes": _votes(settings, held)}


def _votes(settings: Settings, held: Mapping[str, Any]) -> int:
    return int(settings.judge.votes if "votes" in settings.judge.model_fields_set else held["votes"])


def _names(held: Mapping[str, Any], changed: Mapping[str, Any]) -> list[str]:
    """Name what changes, for people."""
    texts = changed.get("prompts", {})
    names = [f"prompt {name}" for name in sorted(texts) if held["prompts"].get(name) != texts[name]]
    for part in ("judge", "settings"):
        names += [f"{part}.{name}" for name, value in changed.get(part, {}).items() if held[part].get(name) != value]
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
    """Read the prompt texts of a folder; raises UsageError where one has other placeholders than what it replaces."""
    texts, known = load_prompts(folder), frozen.config["prompts"]
    if not texts:
        raise UsageError(f"no prompt text in {folder}; name them like {sorted(known)[0]}.txt")
    for name, text in texts.items():
        if name not in known:
            raise UsageError(f"this recipe has no prompt {name!r}; it has {', '.join(sorted(known))}")
        if _placeholders(text) != _placeholders(known[name]):
            wanted = ", ".join(f"{{{{{each}}}}}" for each in sorted(_placeholders(known[name]))) or "none"
            raise UsageError(f"{folder / name}.txt has other placeholders than it takes: {wanted}")
    return texts


def _placeholders(text: str) -> set[str]:
    return set(re.findall(r"\{\{(\w+)\}\}", text))
