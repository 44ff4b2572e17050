"""Trained weights in the base's own form: its names, its files, its number formats, tied weights once."""

from collections.abc import Collection, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import orjson
import torch
from safetensors import safe_open
from safetensors.torch import save_file

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
_METADATA = {"format": "pt"}  # transformers 4 reads no file without it
_FORMATS = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def weights_of(folder: Path) -> list[Path]:
    """Return the files in `folder` that make up the model: those of its index, else model.safetensors, else all."""
    index = folder / INDEX
    if index.exists():
        names = set(orjson.loads(index.read_bytes())["weight_map"].values())
        return [folder / name for name in sorted(names)]
    single = folder / SINGLE
    return [single] if single.exists() else sorted(folder.glob("*.safetensors"))


def write_as_base(base: Path, saved: Path, tied: Collection[str] = ()) -> None:
    """Write the weights in `saved` anew as the files of `base` have them: one file of the base in memory at a time.

    A tensor that the base lacks goes into the last file as it was trained. One that no training moves and only the base
    has (heads for predicting several tokens, rotary tables) is copied. `tied` names those that are another's copy: they
    are written where the base has them, for DeepSpeed parts what was one tensor.
    """
    temporary = saved / ".weights"
    temporary.mkdir()
    with ExitStack() as stack:
        trained = _opened(weights_of(saved), stack)
        layout = _layout(_opened(weights_of(base), stack), trained, tied)
        for file, tensors in layout.items():
            save_file(dict(_cast(tensors)), temporary / file, metadata=_METADATA)
    for old in (*saved.glob("*.safetensors"), saved / INDEX):
        old.unlink(missing_ok=True)
    for new in temporary.iterdir():
        new.rename(saved / new.name)
    temporary.rmdir()
    if list(layout) != [SINGLE]:
        size = sum(path.stat().st_size for path in saved.glob("*.safetensors"))
        content = {"metadata": {"total_size": size}, "weight_map": {t: file for file, ts in layout.items() for t in ts}}
        (saved / INDEX).write_bytes(orjson.dumps(content, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS))


# By file name and name of the tensor: the stream that has it, and its number format; None: as it is there.
_Tensors = dict[str, tuple[Any, torch.dtype | None]]


def _opened(files: Iterable[Path], stack: ExitStack) -> dict[str, tuple[str, Any]]:
    """Map each tensor's name to the name of its file and the stream that reads it."""
    streams = {file.name: stack.enter_context(safe_open(file, framework="pt")) for file in files}
    return {name: (file, stream) for file, stream in streams.items() for name in stream.keys()}  # noqa: SIM118


def _layout(
    base: dict[str, tuple[str, Any]], trained: dict[str, tuple[str, Any]], tied: Collection[str]
) -> dict[str, _Tensors]:
    trained = {name: stored for name, stored in trained.items() if name in base or name not in tied}
    layout: dict[str, _Tensors] = {file: {} for file, _ in base.values()} or {SINGLE: {}}
    same_names = trained.keys() <= base.keys()  # or what looks like the base's alone may be trained by another name
    for name, (file, stream) in base.items():
        if name in trained:
            layout[file][name] = (trained[name][1], _FORMATS.get(stream.get_slice(name).get_dtype()))
        elif same_names and name not in tied:
            layout[file][name] = (stream, None)
    last = next(reversed(layout))
    layout[last] |= {name: (stream, None) for name, (_, stream) in trained.items() if name not in base}
    return {file: tensors for file, tensors in layout.items() if tensors}


def _cast(tensors: _Tensors) -> Iterator[tuple[str, torch.Tensor]]:
    for name, (stream, dtype) in tensors.items():
        tensor = stream.get_tensor(name)
        yield name, tensor.to(dtype or tensor.dtype).contiguous()
