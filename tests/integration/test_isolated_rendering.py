"""Chat templates and tokenizers that do not end, or take all memory, on one text: that text alone is given up."""

import json
import shutil
import time

import pytest

torch = pytest.importorskip("torch")

from test_policy_local import CONTEXT, QUESTION, SAMPLING, TEMPLATE, model_folder, opened  # noqa: E402

from lrq.domain.errors import UsageError  # noqa: E402
from lrq.domain.records import UNRENDERABLE  # noqa: E402
from lrq.policy import Prompt, isolated  # noqa: E402

__all__ = ["model_folder"]

MAGIC = "w29 w28 w29"
WHEN = "{% if '" + MAGIC + "' in messages[0]['content'] %}%s{% endif %}"
# What a hostile template does with the text: within the interpreter, in one of its operations, or with memory.
TEMPLATES = {
    "a loop": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "a number": "{% set n = messages[0]['content'] | length %}{{ (n ** (10 ** 9)) % 2 }}",
    "memory": "{{ ('x' * 10 ** 10) | length }}",
    "depth": "{% macro m(a) %}{{ m(a) }}{% endmacro %}{{ m(1) }}",
}


def prompt(text: str) -> Prompt:
    return Prompt(item="11", messages=[{"role": "user", "content": text + QUESTION}], context=text)


@pytest.fixture
def folder(model_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(isolated, "LEAST_SECONDS", 3.0)
    return shutil.copytree(model_folder, tmp_path / "copy")


async def assert_one_text_is_given_up(folder):
    """One text is given up, and those before and after it are answered as ever."""
    policy = opened(folder)
    before = await policy.sample(prompt(CONTEXT), SAMPLING)
    hostile = await policy.sample(prompt(f"{CONTEXT} {MAGIC}"), SAMPLING)
    after = await policy.sample(prompt(CONTEXT), SAMPLING)
    assert {(one.text, one.reason) for one in hostile.responses} == {(None, UNRENDERABLE)}
    assert after.responses == before.responses
    assert any(one.text for one in before.responses)


@pytest.mark.parametrize("name", TEMPLATES)
async def test_a_template_costs_the_text_on_which_it_does_not_end(folder, name):
    """Though it holds the interpreter."""
    (folder / "chat_template.jinja").write_text(WHEN.replace("%s", TEMPLATES[name]) + TEMPLATE)
    await assert_one_text_is_given_up(folder)


async def test_a_tokenizer_costs_the_text_on_which_it_does_not_end(folder):
    """A normalizer of compiled code that doubles a text forty times."""
    path = folder / "tokenizer.json"
    made = json.loads(path.read_text())
    double = {"type": "Replace", "pattern": {"String": "w29 w28 w29"}, "content": "w29 w28 w29 w29 w28 w29"}
    made["normalizer"] = {"type": "Sequence", "normalizers": [double] * 40}
    path.write_text(json.dumps(made))
    await assert_one_text_is_given_up(folder)


async def test_a_template_that_never_ends_is_refused_when_the_policy_is_opened(folder):
    """With what to mend, and soon."""
    begun = time.monotonic()
    (folder / "chat_template.jinja").write_text(TEMPLATES["a number"] + TEMPLATE)
    with pytest.raises(UsageError, match="cannot be sampled: the chat template or tokenizer did not end within 3 s"):
        opened(folder)
    assert time.monotonic() - begun < 120
