"""LongPO: chunks, questions, short and long prompts, and one row of a document's turns."""

from dataclasses import replace
from typing import Any

import pytest

from lrq.domain.records import Item, NoRow, Prompt, Response, Row, Turn
from lrq.recipes.longpo import LONGPO, chunks
from lrq.recipes.ports import Case

PROSE = "The pact held because neither harbour could feed its crews alone."


def paragraphs(*sizes: int) -> str:
    """Paragraphs of so many tokens: words of one letter."""
    return "\n\n".join(" ".join([chr(97 + place)] * size) for place, size in enumerate(sizes))


@pytest.mark.parametrize(
    ("sizes", "found"),
    [
        ((4, 4, 4, 4), ["ab", "cd"]),
        ((6, 4, 3), ["ab"]),  # the last would be too short
        ((6, 14, 6), ["a", "c"]),  # a paragraph over the maximum is left out
        ((14, 14, 6), ["c"]),
        ((10,), ["a"]),
        ((3,), []),
        ((), []),
    ],
)
def test_chunks_are_filled_with_whole_paragraphs(sizes: tuple[int, ...], found: list[str]) -> None:
    text = paragraphs(*sizes)
    spans = chunks(text, least=5, most=10)
    assert ["".join(dict.fromkeys(text[s.start : s.end].replace(" ", "").replace("\n", ""))) for s in spans] == found


def case(**fields: Any) -> Case:
    settings = {**LONGPO.settings, "chunk_tokens": 10, "least_chunk_tokens": 5, "questions": 2} | fields.pop(
        "settings", {}
    )
    item = Item(id="doc", context=paragraphs(6, 6, 6), fields=fields)
    return Case(item=item, texts=LONGPO.prompt_texts(), settings=settings)


def answered(of: Case, *texts: str) -> Case:
    """The case after its next prompts were answered with these texts."""
    made: tuple[Prompt, ...] = tuple(LONGPO.prompts(of))
    first = len(of.prompts)
    fresh = (Response(text=text, k=0, prompt=first + place) for place, text in enumerate(texts))
    return replace(of, prompts=(*of.prompts, *made), responses=(*of.responses, *fresh))


def test_questions_are_written_on_each_chunk_then_one_is_asked_twice() -> None:
    written = answered(case(), "1: Why a?\n2: Why b?", "no list", "1: Why c?\n2: Why d?")
    assert [prompt.name for prompt in written.prompts] == ["questions"] * 3
    assert "Write 2 questions" in written.prompts[0].messages[0]["content"]
    whole = answered(written, f"short 0. {PROSE}", f"long 0. {PROSE}", f"short 1. {PROSE}", f"long 1. {PROSE}")
    assert [prompt.name for prompt in whole.prompts[3:]] == ["short", "long", "short", "long"]
    short, long = (whole.prompts[n].render(whole.item.context)[0]["content"] for n in (3, 4))
    assert short == f"~~~~\na a a a a a\n~~~~\n\n{whole.prompts[3].followup}"
    assert long == f"~~~~\n{whole.item.context}\n~~~~\n\n{whole.prompts[4].followup}"
    assert LONGPO.prompts(whole) == ()
    assert LONGPO.rows(whole, []) == [
        Row(
            turns=(
                Turn(prompt=4, chosen=(3, 0), rejected=(4, 0), reference=3),
                Turn(prompt=6, chosen=(5, 0), rejected=(6, 0), reference=5),
            )
        )
    ]


def test_a_turn_whose_answers_are_unfit_is_left_out() -> None:
    written = answered(case(), *["1: Why?\n2: How?"] * 3)
    whole = answered(written, PROSE, "As an AI, I cannot say.", PROSE, PROSE, PROSE, f"But {PROSE}")
    (row,) = LONGPO.rows(whole, [])
    assert isinstance(row, Row)
    assert [turn.prompt for turn in row.turns] == [8]
    none = answered(written, PROSE, "", PROSE, PROSE, "", PROSE)
    assert LONGPO.rows(none, []) == [NoRow(reason="long: empty; answers: the same text; short: empty")]


def test_without_a_readable_list_there_is_no_row() -> None:
    written = answered(case(), "none", "none", "none")
    assert LONGPO.prompts(written) == []
    assert LONGPO.rows(written, []) == [NoRow(reason="no chunk has a list of questions that can be read")]


def test_an_item_may_bring_its_questions_with_their_short_contexts() -> None:
    asked = LONGPO.prompts(case(questions=["Why?"], short_contexts=["Because of \ufffc."]))
    assert [prompt.render("LONG")[0]["content"] for prompt in asked] == [
        "~~~~\nBecause of  .\n~~~~\n\nWhy?",
        "~~~~\nLONG\n~~~~\n\nWhy?",
    ]


def test_a_teacher_may_write_the_questions() -> None:
    assert {prompt.by for prompt in LONGPO.prompts(case(settings={"questions_by": "teacher"}))} == {"teacher"}
