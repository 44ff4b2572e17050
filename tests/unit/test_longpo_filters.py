"""Questions that a policy wrote, and answers that are fit to be trained on, in both languages."""

import json
import random
from pathlib import Path
from typing import Any

import pytest

from lrq.recipes.longpo_filters import is_loop, read_questions, unfit

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "longpo_data.json").read_text(encoding="utf-8"))
PROSE = "The pact held for a decade because neither harbour could feed its own crews without the other's grain."


@pytest.mark.parametrize(
    "reply",
    [
        "1: A?\n2: B?\n3: C?",
        "1. A?\n2. B?\n3. C?",
        "1) A?\n2) B?\n\n3) C?",
        "Here they are:\n\n**1: A?**\n**2: B?**\n**3: C?**",
        "Question 1: A?\nQuestion 2: B?\nQuestion 3: C?",
        "1：A?\n2：B?\n3：C?",
        "1、A?\n2、B?\n3、C?",
        "１．A?\n２．B?\n３．C?",
        "1: A?\n2: B?\n3: C?\n\nThese cover the whole text.",
    ],
)
def test_numbered_lines_are_questions(reply: str) -> None:
    assert read_questions(reply, 3) == ["A?", "B?", "C?"]


def test_numbers_inside_a_question_stay() -> None:
    reply = "1: What happened in 1914?\n2: Why is 3.5 a threshold?\n3: How do sections 2 and 3 differ?"
    assert read_questions(reply, 3) == [
        "What happened in 1914?",
        "Why is 3.5 a threshold?",
        "How do sections 2 and 3 differ?",
    ]


@pytest.mark.parametrize(
    "reply",
    [
        "",
        "A?\nB?\nC?",
        "1: A?\n2: B?",
        "1: A?\n2: B?\n3: C?\n4: D?",
        "1: A?\n3: B?\n2: C?",
        "1: A? 2: B? 3: C?",
        "1: A, and\n  further?\n2: B?\n3: C?",
        "1: A?\n2: B?\n3: C, and\nfurther?",
        "1: A?\n2: B?\n\nNow\n3: C?",
        "1: A?\n2: B?\n3.5 is C?",
    ],
)
def test_anything_but_the_numbers_in_order_is_no_list(reply: str) -> None:
    assert read_questions(reply, 3) == []


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ("", "empty"),
        ("Yes", "empty"),
        ("I am unable to find that in the text.", "a refusal"),
        ("As an AI assistant I cannot read it all, so I will guess at the rest of it.", "a refusal"),
        ("**I'm sorry**, but the document does not say anything of that.", "a refusal"),
        ("抱歉，文中没有提到这一点。", "a refusal"),
        ("the " * 40, "a repetition"),
        ("no answer. " * 4, "a repetition"),
        ("The king went home. " * 4 + "The end", "a repetition"),
        ("国王回家了。" * 5, "a repetition"),
    ],
)
def test_refusals_loops_and_shells_are_unfit(answer: str, why: str) -> None:
    assert unfit(answer) == why


@pytest.mark.parametrize(
    "answer",
    [
        PROSE,
        "The hero says sorry to his mother before he leaves the village for the war.",
        'She was certain: "I am unable to forgive them", which ends the chapter.',
        "国王回家以后召集了大臣，商量怎样重建被洪水冲垮的桥。",
        f"{PROSE} 'As an AI', the play has its machine say, 'I forgive.'",
    ],
)
def test_prose_of_either_language_is_fit_with_such_words_in_quotations(answer: str) -> None:
    assert unfit(answer) == ""


def test_a_long_text_is_looked_through_in_a_moment() -> None:
    """A hundred thousand characters of loop, and as many of none."""
    assert is_loop("ab" * 50_000 + "c")
    assert not is_loop("".join(chr(97 + n * n % 23) for n in range(100)) + "".join(map(str, range(20_000))))


@pytest.mark.parametrize("golden", GOLDEN["question_parsing"], ids=lambda golden: golden["name"])
def test_questions_of_the_released_script_are_read_without_its_mistakes(golden: dict[str, Any]) -> None:
    """Where it takes four they are the same, or whole where it cut them; five are not four."""
    lines = [line.strip("* ") for line in golden["text"].splitlines()]
    expected = [line[2:].strip() for line in lines] if len(lines) == 4 else []
    assert read_questions(golden["text"], 4) == expected
    if golden["name"] in {"plain", "dots", "bold", "five"}:
        assert expected == (golden["questions"] if golden["kept"] else [])


# What the released scripts let pass, or refuse, against their own purpose.
_OTHERWISE = {"loop with a tail": False, "unable in a normal sentence": True}


@pytest.mark.parametrize("golden", GOLDEN["filters"], ids=lambda golden: golden["name"])
def test_answers_are_kept_as_by_the_released_script(golden: dict[str, Any]) -> None:
    """Both answers are looked at; a looser bound holds for the rejected one."""
    is_kept = not (unfit(golden["chosen"], most_repeated=0.9) or unfit(golden["rejected"]))
    assert is_kept == _OTHERWISE.get(golden["name"], golden["kept_by_postprocess_longpo_pair"])


@pytest.mark.parametrize(("count", "share"), GOLDEN["repetition_ratio_of_prose"])
def test_prose_repeats_words_and_is_kept(count: int, share: float) -> None:
    """So many words of prose repeat so large a share of them: below the bound of either answer."""
    repeated = round(count * share)
    words = [f"single{_letters(n)}" for n in range(count - repeated)] + [
        f"often{_letters(n // 2)}" for n in range(repeated)
    ]
    text = " ".join(random.Random(0).sample(words, count))
    assert unfit(text, most_repeated=0.9) == unfit(text) == ""
    assert unfit(text, most_repeated=share - 0.02) == "a repetition"
    assert unfit(text, most_repeated=share + 0.02) == ""


def _letters(number: int) -> str:
    return "".join(chr(97 + int(digit)) for digit in str(number))
