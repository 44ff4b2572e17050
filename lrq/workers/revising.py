"""What has changed for a dimension since a run was frozen: its judge, its prompts, its settings, the token rule."""

from collections.abc import Mapping
from typing import Any

from lrq.config import Settings
from lrq.domain.errors import UsageError
from lrq.ledger.runs import like
from lrq.workers.frozen import Frozen, freeze


def revised(
    frozen: Frozen,
    settings: Settings,
    dimension: str,
    *,
    judge: str | None = None,
    texts: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """What today's settings, prompts and token rule change for the step that scores a dimension; empty for nothing.

    What the settings do not name stays as it was, and so does a prompt that was given before in `texts`.
    """
    held = frozen.of(frozen.step_of[dimension])
    today = freeze(settings.model_copy(update={"recipe": frozen.config["recipe"]}), train=False)
    own = {**dict.fromkeys(held.get("own_prompts", ()), True), **dict.fromkeys(texts or {}, True)}
    packaged = {name: text for name, text in today["prompts"].items() if name not in own}
    wanted = {
        "judge": _judge_today(held["judge"], today["judge"], settings, dimension, judge),
        "prompts": {**held["prompts"], **packaged, **(texts or {})},
        "own_prompts": sorted(own),
        "settings": {**held["settings"], **_own_settings(settings, held["settings"])},
        "tokens": today["tokens"],
        "embedding": _embedding_today(held["embedding"], today["embedding"]),
    }
    changed = {name: value for name, value in wanted.items() if held.get(name, []) != value}
    if "prompts" in changed:
        changed["prompts"] = {n: text for n, text in wanted["prompts"].items() if held["prompts"].get(n) != text}
    return changed


def _judge_today(
    held: Mapping[str, Any], today: Mapping[str, Any], settings: Settings, dimension: str, judge: str | None
) -> dict[str, Any]:
    """The judge's part with this dimension's endpoints as they are today."""
    named = judge or settings.judge.dimensions.get(dimension) or held["dimensions"].get(dimension)
    models = {model["endpoint"]: model for model in like(held["models"], today["models"])}
    asked = [named] if named else [model["endpoint"] for model in held["models"]]
    for name in asked:
        if name not in models:
            raise UsageError(f"no judge endpoint named {name!r}; the settings have {', '.join(models) or 'none'}")
    known = {model["endpoint"]: model for model in held["models"]}
    return {
        "models": list((known | {name: models[name] for name in asked}).values()),
        "dimensions": held["dimensions"] | ({dimension: named} if named else {}),
        "votes": settings.judge.votes if "votes" in settings.judge.model_fields_set else held["votes"],
    }


def _embedding_today(held: Mapping[str, Any], today: Mapping[str, Any]) -> Mapping[str, Any]:
    models = like(held["models"], today["models"])
    return {**today, "models": models} if models else held


def _own_settings(settings: Settings, held: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe's own settings that are named today."""
    return dict(settings.settings)
