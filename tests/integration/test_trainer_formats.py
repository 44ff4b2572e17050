"""Files that a training reads and writes: rows in every form, weights in the base's, adapters with their base."""

import gzip
import json
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

import pyarrow as pa
import pyarrow.parquet as pq
import torch
import zstandard
from safetensors.torch import load_file, save_file

from lrq.domain.errors import LrqError, UsageError
from lrq.policy.folder import base_of, checked
from lrq.trainer.files import find_rows
from lrq.trainer.finish import open_by_umask, restore_base
from lrq.trainer.rows import PreferenceRow, read_rows
from lrq.trainer.weights import INDEX, write_as_base

pytestmark = pytest.mark.torch

ROWS = [
    {"prompt": [{"role": "user", "content": f"q{n}"}], "chosen": [{"role": "assistant", "content": "a"}],
     "rejected": [{"role": "assistant", "content": "b"}]}
    for n in range(3)
]  # fmt: skip
LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()


def parquet(path: Path) -> None:
    pq.write_table(pa.Table.from_pylist([{**row, "chat_template_kwargs": None} for row in ROWS]), path)


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("rows.jsonl", lambda path: path.write_bytes(LINES)),
        ("rows.jsonl.gz", lambda path: path.write_bytes(gzip.compress(LINES))),
        ("rows.jsonl.zst", lambda path: path.write_bytes(zstandard.compress(LINES))),
        ("rows.json", lambda path: path.write_text(json.dumps(ROWS))),
        ("rows.json", lambda path: path.write_text(json.dumps(ROWS, indent=1))),
        ("rows.parquet", parquet),
    ],
)
def test_rows_are_read_in_every_form(tmp_path: Path, name: str, write: Callable[[Path], Any]) -> None:
    """The same rows, with their numbers, from the file and from a folder that holds it beside its test split."""
    write(tmp_path / name)
    (tmp_path / "test.jsonl").write_bytes(LINES)
    (tmp_path / "README.md").write_text("words")
    for path in (tmp_path / name, tmp_path):
        found = list(read_rows(find_rows(path)))
        assert [(row.line, row.prompt, row.chosen) for row in found if isinstance(row, PreferenceRow)] == [
            (n, row["prompt"], row["chosen"]) for n, row in enumerate(ROWS, 1)
        ]


@pytest.mark.parametrize("name", ["rows.parquet", "rows.jsonl.gz", "rows.jsonl.zst"])
def test_a_file_that_is_not_what_its_name_says_is_one_line(tmp_path: Path, name: str) -> None:
    """Torn or renamed: an error that names the file."""
    (tmp_path / name).write_bytes(b"no such thing" * 9)
    with pytest.raises(LrqError, match=f"{name} cannot be read: "):
        list(read_rows(tmp_path / name))


def test_a_data_set_of_the_hub_cache_is_found_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is downloaded: one that is not there is an error that says how to get it."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    repository = tmp_path / "datasets--acme--pairs"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    snapshot = repository / "snapshots" / ("0" * 40) / "data"
    snapshot.mkdir(parents=True)
    (snapshot / "train-00000-of-00001.jsonl").write_bytes(LINES)
    (snapshot / "test-00000-of-00001.jsonl").write_bytes(LINES)
    monkeypatch.setattr("huggingface_hub._snapshot_download.constants.HF_HUB_CACHE", str(tmp_path))
    assert len(list(read_rows(find_rows(Path("acme/pairs"))))) == len(ROWS)
    with pytest.raises(UsageError, match="hf download --repo-type dataset acme/others"):
        find_rows(Path("acme/others"))


def model(folder: Path, files: dict[str, dict[str, torch.Tensor]]) -> Path:
    folder.mkdir()
    for name, tensors in files.items():
        save_file(tensors, folder / name, metadata={"format": "pt"})
    if len(files) > 1:
        weight_map = {tensor: name for name, tensors in files.items() for tensor in tensors}
        (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return folder


def test_weights_come_back_in_the_bases_files_and_formats(tmp_path: Path) -> None:
    """Names, files and formats are the base's; what only it has stays, what is tied does not come twice."""
    ones, half = torch.ones(2, 2), torch.ones(2, 2, dtype=torch.bfloat16)
    base = model(
        tmp_path / "base",
        {
            "model-00001-of-00002.safetensors": {"embed": half, "norm": ones.clone()},
            "model-00002-of-00002.safetensors": {"layer": half.clone(), "head": half.clone(), "predictor": half * 3},
        },
    )
    trained = {"embed": ones * 2, "norm": ones * 2, "layer": ones * 2}
    saved = model(tmp_path / "saved", {"model.safetensors": {name: t.clone() for name, t in trained.items()}})
    write_as_base(base, saved, tied={"head"})
    assert sorted(path.name for path in saved.iterdir()) == sorted(path.name for path in base.iterdir())
    first, second = (load_file(saved / f"model-0000{n}-of-00002.safetensors") for n in (1, 2))
    assert {name: tensor.dtype for name, tensor in first.items()} == {"embed": half.dtype, "norm": ones.dtype}
    assert set(second) == {"layer", "predictor"}
    assert (float(second["layer"][0, 0]), float(second["predictor"][0, 0])) == (2, 3)
    assert json.loads((saved / INDEX).read_text())["weight_map"]["layer"] == "model-00002-of-00002.safetensors"


def test_a_copy_of_a_tied_weight_that_the_base_has_not_is_left_out(tmp_path: Path) -> None:
    """DeepSpeed parts what was one tensor; what only the base has is copied all the same."""
    base = model(tmp_path / "base", {"model.safetensors": {"embed": torch.ones(2), "predictor": torch.ones(2)}})
    saved = model(tmp_path / "saved", {"model.safetensors": {"embed": torch.zeros(2), "head": torch.zeros(2)}})
    write_as_base(base, saved, tied={"head"})
    assert set(load_file(saved / "model.safetensors")) == {"embed", "predictor"}


def test_a_tensor_under_a_name_of_its_own_is_kept_and_nothing_stale_beside_it(tmp_path: Path) -> None:
    """Where the library writes other names than the base has, the base's old weights do not come back with them."""
    base = model(tmp_path / "base", {"model.safetensors": {"old.layer": torch.ones(2), "norm": torch.ones(2)}})
    saved = model(tmp_path / "saved", {"model.safetensors": {"new.layer": torch.zeros(2), "norm": torch.zeros(2)}})
    write_as_base(base, saved)
    assert set(load_file(saved / "model.safetensors")) == {"new.layer", "norm"}


def test_other_files_are_the_bases_byte_for_byte(tmp_path: Path) -> None:
    """Tokenizer and generation settings as they lay there; what the library wrote instead is gone."""
    base = model(tmp_path / "base", {"model.safetensors": {"norm": torch.ones(2)}})
    saved = model(tmp_path / "saved", {"model.safetensors": {"norm": torch.zeros(2)}})
    for folder, words in ((base, "base"), (saved, "library")):
        (folder / "config.json").write_text(json.dumps({"rope_theta": 5e5, "made_by": words}))
        (folder / "tokenizer_config.json").write_text(json.dumps({"made_by": words}, indent=3))
    (base / "merges.txt").write_text("a b\n")
    (saved / "generation_config.json").write_text("{}")
    (saved / "training_args.bin").write_bytes(b"pickle")
    restore_base(base, saved)
    assert {path.name for path in saved.iterdir()} == {path.name for path in base.iterdir()}
    for name in ("tokenizer_config.json", "merges.txt"):
        assert (saved / name).read_bytes() == (base / name).read_bytes()
    assert json.loads((saved / "config.json").read_text())["made_by"] == "base"


def adapter(folder: Path, base: object) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": base, "peft_type": "LORA"}))
    (folder / "adapter_model.safetensors").write_bytes(b"")
    return folder


def test_an_adapter_is_a_policy_with_a_base(tmp_path: Path) -> None:
    """It is found with its base; without one, with two models in it, or upon another adapter it is refused in words."""
    base = model(tmp_path / "base", {"model.safetensors": {"norm": torch.ones(2)}})
    (base / "config.json").write_text("{}")
    assert base_of(base) is None
    assert base_of(checked(adapter(tmp_path / "adapter", str(base)))) == base
    (tmp_path / "adapter" / "model.safetensors").write_bytes(b"")
    for folder, words in (
        (tmp_path / "adapter", "a whole model and an adapter"),
        (adapter(tmp_path / "lost", str(tmp_path / "gone")), "of its base: there is no folder"),
        (adapter(tmp_path / "unnamed", None), "names no base"),
    ):
        with pytest.raises(UsageError, match=words):
            checked(folder)


def test_files_are_open_to_whom_the_umask_allows(tmp_path: Path) -> None:
    """Whatever mode a writer left: safetensors leaves files that only their owner reads."""
    folder = model(tmp_path / "model", {"model.safetensors": {"norm": torch.ones(2)}})
    (folder / "model.safetensors").chmod(0o600)
    (tmp_path / "new").touch()
    open_by_umask(folder)
    modes = {stat.S_IMODE(path.stat().st_mode) for path in (folder / "model.safetensors", tmp_path / "new")}
    assert len(modes) == 1
