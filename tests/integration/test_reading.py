"""Datasets and sampled responses as files on disk."""

import gzip
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
import zstandard

from lrq.datasets import parquet, sources
from lrq.datasets.dataset import MAX_NAMES, Dataset, ResponsesFile
from lrq.domain.errors import LrqError, UsageError

LONGREWARD = {"context", "question"}
EXAMPLE = Path(
    os.environ.get("LRQ_EXAMPLE_DATA") or Path(__file__).parents[3] / "shared/data/longreward-example"
).resolve()


def line(at: object, **fields: Any) -> bytes:
    return orjson.dumps({"id": at, "context": "Text.", "question": "Why?"} | fields) + b"\n"


def write(path: Path, *parts: bytes) -> str:
    path.write_bytes(b"".join(parts))
    return str(path)


def found(dataset: Iterable[Any]) -> list[tuple[int, str]]:
    """Number and id, or reason, of every line."""
    return [(read.number, read.value.item.id if read.value else read.reason) for read in dataset]


def sampled(of: str, text: str) -> bytes:
    return orjson.dumps({"idx": of, "query": "Why?", "answer": text}) + b"\n"


def test_bad_lines_are_rejected_with_their_numbers_and_the_rest_goes_on(tmp_path: Path):
    """One bad line costs one line."""
    path = write(
        tmp_path / "d.jsonl",
        line("a"),
        b'{"id": "b",\n',
        b"[1]\n",
        b'{"id": "c", "context": "\xff"}\n',
        line("d", context=""),
        line("e\x07"),
        line("f"),
        b'{"id": "g", "context": "Te',
    )
    assert found(Dataset(path, LONGREWARD)) == [
        (1, "a"),
        (2, "not JSON (unexpected end of data at column 1)"),
        (3, "not a JSON object"),
        (4, "not UTF-8 (byte 25 of the line)"),
        (5, "context is empty"),
        (6, "id (or idx) holds a character that cannot be printed (U+0007)"),
        (7, "f"),
        (8, "torn: the last line has no end and is not JSON (unexpected end of data)"),
    ]


def test_editors_habits_are_tolerated(tmp_path: Path):
    """A byte order mark, CRLF, blank lines and a last line without its end; numbers stay those of the file."""
    path = write(tmp_path / "d.jsonl", b"\xef\xbb\xbf", line("a")[:-1], b"\r\n\r\n  \n", line("b")[:-1])
    assert found(Dataset(path, LONGREWARD)) == [(1, "a"), (4, "b")]


def test_an_over_long_line_is_skipped_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Its tail is not read as lines of their own; a line at the bound passes."""
    monkeypatch.setattr(sources, "MAX_LINE", len(line("a")))
    path = write(tmp_path / "d.jsonl", line("a"), line("b", context="x" * 3_000_000), line("c"), line("dd"))
    assert found(Dataset(path, LONGREWARD)) == [
        (1, "a"),
        (2, "the line is longer than 0 MB"),
        (3, "c"),
        (4, "the line is longer than 0 MB"),
    ]


def test_an_empty_file_has_no_lines(tmp_path: Path):
    """Nothing is neither an item nor an error."""
    assert found(Dataset(write(tmp_path / "d.jsonl"), LONGREWARD)) == []
    assert found(Dataset(write(tmp_path / "e.jsonl.zst"), LONGREWARD)) == []


def compress(data: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(data)


def test_compressed_lines_are_read_over_several_frames(tmp_path: Path):
    """Frames may end within a line; frames without content are passed over."""
    data = b"".join(line(at) for at in range(1000))
    skippable = b"\x50\x2a\x4d\x18\x03\x00\x00\x00abc"
    path = write(tmp_path / "d.jsonl.zst", compress(data[:12345]), skippable, compress(b""), compress(data[12345:]))
    assert [at for _, at in found(Dataset(path, LONGREWARD))] == [str(at) for at in range(1000)]


def test_a_cut_compressed_file_does_not_pass_for_a_whole_one(tmp_path: Path):
    """The lines before the cut count, and the cut is said."""
    data = b"".join(line(at, context=os.urandom(200).hex()) for at in range(2000))
    whole = compress(data)
    *items, (number, reason) = found(Dataset(write(tmp_path / "d.jsonl.zst", whole[: len(whole) // 2]), LONGREWARD))
    assert reason == "the compressed data is damaged or ends early (cut within a frame)"
    assert items == [(at + 1, str(at)) for at in range(number - 1)]
    assert 500 < number < 1500


@pytest.mark.parametrize("name", ["d.jsonl", "d.jsonl.zst", "d.jsonl.gz", "d.json", "d.parquet", "d.txt"])
@pytest.mark.parametrize("pack", [bytes, compress, gzip.compress])
def test_a_file_is_what_its_content_says(tmp_path: Path, pack: Callable[[bytes], bytes], name: str):
    """Names are no proof."""
    assert found(Dataset(write(tmp_path / name, pack(line("a") + line("b"))), LONGREWARD)) == [(1, "a"), (2, "b")]


def test_damaged_packing_is_said_in_one_line(tmp_path: Path):
    """What begins with the mark of a packing and holds none is refused; damage in the middle ends the reading."""
    for name, head in (("d.jsonl.zst", b"\x28\xb5\x2f\xfd"), ("d.jsonl.gz", b"\x1f\x8b")):
        with pytest.raises(UsageError, match=rf"{re.escape(name)} is (zstd|gzip) data that cannot be decompressed"):
            Dataset(write(tmp_path / name, head + b"none at all" * 9))
    whole = gzip.compress(b"".join(line(at, context=os.urandom(200).hex()) for at in range(2000)))
    damaged = whole[:200_000] + b"\0" * 100 + whole[200_100:]
    *items, (number, reason) = found(Dataset(write(tmp_path / "e.jsonl.gz", damaged), LONGREWARD))
    assert "the compressed data is damaged or ends early" in reason
    assert items[:400] == [(at + 1, str(at)) for at in range(400)]
    assert number == len(items) + 1


@pytest.mark.parametrize("codec", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-8-sig"])
def test_other_encodings_of_unicode_are_read(tmp_path: Path, codec: str):
    """With their mark or without; editors of Windows write them."""
    text = (line("ü") + line("文", context="🚢 x")).decode()
    assert found(Dataset(write(tmp_path / "d.jsonl", text.encode(codec)), LONGREWARD)) == [(1, "ü"), (2, "文")]


def test_half_a_surrogate_pair_in_utf16_costs_its_line(tmp_path: Path):
    """The others are read."""
    text = line("a").decode() + '{"id": "b", "context": "x\ud83d"}\n' + line("c").decode()
    read = found(Dataset(write(tmp_path / "d.jsonl", text.encode("utf-16", "surrogatepass")), LONGREWARD))
    assert read == [(1, "a"), (2, "not UTF-8 (byte 26 of the line)"), (3, "c")]


@pytest.mark.parametrize("indent", [None, 2])
def test_a_json_array_is_read_element_by_element(tmp_path: Path, indent: int | None):
    """On one line or over many; an element that cannot be used costs itself."""
    rows: list[object] = [orjson.loads(line(at, context='a "b" \\ {[ \n')) for at in "ab"]
    rows[1:1] = [5, {"id": "x"}, [orjson.loads(line("inner"))]]
    path = write(tmp_path / "d.json", json.dumps(rows, indent=indent).encode())
    *first, last = found(Dataset(path, LONGREWARD))
    assert first == [(1, "a"), (2, "not a JSON object"), (3, "context is missing"), (4, "not a JSON object")]
    assert last == (5, "b")


def test_objects_over_many_lines_and_old_line_ends_are_read(tmp_path: Path):
    """Told apart by their braces; of a torn one the reason is given."""
    pretty = "\n".join(json.dumps(orjson.loads(line(at)), indent=1) for at in "ab").encode()
    assert found(Dataset(write(tmp_path / "p.jsonl", pretty), LONGREWARD)) == [(1, "a"), (2, "b")]
    old = (line("a") + line("b")).replace(b"\n", b"\r")
    assert found(Dataset(write(tmp_path / "o.jsonl", old), LONGREWARD)) == [(1, "a"), (2, "b")]
    *items, (number, reason) = found(Dataset(write(tmp_path / "t.jsonl", pretty[:-10]), LONGREWARD))
    assert (items, number, reason[:5]) == ([(1, "a")], 2, "torn:")


def test_what_python_and_pandas_write_is_read(tmp_path: Path):
    """NaN stands for nothing; a field nobody reads may hold what it likes; long numbers keep their digits."""
    path = write(
        tmp_path / "d.jsonl",
        b'{"id": 1.0, "context": "x", "question": "q", "answer": NaN, "score": -Infinity}\n',
        b'{"id": "b", "context": "x", "question": "q", "title": "x\\ud83d"}\n',
        b'{"id": 123456789012345678901234567890, "context": "x", "question": "q"}\n',
        b'{"id": "d", "context": NaN, "question": "q"}\n',
    )
    assert found(Dataset(path, LONGREWARD)) == [
        (1, "1"),
        (2, "b"),
        (3, "123456789012345678901234567890"),
        (4, "context is missing"),
    ]


def test_lines_without_ids_are_numbered(tmp_path: Path):
    """Where the first has no field for one; a gap in a column of ids is no such thing."""
    rows = [b'{"context": "x", "question": "q"}\n'] * 3
    assert found(Dataset(write(tmp_path / "d.jsonl", *rows), LONGREWARD)) == [(1, "1"), (2, "2"), (3, "3")]
    later = Dataset(write(tmp_path / "e.jsonl", line("a"), rows[0]), LONGREWARD)
    assert found(later) == [(1, "a"), (2, "id (or idx) is missing")]


def test_a_folder_and_a_pattern_are_their_files(tmp_path: Path):
    """In the order of their names, each with its own numbers; other files of a folder are passed over."""
    write(tmp_path / "b.jsonl.gz", gzip.compress(line("b") + b"{\n"))
    write(tmp_path / "a.json", b"[" + line("a") + b"]")
    write(tmp_path / "README.md", b"words\n")
    write(tmp_path / ".hidden.jsonl", line("h"))
    whole = [(read.source, read.number, read.value is not None) for read in Dataset(str(tmp_path), LONGREWARD)]
    assert whole == [("a.json", 1, True), ("b.jsonl.gz", 1, True), ("b.jsonl.gz", 2, False)]
    pattern = Dataset(str(tmp_path / "*.gz"), LONGREWARD)
    assert found(pattern)[0] == (1, "b")
    assert pattern.source.position == pattern.source.total == os.path.getsize(tmp_path / "b.jsonl.gz")


def test_lines_that_differ_in_their_system_message_are_one_item_with_an_answer_to_each(tmp_path: Path):
    """In the order of their first lines, wherever the others stand; lines with an id or rubrics stay as they are."""
    lines = [
        {"prompt": "Why?", "system": "Be brief.", "output": "So."},
        {"prompt": "How?", "system": "Be kind.", "output": "Dear, thus."},
        {"prompt": "Why?", "system": "Be kind.", "output": "Dear, so.", "main_source": "m"},
        {"prompt": "Why?", "system": "Be kind.", "output": "Dear, so."},
        {"prompt": "Why?", "system": "Be dry.", "reference_answer": "So.", "rubrics": ["Dry?"]},
    ]
    path = write(tmp_path / "d.jsonl", *(json.dumps(one).encode() + b"\n" for one in lines))
    read = [one.value for one in Dataset(path, ("question",), joins_systems=True) if one.value is not None]
    assert [(one.item.id, one.item.question, one.item.fields["system"]) for one in read] == [
        ("5", "Why?", ["Be dry."]),
        ("1", "Why?", ["Be brief.", "Be kind."]),
        ("2", "How?", ["Be kind."]),
    ]
    assert [[response.text for response in one.responses] for one in read] == [
        [],
        ["So.", "Dear, so."],
        ["Dear, thus."],
    ]
    assert len(list(Dataset(path, ("question",)))) == 5


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_a_csv_of_transcripts_is_read_and_says_what_it_lacks(tmp_path: Path, pack: Callable[[bytes], bytes]):
    """Texts go over several lines; a line without a candidate is rejected, one without scores is named."""
    asked = '<s>[INST] Score it.\n\nConversation:\n\n[{""Examiner"": ""Go?""%s}] [/INST] %s </s>'
    answer = ', ""Candidate"": ""Yes.""'
    scores = "{'GV': 1}"
    prompts = [asked % (answer, scores), asked % ("", scores), asked % (answer, "")]
    text = "PROMPT\n" + "".join(f'"{prompt}"\n' for prompt in prompts)
    dataset = Dataset(write(tmp_path / "part.csv", pack(text.encode())))
    lines = list(dataset)
    assert [(one.number, one.value and one.value.item.answer) for one in lines] == [(1, scores), (2, None), (3, None)]
    assert lines[1].reason.startswith("PROMPT holds no turn of a candidate")
    assert dict(dataset.missing) == {"scores": 1}


CSV = b'id,context,question\n1,"Some text, long",q?\n'
FOREIGN = [
    (CSV, "is CSV or another table"),
    (b"id\tcontext\n1\tx\n", "is CSV or another table"),
    (b"\xef\xbb\xbf" + CSV, "is CSV or another table"),
    (gzip.compress(CSV), "is CSV or another table"),
    (CSV.decode().encode("utf-16"), "is CSV or another table"),
    (b"\n<!DOCTYPE html>\n<html><body>Access denied</body></html>\n", "is HTML, a web page"),
    (b'<?xml version="1.0"?>\n<Error><Code>AccessDenied</Code></Error>', "is XML"),
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 1033\n", "is a Git LFS pointer"),
    (b"PK\x03\x04" + bytes(60), "is a zip archive"),
    (b"BZh91AY&SY" + bytes(60), "is compressed by bzip2"),
    (b"\xfd7zXZ\x00" + bytes(60), "is compressed by xz"),
    (b"ARROW1\x00\x00" + bytes(60), "is an Arrow"),
    (b"\x80\x04\x95" + bytes(60), "is binary data"),
    (b"a" * 257 + b"ustar" + bytes(60), "is a tar archive"),
    (gzip.compress(gzip.compress(line("a"))), "is packed twice"),
    (b"just some words\nand more of them\n", "is no JSON: it begins with 'just some words'"),
    (b"PAR1 nothing PAR1", "is a damaged Parquet file"),
]


@pytest.mark.parametrize(("data", "said"), FOREIGN, ids=[said for _, said in FOREIGN])
def test_what_holds_no_json_objects_is_refused_as_a_whole(tmp_path: Path, data: bytes, said: str):
    """In one line that says what it is, not in a reason for each of its lines."""
    with pytest.raises(UsageError) as caught:
        Dataset(write(tmp_path / "d.jsonl", data))
    assert f"d.jsonl {said}" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("absent.jsonl", "cannot read .*: No such file or directory"),
        ("part-*.jsonl", "cannot read .*: no file has such a name"),
        ("folder", "is a folder without a file that ends in .jsonl"),
        ("hf://datasets/a/b", "download the data set first"),
    ],
)
def test_what_cannot_be_read_is_refused_in_one_line(tmp_path: Path, name: str, said: str):
    """The line says what would do."""
    (tmp_path / "folder").mkdir()
    with pytest.raises(UsageError, match=said) as caught:
        Dataset(name if "://" in name else str(tmp_path / name))
    assert "\n" not in str(caught.value)


def test_standard_input_is_read_and_left_open(monkeypatch: pytest.MonkeyPatch):
    """`-` stands for it; nobody knows its size."""
    stdin = io.TextIOWrapper(io.BufferedReader(io.BytesIO(line("a") + line("b"))))
    monkeypatch.setattr(sys, "stdin", stdin)
    dataset = Dataset("-", LONGREWARD)
    assert found(dataset) == [(1, "a"), (2, "b")]
    assert dataset.source.total is None
    assert not stdin.buffer.closed


@pytest.mark.parametrize("pack", [bytes, compress])
def test_reading_knows_how_far_it_is(tmp_path: Path, pack: Callable[[bytes], bytes]):
    """The position grows to the size of the file on disk."""
    data = b"".join(line(at, context=os.urandom(500).hex()) for at in range(5000))
    name = "d.jsonl" if pack is bytes else "d.jsonl.zst"
    dataset = Dataset(write(tmp_path / name, pack(data)), LONGREWARD)
    seen = [dataset.source.position for _ in dataset]
    assert seen == sorted(seen)
    assert 0 < seen[0] < seen[-1] == dataset.source.total == os.path.getsize(tmp_path / name)


def test_ignored_fields_are_counted_and_the_count_stays_small(tmp_path: Path):
    """Names are data, so a file of ever new names must not fill the memory."""
    path = write(tmp_path / "d.jsonl", *(line(at, source="web", **{f"new{at}": 1}) for at in range(2 * MAX_NAMES)))
    dataset = Dataset(path, LONGREWARD)
    found(dataset)
    assert dataset.ignored["source"] == 2 * MAX_NAMES
    assert len(dataset.ignored) == MAX_NAMES + 1
    assert dataset.ignored["(others)"] == MAX_NAMES + 1


def write_parquet(path: Path, columns: dict[str, Any], **options: Any) -> str:
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(arrow.table(columns), path, **options)
    return str(path)


def test_parquet_rows_are_items(tmp_path: Path):
    """Rows over several row groups; null cells count as absent, columns nobody reads as ignored."""
    columns = {
        "idx": list(range(50)),
        "context": ["Text."] * 50,
        "query": [None if at == 7 else "Why?" for at in range(50)],
        "responses": [["one", "two"]] * 50,
        "source": ["web"] * 50,
    }
    dataset = Dataset(write_parquet(tmp_path / "d.parquet", columns, row_group_size=20), LONGREWARD)
    expected = [(at + 1, str(at) if at != 7 else "question (or query) is missing") for at in range(50)]
    assert found(dataset) == expected
    assert dataset.ignored == {"source": 49}
    assert dataset.source.position == dataset.source.total == os.path.getsize(tmp_path / "d.parquet")


def test_a_parquet_cell_that_is_not_utf8_costs_its_row(tmp_path: Path):
    """Text columns can hold any bytes when written carelessly."""
    arrow = pytest.importorskip("pyarrow")
    raw = arrow.array([b"Text.", b"\xff", b"Text."], arrow.binary())
    columns = {"id": ["a", "b", "c"], "context": raw.view(arrow.string()), "question": ["Why?"] * 3}
    path = write_parquet(tmp_path / "d.parquet", columns)
    assert found(Dataset(path, LONGREWARD)) == [(1, "a"), (2, "not UTF-8"), (3, "c")]


def test_parquet_values_of_databases_are_read(tmp_path: Path):
    """Text as bytes, ids as decimals, floats or UUIDs, responses as structs."""
    arrow = pytest.importorskip("pyarrow")
    texts = {"context": arrow.array([b"Text."], arrow.binary()), "question": ["Why?"], "responses": [[{"text": "one"}]]}
    ids = {
        "7": arrow.array([7], arrow.decimal128(20, 0)),
        "8": [8.0],
        "00000000-0000-0000-0000-000000000005": arrow.array([bytes(15) + b"\x05"], arrow.binary(16)),
        str(2**64 - 1): arrow.array([2**64 - 1], arrow.uint64()),
    }
    for id_, column in ids.items():
        (read,) = Dataset(write_parquet(tmp_path / "d.parquet", {"id": column, **texts}), LONGREWARD)
        assert read.value is not None
        assert (read.value.item.id, read.value.item.context) == (id_, "Text.")
        assert [one.text for one in read.value.responses] == ["one"]


def test_two_columns_of_one_name_are_refused(tmp_path: Path):
    """Nobody could tell which is meant."""
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    parquet.write_table(
        arrow.Table.from_arrays([arrow.array(["a"])] * 2, names=["context"] * 2), tmp_path / "d.parquet"
    )
    with pytest.raises(UsageError, match="two columns named context"):
        Dataset(str(tmp_path / "d.parquet"))


def test_parquet_without_its_library_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """pyarrow is an extra."""
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(LrqError, match=r"pip install 'lrq\[parquet\]'"):
        found(Dataset(write(tmp_path / "d.parquet", b"PAR1")))


def test_sampled_responses_are_found_item_by_item(tmp_path: Path):
    """In any order, in the order of k; what no item asked for is known afterwards."""
    path = write(
        tmp_path / "s.jsonl", sampled("a-2", "A2"), sampled("b-c-0", "B"), sampled("z-0", "Z"), sampled("a-0", "A0")
    )
    responses = ResponsesFile(path)
    assert [(response.k, response.text) for response in responses.of("a")] == [(0, "A0"), (2, "A2")]
    assert responses.of("b") == ()
    assert list(responses.unused()) == ["b-c", "z"]
    assert responses.count == 4


def test_sampled_responses_that_cannot_be_used_are_rejected(tmp_path: Path):
    """Equal repeats are harmless; of two different texts the first stands."""
    path = write(
        tmp_path / "s.jsonl",
        sampled("a-0", "one"),
        sampled("a-0", "one"),
        sampled("a-0", "two"),
        sampled("11", "x"),
        b"{\n",
    )
    responses = ResponsesFile(path)
    assert [(bad.number, bad.reason) for bad in responses.rejected()] == [
        (3, "line 1 holds another text for the same response"),
        (4, "idx does not end in -<k>, the response's number from 0 to 999999"),
        (5, "not JSON (unexpected end of data at column 1)"),
    ]
    assert [response.text for response in responses.of("a")] == ["one"]


def test_items_take_their_responses_from_the_second_file(tmp_path: Path):
    """A line may bring its own or find them there, not both; where the recipe needs them they may not lack."""
    items = write(tmp_path / "d.jsonl", line("a"), line("b", responses=["x"]), line("c"), line("d", responses=["x"]))
    second = write(tmp_path / "s.jsonl", sampled("a-1", "A1"), sampled("a-0", "A0"), sampled("b-0", "B"))
    lines = list(Dataset(items, LONGREWARD | {"responses"}, ResponsesFile(second)))
    assert [[response.text for response in read.value.responses] if read.value else read.reason for read in lines] == [
        ["A0", "A1"],
        "responses stand both in this line and in the file of responses; keep one",
        "responses are missing, here and in the file of responses",
        ["x"],
    ]
    (_, _, third, _) = Dataset(items, LONGREWARD, ResponsesFile(second))
    assert third.value is not None
    assert third.value.responses == ()


def test_indexing_says_how_far_it_is(tmp_path: Path):
    """Every thousand lines, for a progress bar."""
    path = write(tmp_path / "s.jsonl", *(sampled(f"a-{k}", "x") for k in range(2500)))
    seen: list[tuple[int, int | None]] = []
    ResponsesFile(path, lambda position, total: seen.append((position, total)))
    assert seen == [(os.path.getsize(path), os.path.getsize(path))] * 2  # all of it lies in the first buffer


PEAK = """
import sys
from pathlib import Path
from lrq.datasets.dataset import Dataset, ResponsesFile

def peak():  # KiB; of this program alone, unlike getrusage's, which a child inherits
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0])

def read(folder):
    second = Path(folder, "s.jsonl")
    responses = ResponsesFile(str(second)) if second.exists() else None
    (first,) = Path(folder).glob("d.*")
    items = sum(line.value is not None for line in Dataset(str(first), {"context"}, responses))
    return items, responses.count if responses else 0

read(sys.argv[1])
before = peak()
print(*read(sys.argv[2]), peak() - before)
"""
needs_proc = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak of memory from /proc")


def growth(small: Path, large: Path) -> list[int]:
    """Items, responses, and by how many KiB the larger file's reading exceeds the peak of the smaller one's."""
    program = [sys.executable, "-c", PEAK, str(small), str(large)]
    return [int(word) for word in subprocess.run(program, check=True, capture_output=True).stdout.split()]


@needs_proc
def test_memory_does_not_grow_with_the_file(tmp_path: Path):
    """65 MB in 100,000 items and 50,000 responses grow the reader by less than a tenth of that."""
    for folder, count in (("small", 2000), ("large", 50_000)):
        (tmp_path / folder).mkdir()
        with open(tmp_path / folder / "d.jsonl", "wb") as items, open(tmp_path / folder / "s.jsonl", "wb") as second:
            for at in range(count):
                items.write(line(2 * at, context="x" * 300) + line(2 * at + 1, context="x" * 300))
                second.write(sampled(f"{at * 7919 % count}-0", "y" * 500))
    items_read, responses_read, grown = growth(tmp_path / "small", tmp_path / "large")
    assert (items_read, responses_read) == (100_000, 50_000)
    assert grown < 6_500


@needs_proc
def test_memory_does_not_grow_with_a_parquet_file(tmp_path: Path):
    """Nor with its row groups: 60 MB in one of them cost hardly more than 20 MB."""
    for folder, count in (("small", 20_000), ("large", 60_000)):
        (tmp_path / folder).mkdir()
        columns = {"id": list(range(count)), "context": [os.urandom(500).hex() for _ in range(count)]}
        write_parquet(tmp_path / folder / "d.parquet", columns, row_group_size=count)
    items_read, _, grown = growth(tmp_path / "small", tmp_path / "large")
    assert items_read == 60_000
    assert grown < 20_000  # KB, of 40 MB more


BIG = 600 << 20  # bytes of one line, element or cell
LIMIT = 260_000  # KiB that reading it may add: some lines of the longest kind


def big_line() -> Iterator[bytes]:
    yield line("a") + b'{"id": "b", "context": "'
    yield from (b"a" * (1 << 20) for _ in range(BIG >> 20))
    yield b'"}\n' + line("c")


def write_big(path: Path) -> None:
    """Write a file with one over-long line, in the form that the name says."""
    if path.name == "d.jsonl.gz":
        with gzip.open(path, "wb", 1) as packed:
            packed.writelines(big_line())
    elif path.name == "d.jsonl.zst":
        packer = zstandard.ZstdCompressor().compressobj()
        path.write_bytes(b"".join(map(packer.compress, big_line())) + packer.flush())
    elif path.name == "d.json":
        with open(path, "wb") as plain:
            plain.write(b"[")
            plain.writelines(big_line())
            plain.write(b"]")
    elif path.name == "d.parquet":  # 60 rows of one text that is stored once
        columns = {"id": list(range(60)), "context": ["x" * (10 << 20)] * 60, "question": ["Why?"] * 60}
        write_parquet(path, columns, compression="brotli")


@needs_proc
@pytest.mark.parametrize(("name", "usable"), [("d.jsonl.gz", 2), ("d.jsonl.zst", 2), ("d.json", 2), ("d.parquet", 60)])
def test_memory_is_bounded_for_what_unpacks_to_much(tmp_path: Path, name: str, usable: int):
    """600 MB in one line, or out of some kilobytes, add less than half of that; the lines beside it are read."""
    for folder in ("small", "large"):
        (tmp_path / folder).mkdir()
    write(tmp_path / "small" / "d.jsonl", line("a"))
    write_big(tmp_path / "large" / name)
    items_read, _, grown = growth(tmp_path / "small", tmp_path / "large")
    assert items_read == usable
    assert grown < LIMIT


def test_a_parquet_cell_that_is_too_long_costs_its_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """However often it is stored: lists of one text repeated are measured before they are unfolded."""
    monkeypatch.setattr(sources, "MAX_LINE", 2 << 20)
    text = "x" * (6 << 20)
    columns = {"id": ["a", "b", "c"], "context": ["Text."] * 3, "question": ["Why?"] * 3}
    responses = [["one"], [text[:1000]] * 3000, ["three"]]
    read = found(Dataset(write_parquet(tmp_path / "d.parquet", columns | {"responses": responses}), LONGREWARD))
    assert read == [(1, "a"), (2, "the row is longer than 2 MB"), (3, "c")]
    columns["context"][1] = text
    read = found(Dataset(write_parquet(tmp_path / "e.parquet", columns), LONGREWARD))
    assert read == [(1, "a"), (2, "the row is longer than 2 MB"), (3, "c")]


def test_a_parquet_part_that_is_no_text_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A thousandfold growth beyond a bound is not even opened; other groups of rows are read."""
    monkeypatch.setattr(parquet, "LARGE", 1 << 20)
    columns = {"id": ["a", "b"], "context": ["x" * (8 << 20), "Text."], "question": ["Why?"] * 2}
    path = write_parquet(tmp_path / "d.parquet", columns, row_group_size=1, compression="brotli", use_dictionary=False)
    (number, reason), *others = found(Dataset(path, LONGREWARD))
    assert (number, others) == (1, [(2, "b")])
    assert "unpacks from" in reason


@pytest.mark.skipif(not EXAMPLE.is_dir(), reason="the published example is not at hand; set LRQ_EXAMPLE_DATA")
def test_the_published_example_is_read():
    """One item with its ten sampled responses, given in another order."""
    responses = ResponsesFile(str(EXAMPLE / "sampled_responses.jsonl"))
    (read,) = Dataset(str(EXAMPLE / "sft.jsonl"), LONGREWARD, responses)
    assert read.value is not None
    assert read.value.item.id == "11"
    assert [response.k for response in read.value.responses] == list(range(10))
    assert read.value.ignored == ()
    assert not list(responses.unused())
    assert not list(responses.rejected())
