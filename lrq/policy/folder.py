"""Finding a policy's folder and saying which policy it is, without loading it."""

import hashlib
import os
from pathlib import Path

import orjson

from lrq.domain.errors import UsageError

WEIGHTS = "*.safetensors"
ADAPTER = "adapter_config.json"  # peft's: the folder holds low-rank matrices for a base that lies elsewhere
ADAPTER_WEIGHTS = "adapter_model.safetensors"
_WHOLE = 64 << 20  # bytes: weights up to this size are read whole
_BLOCK, _BLOCKS = 4096, 256  # of larger ones, this many blocks spread evenly


def find(spec: str) -> Path:
    """Return the folder at the path `spec`, or of that name in the local hub cache; nothing is downloaded.

    Raises UsageError where there is none, or it holds no model.
    """
    folder = Path(spec).expanduser()
    if folder.is_dir():
        return checked(folder)
    if spec.startswith((".", "/", "~")) or spec.count("/") > 1:
        raise UsageError(f"there is no folder {spec}; name one that holds a model in safetensors form")
    return checked(_in_cache(spec))


def base_of(folder: Path) -> Path | None:
    """Return the folder of the whole model to which the adapter in `folder` belongs; None: the folder is no adapter.

    Raises UsageError where its base is not named, not there, or an adapter itself.
    """
    if not (folder / ADAPTER).is_file():
        return None
    name = orjson.loads((folder / ADAPTER).read_bytes()).get("base_model_name_or_path")
    if not name:
        raise UsageError(f"{folder} is an adapter that names no base: set base_model_name_or_path in its {ADAPTER}")
    try:
        base = find(str(name))
    except UsageError as error:
        raise UsageError(f"{folder} is an adapter, and of its base: {error}") from None
    if (base / ADAPTER).is_file():
        raise UsageError(f"{folder} is an adapter of {base}, which is one itself: merge that one first")
    return base


def tokenizer_folder(folder: Path) -> Path:
    """Return the folder whose tokenizer a policy uses: of an adapter that has none its base's. Raises UsageError."""
    has_tokenizer = any((folder / name).is_file() for name in ("tokenizer_config.json", "tokenizer.json"))
    return folder if has_tokenizer else base_of(folder) or folder


def _checked_adapter(folder: Path) -> Path:
    if not (folder / ADAPTER_WEIGHTS).is_file():
        raise UsageError(f"{folder} holds an {ADAPTER} and no {ADAPTER_WEIGHTS}; save the adapter with save_pretrained")
    if any(path.name != ADAPTER_WEIGHTS for path in folder.glob(WEIGHTS)):
        raise UsageError(
            f"{folder} holds a whole model and an adapter: which of them is meant is not said; "
            f"move the adapter_* files elsewhere, or the model's"
        )
    base_of(folder)
    return folder


def checked(folder: Path) -> Path:
    """Return `folder` where it holds a model in safetensors form, or an adapter with its base; else UsageError."""
    if (folder / ADAPTER).is_file():
        return _checked_adapter(folder)
    for pattern, what in (("config.json", "config.json"), (WEIGHTS, "safetensors weights")):
        if not any(folder.glob(pattern)):
            raise UsageError(f"{folder} holds no {what}; save a model there with save_pretrained")
    return folder


def fingerprint(folder: Path) -> str:
    """Return a hash of weights, configuration and tokenizer, of an adapter with its base's.

    Of large weights size, header and 1 MiB of content are read: training moves weights everywhere, so that two policies
    that differ in one weight of ten thousand still differ in the sample, and 16 GB need no minute of reading.
    """
    digest = hashlib.blake2b(digest_size=16)
    if base := base_of(folder):
        digest.update(fingerprint(base).encode())
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.suffix in {".safetensors", ".json", ".jinja", ".model", ".txt"}:
            digest.update(f"{path.name}\n{path.stat().st_size}\n".encode())
            _add(digest, path)
    return digest.hexdigest()


def _add(digest: "hashlib.blake2b", path: Path) -> None:
    size = path.stat().st_size
    with path.open("rb") as stream:
        if size <= _WHOLE or path.suffix != ".safetensors":
            digest.update(stream.read())
            return
        header = int.from_bytes(stream.read(8), "little")  # a safetensors file starts with the length of its header
        digest.update(stream.read(min(header, _WHOLE)))
        for block in range(_BLOCKS):
            stream.seek((size - _BLOCK) * block // (_BLOCKS - 1))
            digest.update(stream.read(_BLOCK))


def _in_cache(name: str) -> Path:
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    from huggingface_hub import snapshot_download  # noqa: PLC0415  only those who name a model need it
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError  # noqa: PLC0415

    try:
        return Path(snapshot_download(name, local_files_only=True))
    except (HFValidationError, LocalEntryNotFoundError):
        raise UsageError(
            f"{name} is neither a folder nor in the local hub cache; get it with: hf download {name}"
        ) from None
