"""Objects that are told apart by their braces."""

import json

import pytest

from lrq.datasets.json_arrays import split_objects

ROWS = [{"a": 'x "{[" \\ y'}, {"b": ["}", {"c": "]\\"}]}, {"d": "文\n"}]


def cut(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize(
    "text",
    [
        json.dumps(ROWS),
        json.dumps(ROWS, indent=2, ensure_ascii=False),
        "\n".join(json.dumps(row, indent=1) for row in ROWS),
        "".join(map(json.dumps, ROWS)),
        "[" + json.dumps(ROWS[0]) + "]\n" + json.dumps(ROWS[1:]),
    ],
)
def test_objects_are_found_wherever_the_bytes_are_cut(text: str, size: int):
    """Brackets and quotes within strings are no ends, also where an escape stands at the end of a piece."""
    parts = list(split_objects(cut(text.encode(), size), 1000))
    assert [json.loads(part) for part in parts] == ROWS
    assert all(part.endswith(b"\n") for part in parts)


def test_what_is_no_object_is_a_part_of_its_own():
    """Numbers, texts and inner arrays; commas and white space between elements are nothing."""
    parts = list(split_objects([b'[1, "a]", {"b": 2},\n\n null, [{"c": 3}], ]'], 1000))
    assert parts == [b'1, "a]"\n', b'{"b": 2}\n', b"null\n", b'[{"c": 3}]\n']


def test_what_has_no_end_has_no_line_feed():
    """So a torn element can be told from a bad one."""
    assert list(split_objects([b'[{"a": 1}, {"b": ', b'"x'], 1000)) == [b'{"a": 1}\n', b'{"b": "x']


@pytest.mark.parametrize("size", [1, 5, 1000])
def test_of_an_over_long_element_no_more_is_kept_than_shows_that_it_is(size: int):
    """The elements beside it are whole."""
    data = b'[{"a": 1}, {"b": "' + b"x" * 500 + b'"}, {"c": 2}]'
    first, long, last = split_objects(cut(data, size), 20)
    assert (first, last) == (b'{"a": 1}\n', b'{"c": 2}\n')
    assert long == data[11:32] + b"\n"
