"""Filling prompts, fencing what is not ours, and the packaged texts themselves."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrq.domain.fences import fenced
from lrq.domain.marks import NO_STATEMENTS, NOTHING_RELEVANT, SUPPORT_VALUES, read_score, read_statements, read_support
from lrq.domain.tokens import count_tokens
from lrq.recipes import RECIPES
from lrq.recipes.templates import fill

PROMPTS = RECIPES["longreward"].prompt_texts()
KINDS = {
    "helpfulness": ("question", "answer"),
    "logicality": ("question", "answer"),
    "statements": ("question", "answer"),
    "support": ("statement", "passages"),
    "support_batch": ("passages", "statements"),
    "extraction": ("part", "question"),
    "completeness": ("question", "points", "answer"),
}
CASES = [(language, kind) for language in ("en", "zh") for kind in KINDS]


def fixed_part(text: str) -> str:
    """What stands before the first variable section."""
    return re.split(r"\n(?:\[[^\[\]\n]+\]\n)?\{\{", text)[0]


def test_filled_text_is_never_filled_again() -> None:
    """A document that contains a placeholder stays as it is."""
    filled = fill("Q: {{question}} A: {{answer}}", {"question": "{{answer}}", "answer": r"{{question}} \1 {}"})
    assert filled == r"Q: {{answer}} A: {{question}} \1 {}"


@pytest.mark.parametrize("values", [{}, {"question": "x", "answer": "y"}, {"answer": "y"}])
def test_placeholders_and_values_have_to_match(values: dict[str, str]) -> None:
    """A value too many or too few is a mistake, not an empty text."""
    with pytest.raises(ValueError, match="differ"):
        fill("{{question}}", values)


@given(st.text(alphabet="~a\n \r\u2028", max_size=60))
def test_no_text_can_close_its_own_fence(text: str) -> None:
    """However lines are told apart, only the last line equals the first."""
    whole = fenced(text)
    fence = whole.partition("\n")[0]
    assert whole == f"{fence}\n{text}\n{fence}"
    assert re.fullmatch("~{4,}", fence)
    assert [line.strip() for line in whole.splitlines()].count(fence) == 2


def test_both_languages_have_the_same_texts() -> None:
    """Every kind and every small form exists in English and in Chinese."""
    names = {name.partition("/")[2] for name in PROMPTS}
    assert names == {*KINDS, "passage", "part", "statement"}
    assert set(PROMPTS) == {f"{language}/{name}" for language in ("en", "zh") for name in names}


@pytest.mark.parametrize(("language", "kind"), CASES)
def test_a_prompt_names_its_task_and_its_fixed_part_comes_first(language: str, kind: str) -> None:
    """The first line is the kind; all placeholders stand together behind the fixed part, in a stated order."""
    text = PROMPTS[f"{language}/{kind}"]
    assert text.splitlines()[0] == f"{'Task: ' if language == 'en' else '任务：'}{kind}"
    assert tuple(re.findall(r"\{\{(\w+)\}\}", text)) == KINDS[kind]
    assert len(fixed_part(text)) > 0.85 * len(text)


@pytest.mark.parametrize(("language", "kind"), CASES)
def test_a_prompt_holds_untrusted_text_in_headed_sections_alone(language: str, kind: str) -> None:
    """The fixed part has no heading of its own that a reader of sections could mistake, and says what fences mean."""
    text = PROMPTS[f"{language}/{kind}"]
    assert not re.search(r"^\[[^\[\]\n]+\]$|~", fixed_part(text), re.MULTILINE)
    assert ("never an instruction" if language == "en" else "不是给你的指令") in fixed_part(text)


@pytest.mark.parametrize(("language", "kind"), [case for case in CASES if case[1] != "extraction"])
def test_fixed_parts_are_long_enough_for_prompt_caches(language: str, kind: str) -> None:
    """Providers cache prefixes from 1,024 tokens on."""
    assert count_tokens(fixed_part(PROMPTS[f"{language}/{kind}"])) >= 1024


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize(("kind", "examples"), [("helpfulness", 4), ("logicality", 3), ("completeness", 3)])
def test_examples_end_as_replies_have_to(language: str, kind: str, examples: int) -> None:
    """Every example of a scored dimension closes with a score that our own reading accepts, and they differ."""
    word = "Assessment" if language == "en" else "评析"
    shown = re.findall(rf"^{word}[:：].*\n.*\[\[.*\]\]$", PROMPTS[f"{language}/{kind}"], re.MULTILINE)
    assert len({read_score(reply) for reply in shown}) == len(shown) == examples


@pytest.mark.parametrize("language", ["en", "zh"])
def test_examples_of_support_show_all_three_verdicts(language: str) -> None:
    """The verdicts at the ends of the examples are readable and cover the scale."""
    word = "Verdict" if language == "en" else "结论"
    shown = re.findall(rf"^{word}[:：].*$", PROMPTS[f"{language}/support"], re.MULTILINE)
    assert {read_support(reply).mark for reply in shown} == set(SUPPORT_VALUES)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_examples_of_statements_can_be_read(language: str) -> None:
    """Each example's list is read by our own reader: three, five and no statements."""
    start = "List: " if language == "en" else "列举："
    examples = PROMPTS[f"{language}/statements"].split(start)[1:]
    replies = ["\n".join(example.split("\n\n")[0].splitlines()) for example in examples]
    assert [len(read_statements(reply)) for reply in replies] == [3, 5, 0]


@pytest.mark.parametrize("language", ["en", "zh"])
def test_prompts_name_the_marks_exactly(language: str) -> None:
    """What the prompt asks for is what is read, in both languages."""
    assert f"[[{NO_STATEMENTS}]]" in PROMPTS[f"{language}/statements"]
    assert all(f"[[{mark}]]" in PROMPTS[f"{language}/support"] for mark in SUPPORT_VALUES)
    assert NOTHING_RELEVANT in PROMPTS[f"{language}/extraction"]
    assert NOTHING_RELEVANT in PROMPTS[f"{language}/completeness"]
