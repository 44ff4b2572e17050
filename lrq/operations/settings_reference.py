"""The settings reference, made from the code: what `lrq settings` prints and docs/settings.md holds."""

import types
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import orjson
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from lrq.config import OTHER_VARIABLES, Endpoint, Price, RoleSettings, Settings, TrainSchedule, variable_of
from lrq.domain.records import ROLES
from lrq.recipes import RECIPES
from lrq.run_config import TRAINING
from lrq.trainer.job import TrainJob

ROLE = "ROLE"  # stands for judge, teacher, embedding and policy, which have the same settings


_SEVERAL = """Each of several endpoints; those that share a name are a pool, among which the same question is the same.

```yaml
judge:
  endpoints:
    - {name: strong, url: "https://api.openai.com/v1", model: gpt-4o, rpm: 5000}
    - {name: fast, url: "http://gpu-1:8000/v1", model: Qwen/Qwen3-32B, timeout: 900}
    - {name: fast, url: "http://gpu-2:8000/v1", model: Qwen/Qwen3-32B, timeout: 900}
  dimensions: {faithfulness: fast, completeness: fast, helpfulness: strong, logicality: strong}
  votes: 3
```"""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One setting. Default and example as they are written in lrq.yaml."""

    key: str
    description: str
    default: str
    unit: str = ""
    example: str = ""
    variable: str = ""


@dataclass(frozen=True, kw_only=True)
class Section:
    title: str
    intro: str
    entries: tuple[Entry, ...]


def sections() -> list[Section]:
    """List all settings, in the order of the page."""
    fields = Settings.model_fields
    plain = {name: field for name, field in fields.items() if _model_of(field) is None}
    chapters = [Section(title="General", intro="", entries=_entries((), plain))]
    shared = RoleSettings.model_fields
    roles = f"`{ROLE}` is {', '.join(f'`{role}`' for role in ROLES)}. What is said of a role's one endpoint"
    intro = f"{roles} in short can be said of each of its `endpoints`, too."
    chapters.append(Section(title="Endpoints", intro=intro, entries=_entries((ROLE,), shared)))
    fields_ = {
        name: field
        for name, field in Endpoint.model_fields.items()
        if name not in shared or field.is_required() != shared[name].is_required()
    }
    intro = _SEVERAL
    chapters.append(Section(title="Several endpoints", intro=intro, entries=_entries((ROLE, "endpoints[]"), fields_)))
    intro = "In the currency that you count in; caps on money are in the same."
    chapters.append(Section(title="Prices", intro=intro, entries=_entries((ROLE, "price"), Price.model_fields)))
    for name, field in fields.items():
        part = _model_of(field)
        others = {n: f for n, f in part.model_fields.items() if name not in ROLES or n not in shared} if part else {}
        if others:
            entries = _entries((name,), others)
            chapters.append(Section(title=name.capitalize(), intro=f"{field.description}.", entries=entries))
    return [*chapters, *_recipes(), _training()]


def _recipes() -> Iterator[Section]:
    """Yield a section for each recipe; presets of one, which have its settings with other values, stand in its own."""
    for name, recipe in RECIPES.items():
        presets = [preset for preset, each in RECIPES.items() if each.described is recipe.described]
        if presets[0] != name:
            continue
        entries = tuple(
            Entry(
                key=f"settings.{key}",
                description=recipe.described.get(key, ""),
                default=_yaml(value),
                example=f"settings.{key}={_yaml(value)}",
            )
            for key, value in recipe.settings.items()
        )
        intro = "A recipe's own settings, under `settings`."
        if presets[1:]:
            intro += (
                f" Presets of it, with criteria of their own, are {', '.join(f'`{preset}`' for preset in presets[1:])}."
            )
        yield Section(title=f"Recipe {name}", intro=intro, entries=entries)


def _training() -> Section:
    fields = {name: field for name, field in TrainJob.model_fields.items() if name in TRAINING}
    schedule = TrainSchedule.model_fields
    intro = (
        "Under `train`, and for `lrq train` without that word (`--set beta=0.1`). A recipe has defaults of its own "
        "for some of them, which are LongReward's here."
    )
    return Section(title="Training", intro=intro, entries=_entries(("train",), fields | schedule))


def _entries(path: tuple[str, ...], fields: Mapping[str, FieldInfo]) -> tuple[Entry, ...]:
    return tuple(_entry((*path, name), field) for name, field in fields.items())


def _entry(path: tuple[str, ...], field: FieldInfo) -> Entry:
    key = ".".join(path)
    extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
    default = "required" if field.is_required() else _yaml(field.get_default(call_default_factory=True))
    return Entry(
        key=key,
        description=field.description or "",
        default=default,
        unit=str(extra.get("unit", "")),
        example=_example(path, field.examples[0]) if field.examples else "",
        variable=variable_of(path),
    )


def _example(path: tuple[str, ...], value: Any) -> str:
    """Write the example as a flag; a list's entry can only be written in the file."""
    return f"{path[-1]}: {_yaml(value)}" if path[-2:-1] == ("endpoints[]",) else f"{'.'.join(path)}={_yaml(value)}"


def _model_of(field: FieldInfo) -> type[BaseModel] | None:
    """Return the settings that a setting consists of; None for a plain one."""
    kind = field.annotation
    return (
        kind
        if isinstance(kind, type) and not isinstance(kind, types.GenericAlias) and issubclass(kind, BaseModel)
        else None
    )


def _yaml(value: Any) -> str:
    """Write a value as YAML takes it, in one line."""
    if value is None:
        return "unset"
    if isinstance(value, str | Path):
        return str(value) or '""'
    return orjson.dumps(value, default=list).decode()


def as_data() -> list[dict[str, Any]]:
    """Return the reference as `lrq settings --json` prints it: an object per entry, with the `section` it stands in."""
    return [{"section": section.title} | asdict(entry) for section in sections() for entry in section.entries]


def find_entries(key: str) -> list[Entry]:
    """Return the entries of a `key`, or of all keys below it; of a role's under the name of the role.

    "judge.rpm" finds `ROLE.rpm`, "train" all of training; an unknown key finds none.
    """
    head, dot, remainder = key.partition(".")
    path = f"{ROLE}{dot}{remainder}" if head in ROLES else key
    below = (f"{key}.", f"{path}.")
    every = (entry for section in sections() for entry in section.entries)
    return [entry for entry in every if entry.key in {key, path} or entry.key.startswith(below)]


def page() -> str:
    """Write the reference as Markdown: docs/settings.md."""
    lines = [
        "# Settings",
        "",
        "<!-- Made by `make settings` from the code; a test compares them. -->",
        "",
        "Flags (`--set judge.rpm=500`) go over environment variables, these over `lrq.yaml`, and that over the",
        "defaults. A key with dots is nested in the file: `judge.rpm` is `rpm` under `judge`. `lrq settings` prints",
        "this page, `lrq settings judge.rpm` a part of it.",
    ]
    for section in sections():
        lines += ["", f"## {section.title}", "", *([section.intro, ""] if section.intro else [])]
        lines += ["| setting | default | unit | example | what it does |", "|---|---|---|---|---|"]
        for entry in section.entries:
            name = f"`{entry.key}`" + (f"<br>`{entry.variable}`" if entry.variable else "")
            example = f"`{entry.example}`" if entry.example else ""
            row = (name, f"`{entry.default}`", entry.unit, example, entry.description)
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |")
    lines += ["", "## Other variables", "", "| variable | what it does |", "|---|---|"]
    lines += [f"| `{name}` | {words} |" for name, words in OTHER_VARIABLES.items()]
    return "\n".join(lines) + "\n"
