"""Files into the ledger: what is added, what is rejected and why, and what a second time does."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
import sqlalchemy as sa
from ledgers import BOTH, opened, some_ledger

from lrq.config import Endpoint, JudgeSettings, Settings
from lrq.domain.errors import UsageError
from lrq.ledger import Ledger, runs, schema
from lrq.ledger import items as items_
from lrq.ledger.schema import contexts, items, responses, set_aside
from lrq.ledger.schema import runs as runs_table
from lrq.operations.ingest import Ingested, Intent, ingest
from lrq.run_config import load_run_config


@pytest.fixture(params=BOTH)
def settings(request: pytest.FixtureRequest, home: Path) -> Iterator[Settings]:
    judge = JudgeSettings(endpoints=(Endpoint(url="http://127.0.0.1:1/v1", model="m"),))
    with some_ledger(request, home) as made:
        yield made.model_copy(update={"judge": judge})


@pytest.fixture
def ledger(settings: Settings) -> Iterator[Ledger]:
    with opened(settings) as made:
        yield made


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "d.jsonl"


def line(at: object, **fields: Any) -> bytes:
    own = {"id": at, "context": f"Text {at}.", "question": "Why?", "responses": ["a", "b"]}
    return json.dumps(own | fields).encode() + b"\n"


def enter(ledger: Ledger, settings: Settings, file: Path, **intent: Any) -> Ingested:
    return ingest(ledger, settings, Intent(**({"file": str(file), "train": False} | intent)), send=False)


def aside(ledger: Ledger) -> list[tuple[int, str]]:
    with ledger.read() as tx:
        rows = tx.execute(sa.select(set_aside.c.line, set_aside.c.reason).order_by(set_aside.c.line))
        return [(row.line, row.reason) for row in rows]


def counts(ledger: Ledger) -> tuple[int, int, int]:
    """Of items, responses and contexts."""
    with ledger.read() as tx:
        tables = (items, responses, contexts)
        found = [tx.execute(sa.select(sa.func.count()).select_from(table)).scalar_one() for table in tables]
    return found[0], found[1], found[2]


def test_lines_that_cannot_be_used_are_rejected_with_number_and_reason(
    ledger: Ledger, settings: Settings, file: Path
) -> None:
    """The rest goes in; the exit code says that something was left."""
    file.write_bytes(
        line("a")
        + line("a", question="Another?")
        + b'{"id": "no question", "context": "x"}\n'
        + line("empty", context="  ")
        + b'{"id": "bytes", "context": "\xff\xfe", "question": "q"}\n'
        + line("bell\x07")
        + line("b")
        + line("wrong", responses="not a list")
        + line("b")
        + b'{"id": "torn", "context": "x", "quest'
    )
    intake = enter(ledger, settings, file)
    assert (intake.added, intake.known, intake.set_aside) == (2, 0, 8)
    found = dict(aside(ledger))
    assert list(found) == [2, 3, 4, 5, 6, 8, 9, 10]
    words = ["line 1", "question", "context", "UTF-8", "U+0007", "responses", "line 7", "torn"]
    for (number, reason), word in zip(found.items(), words, strict=True):
        assert word in reason, (number, reason)
        assert "\n" not in reason


def test_the_same_file_again_adds_nothing(ledger: Ledger, settings: Settings, file: Path) -> None:
    """Nor does it change anything; all lines are known."""
    file.write_bytes(b"".join(line(n) for n in range(450)))
    assert enter(ledger, settings, file).added == 450
    before = counts(ledger)
    again = enter(ledger, settings, file)
    assert (again.added, again.known, again.set_aside) == (0, 450, 0)
    assert counts(ledger) == before == (450, 900, 450)
    with ledger.read() as tx:
        assert runs.get_run(tx, "d").open_items == 450


def test_a_longer_file_adds_its_new_lines(ledger: Ledger, settings: Settings, file: Path) -> None:
    """What was torn at its end is whole now, and no longer counts as rejected."""
    file.write_bytes(line("a") + line("b") + line("c")[:-20])
    first = enter(ledger, settings, file)
    assert (first.added, first.set_aside) == (2, 1)
    file.write_bytes(line("a") + line("b") + line("c") + line("d"))
    second = enter(ledger, settings, file)
    assert (second.added, second.known, second.set_aside) == (2, 2, 0)
    assert aside(ledger) == []
    with ledger.read() as tx:
        assert runs.get_run(tx, "d").open_items == 4


@pytest.mark.parametrize("changed", [{"question": "How?"}, {"context": "Other."}, {"answer": "So."}])
def test_a_line_that_was_changed_since_is_not_passed_over_in_silence(
    ledger: Ledger, settings: Settings, file: Path, changed: dict[str, str]
) -> None:
    """What was judged stands; whoever meant the new words reads that they were not taken."""
    file.write_bytes(line("a") + line("b"))
    enter(ledger, settings, file)
    file.write_bytes(line("a") + line("b", **changed))
    again = enter(ledger, settings, file)
    assert (again.added, again.known, again.set_aside) == (0, 1, 1)
    assert "other words" in aside(ledger)[0][1]


def test_a_context_is_kept_once_however_many_items_share_it(ledger: Ledger, settings: Settings, file: Path) -> None:
    """Within a batch, and over batches."""
    file.write_bytes(b"".join(line(n, context="The same. " * 100) for n in range(250)))
    enter(ledger, settings, file)
    assert counts(ledger) == (250, 500, 1)
    with ledger.read() as tx:
        _, item = items_.load_item(tx, 250)
    assert item.context == "The same. " * 100


def test_texts_come_back_as_they_were(ledger: Ledger, settings: Settings, file: Path) -> None:
    """Any script, line ends, and responses in their order."""
    texts = {"context": "文档\r\n🚢\u2028x", "question": "为什么？", "answer": "é", "responses": ["", "b", "a"]}
    file.write_bytes(line("ü", **texts))
    enter(ledger, settings, file)
    with ledger.read() as tx:
        row, item = items_.load_item(tx, 1)
        found = items_.load_responses(tx, 1, 0)
    assert (row.key, item.context, item.question, item.answer) == ("ü", "文档\r\n🚢\u2028x", "为什么？", "é")
    assert [(one.k, one.text) for one in found] == [(1, "b"), (2, "a")]


def test_given_responses_without_text_are_no_responses(ledger: Ledger, settings: Settings, file: Path) -> None:
    """As sampled ones: they are kept with their reason, neither judged nor counted as given."""
    file.write_bytes(line("a", responses=["one", "", " \n", None, "five"]))
    enter(ledger, settings, file)
    with ledger.read() as tx:
        assert [one.k for one in items_.load_responses(tx, 1, 0)] == [0, 4]
        rows = items_.response_rows(tx, 1, 0)
        assert [(row.k, row.text, row.reason) for row in rows if row.reason] == [(k, None, "empty") for k in (1, 2, 3)]
        assert tx.execute(sa.select(items.c.given)).scalar_one() == 2


def test_what_was_left_out_of_kept_lines_is_said(ledger: Ledger, settings: Settings, file: Path) -> None:
    """Fields that could not be read, with a reason, and those that nobody reads."""
    file.write_bytes(line("a", messages="x", source="web") + line("b", messages=5))
    intake = enter(ledger, settings, file)
    assert (intake.added, intake.set_aside) == (2, 0)
    assert intake.dropped == [
        "messages is left out of 2 lines, where nobody needs it: messages must be a list, not text",
        "fields that nobody reads: source (1)",
    ]


def test_a_folder_is_one_run_and_reasons_name_its_files(ledger: Ledger, settings: Settings, tmp_path: Path) -> None:
    """The same number in two files is two lines."""
    folder = tmp_path / "parts"
    folder.mkdir()
    (folder / "a.jsonl").write_bytes(line("a") + b"{\n")
    (folder / "b.jsonl").write_bytes(line("b") + b"[]\n")
    intake = enter(ledger, settings, folder)
    assert (intake.run.name, intake.added, intake.set_aside) == ("parts", 2, 2)
    with ledger.read() as tx:
        assert [(row.source, row.line) for row in runs.lines_set_aside(tx, intake.run.id)] == [
            ("a.jsonl", 2),
            ("b.jsonl", 2),
        ]


def test_items_without_responses_wait_to_be_sampled(ledger: Ledger, settings: Settings, file: Path) -> None:
    """The others wait to be judged."""
    file.write_bytes(line("a") + line("b", responses=[]))
    enter(ledger, settings, file)
    with ledger.read() as tx:
        assert runs.item_states(tx, 1) == {"unjudged": 1, "unsampled": 1}


def test_other_settings_want_another_name_and_are_named(ledger: Ledger, settings: Settings, file: Path) -> None:
    """One line; with another name the same file is a run of its own."""
    file.write_bytes(line("a"))
    enter(ledger, settings, file)
    other = settings.model_copy(update={"settings": {"min_scored": 3, "passages": 7}})
    with pytest.raises(UsageError, match=r"settings\.min_scored, settings\.passages.*--name") as differs:
        enter(ledger, other, file)
    assert "\n" not in str(differs.value)
    assert enter(ledger, other, file, name="other").added == 1
    with ledger.read() as tx:
        assert [run.name for run in runs.all_runs(tx)] == ["d", "other"]


def test_limits_and_prices_are_no_other_settings(ledger: Ledger, settings: Settings, file: Path) -> None:
    """A faster endpoint or a larger cap is the same run."""
    file.write_bytes(line("a"))
    enter(ledger, settings, file, max_tokens=100)
    fast = Endpoint(url="http://127.0.0.1:2/v1", model="m", rpm=9, identity="localhost:1/v1")
    told = settings.model_copy(update={"judge": JudgeSettings(endpoints=(fast,))})
    assert enter(ledger, told, file, max_tokens=200).known == 1
    with ledger.read() as tx:
        assert runs.get_run(tx, "d").max_tokens == 200


def test_another_server_is_another_judge(ledger: Ledger, settings: Settings, file: Path) -> None:
    """What one has answered is not taken for the other's, unless the settings say that it is the same."""
    file.write_bytes(line("a"))
    enter(ledger, settings, file)
    moved = Endpoint(url="http://127.0.0.1:2/v1", model="m")
    told = settings.model_copy(update={"judge": JudgeSettings(endpoints=(moved,))})
    with pytest.raises(UsageError, match=r"judge was localhost:1/v1, and is now localhost:2/v1: set judge\.identity="):
        enter(ledger, told, file)


def test_a_run_of_an_earlier_release_goes_on(ledger: Ledger, settings: Settings, file: Path) -> None:
    """Its judge was frozen without an identity, and its replies are found under the keys they have."""
    file.write_bytes(line("a"))
    old = enter(ledger, settings, file).run
    config = orjson.loads(orjson.dumps(old.config))
    del config["judge"]["models"][0]["identity"]
    with ledger.write() as tx:
        tx.execute(schema.runs.update().values(config=orjson.dumps(config).decode()))
    again = enter(ledger, settings, file)
    assert again.known == 1
    assert load_run_config(again.run.recipe, again.run.config).judge_of("helpfulness", "p").identity == ""


def test_a_file_without_lines_is_refused(ledger: Ledger, settings: Settings, file: Path) -> None:
    """No run is begun for it."""
    for data in (b"", b"\n  \n"):
        file.write_bytes(data)
        with pytest.raises(UsageError, match="is empty"):
            enter(ledger, settings, file)
    with ledger.read() as tx:
        assert runs.all_runs(tx) == []


def test_a_run_without_a_usable_line_is_at_its_end(ledger: Ledger, settings: Settings, file: Path) -> None:
    """It is not left open when all lines are in; a longer file opens it again."""
    file.write_bytes(b"{}\n[]\n")
    enter(ledger, settings, file)
    with ledger.read() as tx:
        assert runs.get_run(tx, "d").state == "done"
        assert list(runs.reject_reasons(tx, 1).values()) == [1, 1]
    file.write_bytes(b"{}\n[]\n" + line("a"))
    enter(ledger, settings, file)
    with ledger.read() as tx:
        assert runs.get_run(tx, "d").state == "active"


def test_strict_stops_at_the_first_bad_line(ledger: Ledger, settings: Settings, file: Path) -> None:
    """With its number and reason; a run without items is taken away, one with items can come to its end."""
    file.write_bytes(line("a") + b"{\n" + line("b"))
    with pytest.raises(UsageError, match="line 2: not JSON"):
        enter(ledger, settings, file, strict=True)
    with ledger.read() as tx:
        assert runs.all_runs(tx) == []
    file.write_bytes(line("a"))
    enter(ledger, settings, file)
    file.write_bytes(line("a") + b"{\n")
    with pytest.raises(UsageError, match="line 2: not JSON"):
        enter(ledger, settings, file, strict=True)
    with ledger.read() as tx:
        assert tx.execute(sa.select(runs_table.c.ingesting)).scalars().all() == [0]


def test_memory_does_not_grow_with_rejected_lines(tmp_path: Path, home: Path) -> None:
    """They are written down a batch at a time."""
    peaks = []
    for count in (1_000, 60_000):
        file = tmp_path / f"{count}.jsonl"
        file.write_bytes(line("a") + b'{"id": 1, "context": 2}\n' * count)
        code, said, peak = enqueue(tmp_path / str(count), file)
        assert (code, f"{count} rejected" in said) == (3, True), said
        peaks.append(peak)
    assert peaks[1] - peaks[0] < 25, peaks


def enqueue(home: Path, file: Path) -> tuple[int, str, int]:
    """The command in a process of its own: its exit code, what it says, and its peak memory in MB."""
    env = {**os.environ, "LRQ_HOME": str(home), "LRQ_JUDGE_URL": "http://127.0.0.1:1/v1", "LRQ_JUDGE_MODEL": "m"}
    words = ["enqueue", str(file), "--no-train", "--scores-only"]
    command = [sys.executable, "-c", "from lrq.cli import main; main()", *words]
    with (file.parent / "said").open("w+") as said:
        process = subprocess.Popen(command, env=env, stdout=said, stderr=said)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        said.seek(0)
        return process.returncode, said.read(), used.ru_maxrss // 1024


def test_ten_times_as_many_lines_take_no_more_memory(tmp_path: Path) -> None:
    """And without a broker they are recorded, which the command says."""
    peaks = []
    for count in (4_000, 40_000):
        file = tmp_path / f"{count}.jsonl"
        with file.open("wb") as out:
            out.writelines(line(n, responses=["a"]) for n in range(count))
        code, said, peak = enqueue(tmp_path / str(count), file)
        assert code == 0, said
        assert f"{count} items added" in said
        assert "the items are recorded" in said
        peaks.append(peak)
    assert peaks[1] - peaks[0] < 25, peaks
