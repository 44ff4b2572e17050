"""What a dataset's line may hold."""

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
        ({"context": ["a"]}, "context must be text, not a list"),
        ({"question": 5}, "question (or query) must be text, not a number"),
        ({"question": ""}, "question (or query) is empty"),
        ({"context": "ab\0c"}, "context holds a NUL character at position 2; remove it"),
        ({"context": "ab\udc00c"}, "context holds half a surrogate pair at position 2; remove it"),
        ({"answer": 5}, "answer (or reference) must be text, not a number"),
        ({"responses": "one"}, "responses must be a list, not text"),
        ({"responses": ["one", None]}, "responses[1] must be text, not null"),
        ({"system": {"a": 1}}, "system must be a list, not an object"),
        ({"system": ["a", " "]}, "system[1] is empty"),
        ({"short_contexts": ["a", ""]}, "short_contexts[1] is empty"),
        ({"rubrics": [1]}, "rubrics[0] must be text or an object, not a number"),
        ({"rubrics": [{"a": "\0"}]}, "rubrics[0] holds a NUL character at position 0; remove it"),
        ({"turns": [{"a": {1, 2}}]}, "turns[0] holds a value of type set, which is not JSON"),
        ({"messages": ["hello"]}, "messages[0] must be an object with role and content, not text"),
        (
            {"messages": [{"role": "tool", "content": "x"}]},
            "messages[0].role must be user or assistant, or system in the first message",
        ),
        (
            {"messages": [{"role": "user", "content": "x"}, {"role": "system", "content": "x"}]},
            "messages[1].role must be user or assistant, or system in the first message",
        ),
        ({"messages": [{"role": "user"}]}, "messages[0].content must be text, not null"),
    ],
)
def test_what_cannot_be_used_is_refused_with_the_reason(fields: dict[str, Any], said: str):
    """The reason names the field and what is wrong with it."""
    assert reason(line(**fields)) == said


@pytest.mark.parametrize("value", [None, [], "text", 5])
def test_a_line_that_is_no_object_is_refused(value: object):
    """JSON has other values than objects."""
    assert reason(value).endswith("a line is one JSON object")


@pytest.mark.parametrize("needed", ["answer", "responses", "system", "rubrics", "short_contexts", "messages", "turns"])
def test_what_the_recipe_needs_must_be_there(needed: str):
    """Each field is optional unless the recipe asks for it."""
    parse_entry(line(), LONGREWARD)
    assert reason(line(), {needed}) in {f"{needed} is missing", f"{needed} (or reference) is missing"}
    assert reason(line(**{needed: [] if needed != "answer" else " "}), {needed}).endswith("is empty")


def test_a_recipe_without_context_takes_lines_without_one():
    """An item can be an instruction alone."""
    item = parse_entry({"id": "a", "question": "Why?", "context": ""}, {"question"}).item
    assert item.context == ""


def test_empty_responses_keep_their_place():
    """An empty response is a response; dropping it would renumber the others."""
    entry = parse_entry(line(responses=["", "two"]), LONGREWARD)
    assert [(response.k, response.text) for response in entry.responses] == [(0, ""), (1, "two")]


def test_ids_may_be_long_and_in_any_script():
    """200 printable characters are allowed, Chinese and spaces among them."""
    for good in ("x" * 200, "文档 7", "-5", "a/b:c"):
        assert parse_entry(line(id=good), LONGREWARD).item.id == good


def test_deep_nesting_is_refused_before_anything_overflows():
    """Rubrics and turns are bounded in depth."""
    deep: dict[str, Any] = {}
    for _ in range(900):
        deep = {"a": deep}
    assert reason(line(turns=[deep])) == "turns[0] is nested deeper than 64 levels"


def test_a_chat_keeps_roles_and_contents_alone():
    """Further keys of a message are dropped."""
    chat = [{"role": "system", "content": "S", "name": "x"}, {"role": "user", "content": "U"}]
    fields = parse_entry(line(messages=chat), LONGREWARD).item.fields
    assert fields == {"messages": [{"role": "system", "content": "S"}, {"role": "user", "content": "U"}]}


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
        ({"idx": "a-1", "answer": ["x"]}, "answer (or reference) must be text, not a list"),
        ({"idx": "x" * 201 + "-1", "answer": "x"}, "idx has 201 characters; at most 200 are allowed"),
    ],
)
def test_a_sampled_response_that_cannot_be_used_is_refused(sampled: object, said: str):
    """The reason says what is expected."""
    with pytest.raises(BadLine) as caught:
        parse_response(sampled)
    assert str(caught.value) == said
