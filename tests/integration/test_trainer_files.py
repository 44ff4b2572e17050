"""The job's folder: kept apart from others, rewound after a kill, followed while it is written."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from lrq.domain.errors import UsageError
from lrq.policy.folder import fingerprint
from lrq.trainer.checkpoints import last_complete, mark_complete, remove_torn, rewind_metrics
from lrq.trainer.job import TrainJob
from lrq.trainer.job_folder import NOTE, JobFolder, Result, finished, identity, prepare, write_json
from lrq.trainer.launch import follow_metrics, run
from lrq.trainer.reference import ReferenceStore
from lrq.trainer.rows import no_rows


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    """A folder that looks like a model from outside."""
    folder = tmp_path / "policy"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


@pytest.fixture
def make(tmp_path: Path, policy: Path) -> Callable[..., TrainJob]:
    (tmp_path / "rows.jsonl").write_text('{"prompt": "q", "chosen": "a", "rejected": "b"}\n')
    files = {"model": policy, "rows": tmp_path / "rows.jsonl", "output": tmp_path / "better"}
    return lambda **settings: TrainJob(**{**files, **settings})


def test_a_folder_holds_one_training(tmp_path: Path, make: Callable[..., TrainJob]) -> None:
    """The same job is found again; another one is refused once steps were taken, and replaces it before."""
    folder = prepare(tmp_path / "job", make())
    assert prepare(tmp_path / "job", make()).load() == folder.load()
    folder.preflight.write_text("{}")
    prepare(tmp_path / "job", make(beta=0.3, epochs=2))
    assert (folder.load().beta, folder.preflight.exists()) == (0.3, False)
    folder.metrics.write_text('{"step": 1}\n')
    with pytest.raises(UsageError, match=r"other settings or files \(beta\)"):
        prepare(tmp_path / "job", make(beta=0.2, epochs=2))


@pytest.mark.parametrize(
    ("file", "named"), [("rows.jsonl", "content_of_rows"), ("policy/model.safetensors", "content_of_model")]
)
def test_replaced_files_are_another_training(
    tmp_path: Path, make: Callable[..., TrainJob], file: str, named: str
) -> None:
    """Under the same names: before the first step the rows are made anew, after it the training is refused."""
    folder = prepare(tmp_path / "job", make())
    made = (folder.preflight, folder.rows)
    for path in made:
        path.write_text("{}")
    prepare(tmp_path / "job", make())
    assert all(path.exists() for path in made)
    (tmp_path / file).write_text("others")
    prepare(tmp_path / "job", make())
    assert not any(path.exists() for path in made)
    folder.metrics.write_text('{"step": 1}\n')
    (tmp_path / file).write_text("others still")
    with pytest.raises(UsageError, match=rf"other settings or files \({named}\)"):
        prepare(tmp_path / "job", make())


@pytest.mark.parametrize("rows", ["", '{"prompt": "q", "chosen": "c", "rejected": "b"}\n'])
def test_a_model_that_was_removed_is_trained_anew(tmp_path: Path, make: Callable[..., TrainJob], rows: str) -> None:
    """With the same rows or with more; while the model stands, nothing is trained and nothing lost."""
    folder = prepare(tmp_path / "job", make())
    job = folder.load()
    left = (folder.metrics, folder.checkpoints / "checkpoint-4" / "complete", folder.preflight, folder.rows)
    for path in left:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text('{"step": 4}\n')
    job.output.mkdir()
    result = Result(state="done", steps=4, model=job.output)
    write_json(job.output / NOTE, {"job": identity(job), "result": {"state": "done", "steps": 4}})
    write_json(folder.result, result)
    assert run(prepare(tmp_path / "job", make())) == result
    assert all(path.exists() for path in left)

    shutil.rmtree(job.output)
    assert finished(folder, job) is None
    with (tmp_path / "rows.jsonl").open("a") as stream:
        stream.write(rows)
    again = prepare(tmp_path / "job", make())
    assert not any(path.exists() for path in (*left, folder.result))
    assert (again.load() == job) == (not rows)


def test_what_cannot_be_trained_is_refused_at_once(tmp_path: Path, make: Callable[..., TrainJob]) -> None:
    """No model, no safetensors, no rows, an output that exists: one line each, before anything is written."""
    pickled = tmp_path / "pickled"
    pickled.mkdir()
    (pickled / "config.json").write_text("{}")
    (pickled / "pytorch_model.bin").write_bytes(b"")
    for settings, words in (
        ({"model": tmp_path / "absent"}, "holds no model"),
        ({"model": pickled}, "holds no safetensors"),
        ({"rows": tmp_path / "absent.jsonl"}, "is no file"),
        ({"output": pickled}, "exists: name another"),
    ):
        with pytest.raises(UsageError, match=words):
            prepare(tmp_path / "job", make(**settings))
    assert not (tmp_path / "job").exists()


def test_a_published_model_ends_a_training_whose_result_was_lost(tmp_path: Path, make: Callable[..., TrainJob]) -> None:
    """Killed between the model's rename and the result: the model's own note says whose it is."""
    folder = prepare(tmp_path / "job", make())
    job = folder.load()
    assert finished(folder, job) is None
    job.output.mkdir()
    note = {"job": identity(job), "result": {"state": "done", "steps": 4}}
    write_json(job.output / NOTE, note)
    assert finished(folder, job) == Result(state="done", steps=4, model=job.output)
    write_json(job.output / NOTE, {**note, "job": "another"})
    assert finished(folder, job) is None


def test_a_model_is_known_by_its_bytes(policy: Path) -> None:
    """Other weights, or another configuration, are another model; other files are not."""
    before = fingerprint(policy)
    (policy / "README.md").write_text("words")
    assert fingerprint(policy) == before
    (policy / "model.safetensors").write_bytes(b"others")
    assert fingerprint(policy) != before


def test_only_complete_checkpoints_count(tmp_path: Path) -> None:
    """The newest one with its marker is resumed from, by number; torn ones go."""
    for step in (8, 50, 100):
        (tmp_path / f"checkpoint-{step}").mkdir()
    assert last_complete(tmp_path) is None
    mark_complete(tmp_path / "checkpoint-8")
    mark_complete(tmp_path / "checkpoint-50")
    assert last_complete(tmp_path) == tmp_path / "checkpoint-50"
    remove_torn(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-50", "checkpoint-8"]


def test_metrics_go_back_with_the_checkpoint_and_are_told_once(tmp_path: Path) -> None:
    """Lines after the checkpoint and a torn one go; who follows hears of each step once, through the rewriting."""
    folder = JobFolder(tmp_path)
    told: list[int] = []
    look = follow_metrics(folder, lambda metric: told.append(metric["step"]))
    look()
    with folder.metrics.open("ab", buffering=0) as stream:
        stream.write(b'{"step": 1}\n{"step": 2}\n{"ste')
        look()
        stream.write(b'p": 3}\n{"step": 4')
        look()
    assert told == [1, 2, 3]
    rewind_metrics(folder.metrics, 2)
    assert folder.metrics.read_text() == '{"step": 1}\n{"step": 2}\n'
    look()
    with folder.metrics.open("ab") as stream:
        stream.write(b'{"step": 3}\n{"step": 4}\n')
    look()
    look()
    assert told == [1, 2, 3, 4]
    assert [line["step"] for line in folder.load_metrics()] == [1, 2, 3, 4]


def test_a_reference_is_kept_through_a_torn_write(tmp_path: Path) -> None:
    """What a kill tore is forgotten, what is written after it is read."""
    store = ReferenceStore(tmp_path / "kept" / "reference.jsonl")
    assert store.load() == {}
    store.append({"a": -1.5, "b": -2.25})
    path = tmp_path / "kept" / "reference.jsonl"
    path.write_bytes(path.read_bytes()[:-8])
    store.append({"c": -3.125})
    assert store.load() == {"a": -1.5, "c": -3.125}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "holds no rows"),
        ("\n \n", "holds no rows"),
        ('{"prompt": "q"}\n{\n', "none of 2 rows can be read; line 1 has"),
    ],
)
def test_no_rows_is_an_end_with_a_reason(
    tmp_path: Path, make: Callable[..., TrainJob], content: str, reason: str
) -> None:
    """A file without a usable row ends in 'nothing' and says why, and no process is started for it."""
    (tmp_path / "rows.jsonl").write_text(content)
    folder = prepare(tmp_path / "job", make())
    result = run(folder)
    assert (result.state, folder.log.exists()) == ("nothing", False)
    assert reason in result.reason
    assert folder.load_result() == result


def test_a_good_row_after_bad_ones_is_enough(tmp_path: Path) -> None:
    """Bad lines cost their own rows only."""
    file = tmp_path / "rows.jsonl"
    file.write_text('{\n{"prompt": "q", "chosen": "a", "rejected": "b"}\n')
    assert no_rows(file) is None
