"""Reference log-probabilities: computed once per (model, prompt, response), kept in a file that trainings can share."""

import hashlib
from array import array
from collections.abc import Mapping, Sequence
from pathlib import Path

import orjson


def response_key(
    model: str, prompt_ids: Sequence[int], response_ids: Sequence[int], mask: Sequence[int] | None = None
) -> str:
    """Return the name of log π_ref(response | prompt); `model` is the reference's fingerprint.

    `mask` is 0 on tokens of a response of several turns that the user wrote; None: there are none.
    """
    digest = hashlib.sha256(model.encode())
    for ids in (prompt_ids, response_ids, *([mask] if mask else [])):
        digest.update(len(ids).to_bytes(8, "little"))
        digest.update(array("i", ids).tobytes())
    return digest.hexdigest()[:32]


class ReferenceStore:
    """Summed log-probabilities by key, as JSON lines that are only ever appended."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def load(self) -> dict[str, float]:
        """Return all log-probabilities that are known, in nats, by key."""
        return dict(_read(self._path)) if self._path.exists() else {}

    def append(self, logps: Mapping[str, float]) -> None:
        """Add `logps`, in nats by key, in one write, on a line of their own even after a torn one."""
        lines = b"".join(orjson.dumps({"key": key, "logp": logp}) + b"\n" for key, logp in logps.items())
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("ab") as stream:
            stream.write(b"\n" * _is_torn(self._path) + lines)


def _is_torn(path: Path) -> bool:
    with path.open("rb") as stream:
        size = stream.seek(0, 2)
        stream.seek(max(0, size - 1))
        return size > 0 and stream.read(1) != b"\n"


def _read(path: Path) -> list[tuple[str, float]]:
    logps = []
    for line in path.read_bytes().splitlines():
        try:
            record = orjson.loads(line)
            logps.append((record["key"], float(record["logp"])))
        except (orjson.JSONDecodeError, KeyError, TypeError):
            continue  # torn by a kill: computed again
    return logps
