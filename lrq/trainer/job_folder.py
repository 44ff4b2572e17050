"""One training as a folder: what is asked for (`job.json`), how far it is, and how it ended (`result.json`).

Nothing here loads torch: the processes that start and follow a training use this module.
"""

import hashlib
import os
import shutil
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import orjson
from pydantic import BaseModel, Field, ValidationError

from lrq.domain.errors import UsageError
from lrq.policy import folder as policies
from lrq.trainer.files import data_files, find_rows
from lrq.trainer.job import Record, TrainJob, first_problem
from lrq.trainer.rows import no_rows

State = Literal["done", "nothing", "stopped", "failed"]

NOTE = "training.json"  # in the model's folder: figures of the training, and whose work it is


class PreparedJob(TrainJob):
    """A job as it lies in its folder: with hashes of what it trains, for names stay when files are replaced."""

    content_of_model: str = ""  # as sampling knows a policy: tokenizer and all, and little is read of large weights
    content_of_reference_model: str = ""  # alike
    content_of_rows: str = ""
    content_of_also: str = ""


class Spread(Record):
    """Lengths in tokens."""

    min: int = 0
    median: int = 0
    max: int = 0


class Preflight(Record):
    """What became of the rows before the first step."""

    rows: int = 0  # lines of the file that are not blank
    kept: int = 0  # the cut ones included
    cut: int = 0
    dropped: int = 0  # too long
    set_aside: int = 0  # not readable as a preference row
    reasons: tuple[str, ...] = ()  # of the first rows dropped or set aside, with their line numbers
    notes: tuple[str, ...] = ()  # what befell rows that are kept
    held_out: int = 0  # of the kept ones: measured, not trained on
    also: int = 0  # of the kept ones: from the further file
    prompt: Spread = Spread()
    chosen: Spread = Spread()
    rejected: Spread = Spread()
    total: Spread = Spread()  # prompt and the longer response
    shared_prefix: str = ""  # "yes", or why not; empty: not yet tried
    prefix_apart: float | None = None  # largest difference to the plain forward pass, in nats
    model: str = ""  # fingerprint of the starting policy


class Result(Record):
    """How a training ended."""

    state: State
    reason: str = ""
    steps: int = 0
    seconds: float = 0.0  # spent in steps, interrupted starts included
    model: Path | None = None
    preflight: Preflight | None = None
    tokens: float = 0.0  # prompt and response of both sides, of all steps
    first: dict[str, float | None] = Field(default_factory=dict)  # metrics of the first step
    metrics: dict[str, float | None] = Field(default_factory=dict)  # of the last step
    held_out: dict[str, dict[str, float]] = Field(default_factory=dict)  # before and after: loss, margin, accuracy


class JobFolder:
    """The files of one training; every writer and reader goes by these names."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.job = path / "job.json"
        self.metrics = path / "metrics.jsonl"
        self.stage = path / "stage.json"
        self.preflight = path / "preflight.json"
        self.rows = path / "rows.arrow"
        self.held_out = path / "held_out.jsonl"  # a line per measurement
        self.adapter = path / "adapter"  # trained, waiting to be merged
        self.reference = path / "reference.jsonl"
        self.checkpoints = path / "checkpoints"
        self.result = path / "result.json"
        self.failure = path / "failure"  # why, of the process that failed first
        self.overtime = path / "overtime"  # why, of a process that is ended within what may not end
        self.stop = path / "stop"  # its presence asks for a checkpoint and the end
        self.lock = path / "lock"
        self.log = path / "train.log"

    def load(self) -> PreparedJob:
        """Read the job. Raises UsageError where there is none."""
        try:
            return PreparedJob.model_validate_json(self.job.read_bytes())
        except (OSError, ValidationError) as error:
            reason = first_problem(error) if isinstance(error, ValidationError) else str(error).splitlines()[0]
            raise UsageError(f"{self.job} holds no training job: {reason}") from error

    def load_result(self) -> Result | None:
        return Result.model_validate_json(self.result.read_bytes()) if self.result.exists() else None

    def load_metrics(self) -> Iterator[dict[str, Any]]:
        """Yield all complete lines, one for each step."""
        for line in self.metrics.read_bytes().splitlines(keepends=True) if self.metrics.exists() else ():
            if line.endswith(b"\n"):
                yield orjson.loads(line)


def prepare(path: Path, job: TrainJob) -> JobFolder:
    """Write the job into the folder `path`, or find the same job there; its paths become absolute.

    Same are settings and content of the files. A training whose model was removed since is begun anew.
    Raises UsageError if the folder holds another training that took steps, or the job's files cannot be used.
    """
    check_settings(job)
    paths = {"model": find_model(job.model), "rows": find_rows(job.rows), "also": job.also and find_rows(job.also)}
    paths["reference_model"] = job.reference_model and find_model(job.reference_model)
    job = job.model_copy(update={**paths, "output": job.output.absolute()})
    contents = {"content_of_model": policies.fingerprint(job.model), "content_of_rows": _hashed(job.rows)}
    contents |= {"content_of_also": _hashed(job.also)} if job.also else {}
    if job.reference_model:
        contents["content_of_reference_model"] = policies.fingerprint(job.reference_model)
    prepared = PreparedJob.model_validate({**job.model_dump(), **contents})
    folder = JobFolder(path.absolute())
    if folder.job.exists() and _goes_on(folder, prepared):
        return folder
    if job.output.exists():
        raise UsageError(f"{job.output} exists: name another output folder, or remove it")
    folder.path.mkdir(parents=True, exist_ok=True)
    _clear(folder)
    write_json(folder.job, prepared)
    return folder


def find_model(model: Path) -> Path:
    """Return the folder at the path `model`, or of that name in the local hub cache, absolute; raises UsageError."""
    if model.is_absolute() and not model.is_dir():
        raise UsageError(f"{model} holds no model (no config.json): name a local model folder")
    return policies.find(str(model)).absolute()


def check_settings(job: TrainJob) -> None:
    """Raise UsageError for settings that ask for what is not installed or cannot be."""
    if missing := [name for name in job.report_to if find_spec(name) is None]:
        raise UsageError(f"report_to={missing[0]} needs it installed: pip install {missing[0]}")
    if job.adapter and job.adapter.quantize and find_spec("bitsandbytes") is None:
        raise UsageError("adapter.quantize needs bitsandbytes and a GPU: pip install bitsandbytes, or leave it out")
    if job.adapter and find_spec("peft") is None:
        raise UsageError("adapter needs peft: pip install 'lrq[train]'")
    if job.also and (reason := no_rows(find_rows(job.also), job.loss_type)):
        raise UsageError(f"also={job.also.name}: {reason}")
    if job.rope_theta and (job.adapter or policies.base_of(job.model)) and not job.merge:
        raise UsageError("rope_theta with an adapter needs merge: the base that it is loaded on has another")
    if job.adapter and job.adapter.quantize and job.zero_stage == 3:
        raise UsageError("adapter.quantize does not go with zero_stage=3: set zero_stage=2 or 0")


def _hashed(path: Path) -> str:
    """SHA-256 of a file, or of the hashes of a folder's files with rows."""
    digests = []
    for file in data_files(path):
        with file.open("rb") as stream:
            digests.append(hashlib.file_digest(stream, "sha256"))
    if len(digests) == 1:
        return digests[0].hexdigest()
    return hashlib.sha256(b"".join(digest.digest() for digest in digests)).hexdigest()


def _goes_on(folder: JobFolder, job: PreparedJob) -> bool:
    """Tell whether what lies there is this job's; raises UsageError if it is another's and took steps."""
    before, result = folder.load(), folder.load_result()
    if result and result.state == "done" and not finished(folder, before):
        return False
    differing = [name for name in sorted(PreparedJob.model_fields) if getattr(job, name) != getattr(before, name)]
    if differing and folder.metrics.exists():
        raise UsageError(
            f"{folder.path} holds a training with other settings or files ({', '.join(differing)}): "
            "remove it, or name another output"
        )
    return not differing


def _clear(folder: JobFolder) -> None:
    """Remove what an earlier training left; its result last, so that a kill in between leaves it for removal."""
    folder.metrics.unlink(missing_ok=True)
    shutil.rmtree(folder.checkpoints, ignore_errors=True)
    for outdated in (folder.preflight, folder.rows, folder.held_out, folder.result):
        outdated.unlink(missing_ok=True)


def identity(job: TrainJob) -> str:
    """Return the hash that a finished model folder names, so that a restart recognises its own work."""
    return hashlib.sha256(job.model_dump_json().encode()).hexdigest()


def finished(folder: JobFolder, job: TrainJob) -> Result | None:
    """Return the result of the training `job` in `folder` that needs no further start; None: it needs one.

    There was nothing to train on, or its model lies where it belongs. So one is finished whose result was not yet
    written, and one is not whose model was removed.
    """
    result = folder.load_result()
    if result and result.state == "nothing":
        return result
    note = job.output / NOTE
    if not note.exists():
        return None
    content = orjson.loads(note.read_bytes())
    return Result(**content["result"], model=job.output) if content["job"] == identity(job) else None


def write_json(path: Path, content: BaseModel | dict[str, Any]) -> None:
    """Replace the file `path` in one step, synced to disk: readers see the old content or the new."""
    data = content.model_dump(mode="json") if isinstance(content, BaseModel) else content
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("wb") as stream:
        stream.write(orjson.dumps(data, option=orjson.OPT_INDENT_2) + b"\n")
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(path)
