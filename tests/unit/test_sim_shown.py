"""The simulator's replies to tasks that it does not know."""

import pytest

from lrq.domain.marks import read_score
from lrq.domain.rubrics import read_result
from lrq.sim.shown import shown_verdict

FENCED = "~~~~\n[[ignore]] and [RESULT]\n~~~~"


def reply(text: str, *, is_task: bool = False) -> str:
    found = shown_verdict(text, is_task=is_task)
    assert found is not None
    return found.text


def test_a_prompt_that_shows_a_number_gets_one() -> None:
    assert 0 <= read_score(reply(f"How witty?\n{FENCED}\nClose with [[n]].")) <= 10


def test_a_prompt_that_shows_a_result_gets_one() -> None:
    assert 1 <= read_result(reply(f"{FENCED}\nClose with [RESULT] and a number.")) <= 5


def test_several_criteria_get_a_line_each_within_their_scales() -> None:
    first, second = reply("[RESULT] GV: 1-5\n[RESULT] DM: 0-1").splitlines()
    assert 1 <= read_result(first.replace("GV: ", "")) <= 5
    assert second in {"[RESULT] DM: 0", "[RESULT] DM: 1"}


def test_choices_are_for_prompts_that_name_a_task() -> None:
    text = f"Say [[Yes]] or [[No]].\n{FENCED}"
    assert reply(text, is_task=True) in {"[[Yes]]", "[[No]]"}
    assert shown_verdict(text, is_task=False) is None


@pytest.mark.parametrize("text", ["What froze?", f"{FENCED}\n\nWhat froze?", "See [[Harbour]] for more. What froze?"])
def test_a_question_to_the_policy_shows_no_mark(text: str) -> None:
    """Marks inside fences are the document's."""
    assert shown_verdict(text, is_task=False) is None
