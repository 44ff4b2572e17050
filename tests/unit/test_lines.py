"""What a dataset's line may hold."""

import json
import re
from typing import Any

import pytest

from lrq.domain.lines import BadLine, parse_entry, parse_response

LONGREWARD = {"context", "question"}


def reason(line: object, needs: set[str] | None = None) -> str:
    with pytest.raises(BadLine) as caught:
        parse_entry(line, LONGREWARD if needs is None else needs)
    return str(caught.value)


def line(**fields: Any) -> dict[str, Any]:
    return {"id": "a", "context": "Text.", "question": "Why?"} | fields


def test_a_line_under_our_names_becomes_an_item():
    """Every field arrives under its own name."""
    entry = parse_entry(line(answer="So.", responses=["one", "two"], system="Be brief."), LONGREWARD)
    assert (entry.item.id, entry.item.context, entry.item.question, entry.item.answer) == ("a", "Text.", "Why?", "So.")
    assert [(response.k, response.text) for response in entry.responses] == [(0, "one"), (1, "two")]
    assert entry.item.fields == {"system": ["Be brief."]}
    assert entry.ignored == ()


def test_a_line_of_longreward_becomes_the_same_item():
    """idx, query and reference are read as id, question and answer; a number as its digits."""
    entry = parse_entry({"idx": 11, "query": "Why?", "reference": "So.", "context": "Text."}, LONGREWARD)
    assert (entry.item.id, entry.item.question, entry.item.answer) == ("11", "Why?", "So.")
    assert entry.ignored == ()


def test_a_name_wins_over_its_alias_and_the_alias_is_counted_as_ignored():
    """A table that carries a row number beside its ids keeps its ids."""
    entry = parse_entry(line(idx=4, query="Other?"), LONGREWARD)
    assert (entry.item.id, entry.item.question) == ("a", "Why?")
    assert entry.ignored == ("idx", "query")


def test_an_alias_counts_where_the_name_is_null():
    """Tables fill missing cells with null."""
    assert parse_entry(line(id=None, idx=4), LONGREWARD).item.id == "4"


def test_unknown_fields_are_named():
    """A misspelt field can be noticed."""
    assert parse_entry(line(reponses=["x"], source="web"), LONGREWARD).ignored == ("reponses", "source")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"id": None}, "id (or idx) is missing"),
        ({"id": ""}, "id (or idx) is empty"),
        ({"id": "  "}, "id (or idx) is blank"),
        ({"id": 1.5}, "id (or idx) must be text or a whole number, not a number"),
        ({"id": True}, "id (or idx) must be text or a whole number, not true or false"),
        ({"id": ["a"]}, "id (or idx) must be text or a whole number, not a list"),
        ({"id": "a\x07b"}, "id (or idx) holds a character that cannot be printed (U+0007)"),
        ({"id": "a\nb"}, "id (or idx) holds a character that cannot be printed (U+000A)"),
        ({"id": "a\ud800"}, "id (or idx) holds a character that cannot be printed (U+D800)"),
        ({"id": "x" * 201}, "id (or idx) has 201 characters; at most 200 are allowed"),
        ({"context": None}, "context is missing"),
        ({"context": " \n"}, "context is empty"),
        ({"context": [5, {"x": 1}]}, "context[0] must be text, not a number"),
        ({"question": 5}, "question (or query) must be text, not a number"),
        ({"question": ""}, "question (or query) is empty"),
        ({"context": "ab\0c"}, "context holds a NUL character at position 2; remove it"),
        ({"context": "ab\udc00c"}, "context holds half a surrogate pair at position 2; remove it"),
        ({"responses": "one"}, "responses (or completions) must be a list, not text"),
        ({"responses": ["one", True]}, "responses[1] must be text, not true or false"),
        ({"responses": ["one", {"tokens": 3}]}, "responses[1] must be text, not an object"),
        ({"responses": ["one", "a\0"]}, "responses[1] holds a NUL character at position 1; remove it"),
    ],
)
def test_what_cannot_be_used_is_refused_with_the_reason(fields: dict[str, Any], said: str):
    """The reason names the field and what is wrong with it."""
    assert reason(line(**fields)) == said


ROLES = "messages[0].role must be assistant, system, tool, user, not"
UNUSABLE = [
    ({"answer": {"a": 1}}, "answer (or reference) must be text, not an object"),
    ({"system": {"a": 1}}, "system must be a list, not an object"),
    ({"system": ["a", " "]}, "system[1] is empty"),
    ({"short_contexts": ["a", ""]}, "short_contexts[1] is empty"),
    ({"questions": ["a", 2]}, "questions[1] must be text, not a number"),
    ({"rubrics": [1]}, "rubrics[0] must be text or an object, not a number"),
    ({"rubrics": [{"a": "\0"}]}, "rubrics[0] holds a NUL character at position 0; remove it"),
    ({"turns": [{"a": {1, 2}}]}, "turns[0] holds a value of type set, which is not JSON"),
    ({"messages": ["hello"]}, "messages[0] must be an object with role and content, not text"),
    ({"messages": [{"role": "oracle", "content": "x"}]}, f"{ROLES} 'oracle'"),
    ({"messages": [{"content": "x"}]}, f"{ROLES} None"),
    (
        {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
        "messages[0].content must be text, not a list",
    ),
]


@pytest.mark.parametrize(("fields", "said"), UNUSABLE)
def test_a_field_that_cannot_be_read_costs_the_line_only_where_it_is_needed(fields: dict[str, Any], said: str):
    """Elsewhere the field is dropped with its reason, and the line is kept."""
    (name,) = fields
    assert reason(line(**fields), LONGREWARD | {name}) == said
    entry = parse_entry(line(**fields), LONGREWARD)
    assert entry.dropped == {name: said}
    assert (entry.item.id, entry.item.answer, entry.item.fields, entry.ignored) == ("a", None, {}, ())


@pytest.mark.parametrize("value", [None, [], "text", 5])
def test_a_line_that_is_no_object_is_refused(value: object):
    """JSON has other values than objects."""
    assert reason(value).endswith("a line is one JSON object")


@pytest.mark.parametrize(
    "needed", ["answer", "responses", "system", "rubrics", "questions", "short_contexts", "messages", "turns"]
)
def test_what_the_recipe_needs_must_be_there(needed: str):
    """Each field is optional unless the recipe asks for it."""
    parse_entry(line(), LONGREWARD)
    assert re.fullmatch(rf"{needed}( \(or \w+\))? is missing", reason(line(), {needed}))
    assert reason(line(**{needed: [] if needed != "answer" else " "}), {needed}).endswith("is empty")


def test_a_recipe_without_context_takes_lines_without_one():
    """An item can be an instruction alone."""
    item = parse_entry({"id": "a", "question": "Why?", "context": ""}, {"question"}).item
    assert item.context == ""


def test_responses_without_text_are_none_and_the_others_keep_their_place():
    """Empty, blank and null responses are told apart from those to be judged, which are not renumbered."""
    entry = parse_entry(line(responses=["", "two", " \n", None, {"response": None}, "six"]), LONGREWARD)
    assert [(response.k, response.text) for response in entry.responses] == [(1, "two"), (5, "six")]
    assert entry.blank == (0, 2, 3, 4)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"response": "So.", "model": "m", "annotations": {"x": 1}}, "So."),
        ({"text": "So.", "score": 4}, "So."),
        ({"content": [{"type": "text", "text": "So"}, {"type": "text", "text": "it is."}]}, "So\nit is."),
        ({"message": {"role": "assistant", "content": "So."}, "index": 0}, "So."),
        ([{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}], "So."),
        (42, "42"),
    ],
)
def test_a_response_may_be_an_object_with_its_text(value: object, text: str):
    """As UltraFeedback, generators and servers write them."""
    (response,) = parse_entry(line(completions=[value]), LONGREWARD).responses
    assert response.text == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (["January", "Jan"], "January\nJan"),
        (42, "42"),
        (4.5, "4.5"),
        (3.0, "3"),
        (True, "true"),
        ({"text": ["Jan"], "answer_start": [5]}, "Jan"),
        ([], None),
    ],
)
def test_an_answer_may_be_a_number_or_a_list(value: object, text: str | None):
    """As LongBench, InfiniteBench and tables have them."""
    for name in ("answer", "answers", "reference_answer"):
        entry = parse_entry(line(**{name: value}), LONGREWARD)
        assert (entry.item.answer, entry.dropped) == (text, {})


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (["One.", "Two."], "One.\n\nTwo."),
        ([{"title": "A", "text": "One."}, {"paragraph_text": "Two."}], "A\nOne.\n\nTwo."),
        ([["A", ["One.", " Two."]], ["B", ["Three."]]], "A\nOne. Two.\n\nB\nThree."),
        ({"title": ["A", "B"], "sentences": [["One.", " Two."], ["Three."]]}, "A\nOne. Two.\n\nB\nThree."),
    ],
)
def test_a_context_may_be_a_list_of_passages(value: object, text: str):
    """They are joined by blank lines, under their titles."""
    assert parse_entry(line(context=value), LONGREWARD).item.context == text


@pytest.mark.parametrize(("value", "text"), [(1.0, "1"), (-3.0, "-3"), (10**30, "1" + "0" * 30)])
def test_a_whole_number_is_an_id_however_it_is_written(value: float, text: str):
    """A column of numbers with a gap turns into floats."""
    assert parse_entry(line(id=value), LONGREWARD).item.id == text


def test_published_names_are_read():
    """LongBench's and Multifaceted's fields, among others that nobody reads."""
    longbench = {"_id": "x1", "input": "Why?", "context": "Text.", "answers": ["So."], "length": 503}
    entry = parse_entry(longbench, LONGREWARD)
    assert (entry.item.id, entry.item.question, entry.item.answer, entry.ignored) == ("x1", "Why?", "So.", ("length",))
    multifaceted = {"system": "Be kind.", "prompt": "Why?", "reference_answer": "So.", "rubric": [{"criteria": "c"}]}
    entry = parse_entry(multifaceted, {"question", "rubrics"}, default_id="7")
    assert (entry.item.id, entry.item.question, entry.item.answer) == ("7", "Why?", "So.")
    assert entry.item.fields == {"system": ["Be kind."], "rubrics": [{"criteria": "c"}]}


def test_a_default_id_is_for_lines_without_a_field_for_it():
    """One that is null or empty is a gap in the data."""
    assert parse_entry({"context": "Text.", "question": "Why?"}, LONGREWARD, default_id="7").item.id == "7"
    for absent in (None, ""):
        with pytest.raises(BadLine, match=r"id \(or idx\) is (missing|empty)"):
            parse_entry(line(id=absent), LONGREWARD, default_id="7")


def test_ids_may_be_long_and_in_any_script():
    """200 printable characters are allowed, Chinese and spaces among them."""
    for good in ("x" * 200, "文档 7", "-5", "a/b:c"):
        assert parse_entry(line(id=good), LONGREWARD).item.id == good


def test_deep_nesting_is_refused_before_anything_overflows():
    """Rubrics, turns and texts are bounded in depth."""
    deep: dict[str, Any] = {}
    nested: list[Any] = []
    for _ in range(900):
        deep, nested = {"a": deep}, [nested]
    assert reason(line(turns=[deep]), {"turns"}) == "turns[0] is nested deeper than 64 levels"
    assert reason(line(answer=nested), {"answer"}) == "answer (or reference) must be text, not a list"


def test_a_chat_keeps_roles_and_contents_alone():
    """Further keys of a message are dropped."""
    chat = [{"role": "system", "content": "S", "name": "x"}, {"role": "user", "content": "U"}]
    fields = parse_entry(line(messages=chat), LONGREWARD).item.fields
    assert fields == {"messages": [{"role": "system", "content": "S"}, {"role": "user", "content": "U"}]}


def test_a_chat_may_hold_tool_turns_parts_and_null():
    """What calls tools and says nothing stands there as JSON."""
    call = {"type": "function", "function": {"name": "look", "arguments": "{}"}}
    chat = [
        {"role": "developer", "content": "S"},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "7", "tool_call_id": "x"},
        {"role": "assistant", "content": None},
    ]
    fields = parse_entry(line(messages=chat), LONGREWARD | {"messages"}).item.fields
    roles, contents = zip(*((one["role"], one["content"]) for one in fields["messages"]), strict=True)
    assert roles == ("system", "user", "assistant", "tool", "assistant")
    assert contents == ("S", "a\nb", json.dumps([call]), "7", "")


def test_a_sampled_response_names_its_item_and_number():
    """The last dash divides, so item ids may hold dashes."""
    given = parse_response({"idx": "doc-7-12", "query": "Why?", "answer": "So."})
    assert (given.item, given.response.k, given.response.text) == ("doc-7", 12, "So.")


@pytest.mark.parametrize(
    ("sampled", "said"),
    [
        ([], "the line is a list; a line is one JSON object"),
        ({"answer": "x"}, "idx (or id) is missing"),
        ({"idx": "a-1"}, "answer is missing"),
        ({"idx": 11, "answer": "x"}, "idx does not end in -<k>, the response's number from 0 to 999999"),
        ({"idx": "a-", "answer": "x"}, "idx does not end in -<k>, the response's number from 0 to 999999"),
        ({"idx": "-1", "answer": "x"}, "idx does not end in -<k>, the response's number from 0 to 999999"),
        ({"idx": "a-1000000", "answer": "x"}, "idx does not end in -<k>, the response's number from 0 to 999999"),
        ({"idx": "a-٣", "answer": "x"}, "idx does not end in -<k>, the response's number from 0 to 999999"),
        ({"idx": "a-1", "answer": {"x": 1}}, "answer (or reference) must be text, not an object"),
        ({"idx": "x" * 201 + "-1", "answer": "x"}, "idx has 201 characters; at most 200 are allowed"),
    ],
)
def test_a_sampled_response_that_cannot_be_used_is_refused(sampled: object, said: str):
    """The reason says what is expected."""
    with pytest.raises(BadLine) as caught:
        parse_response(sampled)
    assert str(caught.value) == said
