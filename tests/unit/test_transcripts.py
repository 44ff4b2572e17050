"""Transcripts in the form in which EvalYaks has them: broken JSON, Python dictionaries."""

import pytest

from lrq.domain.lines import BadLine, parse_entry
from lrq.domain.transcripts import read_transcript

INSTRUCTION = '<s>[INST] Read the conversation.\n\nExample:\n{\n    "GV": "<score>"\n}\n\n____________\n\n'
TURNS = [
    {"speaker": "Examiner", "text": "Where do you live?"},
    {"speaker": "Candidate", "text": 'In a "small" town.'},
    {"speaker": "Examiner", "text": "Why?"},
    {"speaker": "Candidate", "text": "It’s quiet."},
]


@pytest.mark.parametrize(
    "conversation",
    [
        # whole JSON
        'Conversation:\n\n[{"Examiner": "Where do you live?", "Candidate": "In a \\"small\\" town."}, '
        '{"Examiner": "Why?", "Candidate": "It\\u2019s quiet."}]',
        # a bracket for a comma, quotes inside quotes
        'Conversation:\n\n[{"Examiner": "Where do you live?", "Candidate": "In a "small" town."},, '
        '"Examiner": "Why?", "Candidate": "It\\u2019s quiet."}]',
        # no opening bracket, no colon, a name without its first quote
        'Conversation\n\n{"Examiner": "Where do you live?", "Candidate": "In a "small" town."}, '
        'Examiner": "Why?", Candidate": "It’s quiet."}]',
    ],
)
def test_turns_are_told_apart_by_their_speakers(conversation: str) -> None:
    transcript = read_transcript(f"{INSTRUCTION}{conversation} [/INST] {{'GV': 1}} </s>")
    assert list(transcript.turns) == TURNS
    assert (transcript.scores, transcript.material) == ("{'GV': 1}", "")


def test_the_last_header_and_the_last_end_of_the_prompt_count() -> None:
    text = f'{INSTRUCTION}Conversation:\nsee below [/INST] no\n\nConversation:\n["Candidate": "Yes."}}] [/INST]'
    transcript = read_transcript(text)
    assert list(transcript.turns) == [{"speaker": "Candidate", "text": "Yes."}]
    assert transcript.scores == ""


def test_photos_are_the_material_of_the_item_and_scores_its_answer() -> None:
    photos = "Photo Descriptions:\n\nPHOTO_ONE: a boat, PHOTO_TWO: a train\n\n"
    conversation = 'Conversation:\n\n[{"Candidate": "A boat."}]'
    entry = parse_entry({"PROMPT": f"{INSTRUCTION}{photos}{conversation} [/INST]{{'GV': 1}} </s>"}, (), "7")
    assert entry.item.id == "7"
    assert entry.item.context == "PHOTO_ONE: a boat, PHOTO_TWO: a train"
    assert entry.item.answer == "{'GV': 1}"
    assert entry.item.fields == {"turns": [{"speaker": "Candidate", "text": "A boat."}]}
    assert (entry.ignored, entry.missing) == ((), ())


@pytest.mark.parametrize(
    ("prompt", "reason"),
    [
        ("a text", "PROMPT holds no conversation between"),
        (f'{INSTRUCTION}Conversation:\n[{{"Examiner": "Go?"}}] [/INST] {{}}', "PROMPT holds no turn of a candidate"),
    ],
)
def test_what_holds_nothing_to_score_is_rejected_with_what_it_lacks(prompt: str, reason: str) -> None:
    with pytest.raises(BadLine, match=reason):
        parse_entry({"PROMPT": prompt}, (), "1")


def test_missing_scores_are_named_and_not_guessed() -> None:
    entry = parse_entry({"PROMPT": f'{INSTRUCTION}Conversation:\n[{{"Candidate": "Yes."}}] [/INST] </s>'}, (), "1")
    assert (entry.missing, entry.item.answer) == (("scores",), None)


def test_a_flattened_rubric_is_the_item_s() -> None:
    """Feedback Collection: instruction, response, reference and rubric in fields of one line."""
    line = {
        "orig_instruction": "Why?",
        "orig_response": "So.",
        "orig_reference_answer": "Because.",
        "orig_criteria": "Is it kind?",
        **{f"orig_score{score}_description": f"like {score}" for score in range(1, 6)},
        "orig_score": "3",
    }
    entry = parse_entry(line, ("question",), "1")
    assert (entry.item.question, entry.item.answer) == ("Why?", "Because.")
    assert [response.text for response in entry.responses] == ["So."]
    (rubric,) = entry.item.fields["rubrics"]
    assert rubric["orig_criteria"] == "Is it kind?"
