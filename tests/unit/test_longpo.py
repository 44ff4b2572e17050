"""LongPO: chunks, questions, short and long prompts, and one row of a document's turns."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pytest

from lrq.domain.records import Item, NoRow, Prompt, Response, Row, Turn
from lrq.recipes.longpo import LONGPO, chunks, parts
from lrq.recipes.ports import Answer, Case

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "longpo_data.json").read_text(encoding="utf-8"))
T = TypeVar("T")
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


@pytest.mark.parametrize("golden", GOLDEN["chunking"], ids=lambda golden: golden["name"])
def test_chunks_are_those_of_the_released_script(golden: dict[str, Any]) -> None:
    text = paragraphs(*golden["paragraph_tokens"])
    spans = chunks(text, least=golden["min_tokens"], most=golden["max_tokens"])
    pieces = [text[span.start : span.end] for span in spans]
    assert [len(piece.split()) for piece in pieces] == golden["chunk_tokens"]
    assert [f"{piece[0]}0" for piece in pieces] == golden["chunk_first_words"]


def test_sections_are_those_of_the_released_script_with_what_stands_before_the_first() -> None:
    golden = GOLDEN["sections"]
    spans = parts(golden["text"], "sections")
    preface, *sections = (golden["text"][span.start : span.end].strip() for span in spans)
    assert sections == golden["sections"]
    assert preface == "preface lost"
    assert [spans[0].start, spans[-1].end] == [0, len(golden["text"])]


def test_chunks_may_be_filled_with_sections() -> None:
    text = "\\section{A} a a a\n\nb b b \\section{B} c c c c c c"
    [first, second] = chunks(text, least=5, most=15, by="sections")
    assert text[first.start : first.end].startswith("\\section{A}")
    assert text[second.start : second.end].startswith("\\section{B}")


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


def test_a_row_has_at_most_as_many_turns_as_asked_for() -> None:
    """Of the questions that an item brings as many are drawn, in their order, and the same ones each time."""
    brought = {"questions": [f"Q{n}?" for n in range(6)], "short_contexts": [f"text {n}" for n in range(6)]}
    of = case(**brought, settings={"chunks": 3})
    asked = [prompt.followup for prompt in LONGPO.prompts(of) if prompt.name == "short"]
    assert len(asked) == 3
    assert asked == sorted(asked)
    assert [prompt.followup for prompt in LONGPO.prompts(of) if prompt.name == "long"] == asked
    whole = answered(of, *[f"{PROSE} {number}" for number in range(6)])
    (row,) = LONGPO.rows(whole, [])
    assert isinstance(row, Row)
    assert len(row.turns) == 3


def test_questions_without_a_short_context_each_make_no_row() -> None:
    of = case(questions=["Why?", "How?"], short_contexts=["Because."])
    assert LONGPO.prompts(of) == ()
    assert LONGPO.rows(of, []) == [NoRow(reason="2 questions, and 1 short_contexts: one is for each")]


class Judge:
    """Fulfils Ask: prefers the longer answer, whichever is shown first."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def __call__(
        self, kind: str, prompt: str, read: Callable[[str], T], *, dimension: str, max_tokens: int, draw: int = 0
    ) -> Answer[T]:
        self.asked.append(prompt)
        first, second = (re.search(rf"\[Answer {n}\]\n~+\n(.*?)\n~+", prompt, re.DOTALL) for n in "AB")
        assert first
        assert second
        return Answer(value=read("[[A]]" if len(first[1]) > len(second[1]) else "[[B]]"), text="", calls=("key",))


async def test_the_judge_may_be_asked_which_answer_is_better() -> None:
    """Each turn in both orders; the score of the short answer says whether it is the better one."""
    brought = {"questions": ["Why?", "How?"], "short_contexts": ["Because.", "Thus."]}
    settings = {"compare_answers": True, "passages": 0}
    of = answered(case(**brought, settings=settings), f"{PROSE} Long.", PROSE, PROSE, f"{PROSE} Long.")
    [step] = LONGPO.steps_for(of.settings)
    judge = Judge()
    scores = await step.procedure(step.judge(of, judge, None))  # type: ignore[arg-type]
    assert [(score.dimension, score.prompt, score.value) for score in scores] == [
        ("short_wins", 0, 1.0),
        ("short_wins", 2, 0.0),
    ]
    assert len(judge.asked) == 4
    assert sum("Why?" in prompt for prompt in judge.asked) == 2
    (row,) = LONGPO.rows(replace(of, scores=tuple(scores)), [])
    assert isinstance(row, Row)
    assert len(row.turns) == 2, "what the judge says is reported, and changes no row"


def test_nothing_is_judged_unless_it_is_asked_for() -> None:
    assert LONGPO.steps_for(LONGPO.settings) == ()


def test_both_prompts_of_a_question_show_what_the_released_script_shows() -> None:
    """The chunk, and all chunks of the document; ours are fenced and ask the question without a lead-in."""
    golden = GOLDEN["long_prompt"]
    [row] = golden["rows"]
    text, chunk = row["prompt"], row["messages"][0]["chunk_prompt"]
    spans = chunks(text, least=20, most=60)
    assert [text[span.start : span.end] for span in spans] == golden["chunks"][0]
    of = replace(case(questions=["Q?"], short_contexts=[chunk]), item=Item(id="doc", context=text, fields={}))
    of = replace(of, item=replace(of.item, fields={"questions": ["Q?"], "short_contexts": [chunk]}))
    shown = [prompt.render(text)[0]["content"] for prompt in LONGPO.prompts(of)]
    assert shown == [f"~~~~\n{chunk}\n~~~~\n\nQ?", f"~~~~\n{text}\n~~~~\n\nQ?"]


def test_documents_are_grouped_as_by_the_released_script() -> None:
    """A row of two turns of each; in a turn, both answers are to one question, and the short one is of its chunk."""
    golden = GOLDEN["grouping"]
    brought = {"questions": [f"q{n}" for n in range(4)], "short_contexts": [f"chunk{n}" for n in range(4)]}
    rows: list[Row] = []
    for number in range(3):
        of = case(**brought, settings={"chunks": 2})
        of = replace(of, item=replace(of.item, id=f"doc{number}"))
        sides = {"short": "c", "long": "r"}
        answers = [f"{sides[prompt.name]}{prompt.followup[1:]} {PROSE}" for prompt in LONGPO.prompts(of)]
        whole = answered(of, *answers)
        (row,) = LONGPO.rows(whole, [])
        assert isinstance(row, Row)
        rows.append(row)
        texts = {(answer.prompt, answer.k): answer.text for answer in whole.responses}
        for turn in row.turns:
            chosen, rejected = (texts[side] for side in (turn.chosen, turn.rejected))  # type: ignore[index]
            asked = whole.prompts[turn.prompt].followup[1:]
            assert (chosen[:2], rejected[:2]) == (f"c{asked}", f"r{asked}")
            assert f"chunk{asked}\n" in whole.prompts[turn.reference or 0].messages[0]["content"]
    assert len(rows) == golden["rows_postprocess_longpo_pair"]
    assert [len(row.turns) for row in rows] == golden["turns_each"]
