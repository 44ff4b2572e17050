"""The settings reference: complete, made from the code, and its examples can be used."""

from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from lrq.cli.settings import settings as command
from lrq.config import Settings, load_settings, merge_flags
from lrq.domain.errors import UsageError
from lrq.operations import settings_reference as reference
from lrq.recipes import RECIPES
from lrq.run_config import SCHEDULE
from lrq.trainer.job import make_job

PAGE = Path(__file__).parents[2] / "docs" / "settings.md"
ENTRIES = [entry for section in reference.sections() for entry in section.entries]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MY_GATEWAY_KEY", "a-key")  # which an example names


def test_the_page_is_what_the_code_says() -> None:
    """`make settings` writes it again."""
    assert PAGE.read_text(encoding="utf-8") == reference.page()


def test_every_setting_is_described_once_with_an_example() -> None:
    """Whoever adds a setting says what it does."""
    assert [entry.key for entry in ENTRIES if not (entry.description and entry.default and entry.example)] == []
    for section in reference.sections():
        keys = [entry.key for entry in section.entries]
        assert len(keys) == len(set(keys)), section.title
    keys = [entry.key for entry in ENTRIES]
    heads = {key.partition(".")[0].replace(reference.ROLE, "judge") for key in keys}
    assert heads >= Settings.model_fields.keys() - {"teacher", "embedding"}


@pytest.mark.parametrize("entry", [entry for entry in ENTRIES if "=" in entry.example], ids=lambda entry: entry.key)
def test_every_example_can_be_used(entry: reference.Entry) -> None:
    """As a flag, for every role that has the setting; those of recipe and trainer by their own rules."""
    for role in ("judge", "policy", "teacher", "embedding") if reference.ROLE in entry.key else ("",):
        flags = merge_flags((entry.example.replace(reference.ROLE, role),))
        if entry.key.endswith(("price.output", "price.cached")):
            flags[role]["price"]["input"] = 1
        loaded = load_settings(flags, env={})
        assert any(loaded.settings.keys() <= recipe.settings.keys() for recipe in RECIPES.values())
        train = {name: value for name, value in loaded.train.items() if name not in SCHEDULE}
        if not train.keys() & {"loss_type", "loss_weights", "loss_betas"}:
            make_job({"model": "m", "rows": "r", "output": "o", **train})


def test_the_page_s_file_can_be_used() -> None:
    """Three judges, of which two are one pool."""
    content = reference.page().partition("```yaml\n")[2].partition("```")[0]
    judge = load_settings(yaml.safe_load(content), env={}).judge
    assert [endpoint.name for endpoint in judge.endpoints] == ["strong", "fast", "fast"]


def test_the_command_prints_one_setting_of_a_role() -> None:
    """By the role's name, with its variable."""
    said = CliRunner().invoke(command, ["teacher.rpm"]).output
    assert "teacher.rpm  (LRQ_TEACHER_RPM)" in said
    assert "default: unset; unit: requests per minute; example: teacher.rpm=5000" in said


def test_an_unknown_key_names_the_nearest() -> None:
    """In one line."""
    with pytest.raises(UsageError, match=r"no setting judge\.rmp; do you mean judge\.rpm"):
        CliRunner().invoke(command, ["judge.rmp"], catch_exceptions=False)
