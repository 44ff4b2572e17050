"""A training job's settings, and what its processes are told."""

from pathlib import Path
from typing import Any

import pytest

from lrq.domain.errors import UsageError
from lrq.trainer.card import model_card
from lrq.trainer.job import TrainJob, make_job
from lrq.trainer.job_folder import JobFolder, Preflight, Result, identity
from lrq.trainer.launch import environment, torchrun_arguments

FILES = {"model": Path("/models/base"), "rows": Path("/data/rows.jsonl"), "output": Path("/models/better")}


def job(**settings: Any) -> TrainJob:
    return TrainJob(**FILES, **settings)


def test_the_defaults_are_those_of_the_paper() -> None:
    """LongReward: DPO plus a tenth of cross-entropy, beta 0.15, 1e-6, 16 pairs a step, nothing cut."""
    defaults = job()
    assert (defaults.loss_type, defaults.loss_weights) == (("sigmoid", "sft"), (1.0, 0.1))
    assert (defaults.beta, defaults.learning_rate, defaults.batch_size) == (0.15, 1e-6, 16)
    assert defaults.max_length is None


@pytest.mark.parametrize(
    ("batch_size", "micro_batch", "processes", "passes"),
    [(16, 1, 1, 16), (16, 1, 4, 4), (16, 2, 4, 2), (16, 16, 1, 1)],
)
def test_a_step_is_spread_over_processes(batch_size: int, micro_batch: int, processes: int, passes: int) -> None:
    """The pairs of a step stay the same however many processes share it."""
    assert job(batch_size=batch_size, micro_batch=micro_batch).accumulation(processes) == passes


@pytest.mark.parametrize(("batch_size", "processes"), [(16, 3), (2, 4)])
def test_a_step_that_cannot_be_shared_is_refused(batch_size: int, processes: int) -> None:
    """A batch that is no multiple of the processes is an error that names both."""
    with pytest.raises(UsageError, match=f"batch_size {batch_size} is no multiple of {processes} processes"):
        job(batch_size=batch_size).accumulation(processes)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"learning_rat": 1}, "learning_rat is no setting of a training; there are: about, adapter, also, batch_size"),
        ({"beta": -1}, "beta: Input should be greater than 0"),
        ({"zero_stage": 1}, "zero_stage: Input should be 0, 2 or 3"),
        ({"loss_type": ["sigmoid"]}, "loss_type names 1 losses and loss_weights has 2"),
        ({"loss_betas": {"sppo": 0.1}}, "loss_betas names 'sppo', which is none of the losses"),
        ({"loss_betas": {"sft": 0.1}}, "the loss 'sft' reads no beta"),
        ({"loss_betas": {"dpo": 0}}, "a beta is above 0"),
        ({"loss_betas": {"bpo": 0.1}}, "no loss 'bpo'"),
        (
            {"loss_type": ["hinge", "ipo"], "loss_betas": {"ipo": 0.3}},
            "losses of TRL share one beta, and these have several: hinge 0.15, ipo 0.3",
        ),
        ({"optim": "Rms Prop"}, "optim"),
        ({"max_length": "long"}, "max_length: Input should be a valid integer"),
    ],
)
def test_a_wrong_setting_is_one_line(settings: dict[str, Any], words: str) -> None:
    """Unknown names and impossible values are refused in one line that names them."""
    with pytest.raises(UsageError) as caught:
        make_job({**FILES, **settings})
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_settings_come_back_from_json() -> None:
    """A job read from its file is the job that was written."""
    written = job(deepspeed={"zero_optimization": {"overlap_comm": False}}, max_steps=3, warmup="1e-1")
    assert TrainJob.model_validate_json(written.model_dump_json()) == written
    assert identity(written) != identity(job())


def test_torchrun_meets_on_the_loopback() -> None:
    """All processes of a training on one machine rendezvous there alone."""
    arguments = torchrun_arguments(JobFolder(Path("/jobs/one")), 4)
    assert {"--standalone", "--local-addr=127.0.0.1", "--nproc-per-node=4"} < set(arguments)
    assert arguments[-2:] == ["lrq.trainer", "/jobs/one"]


def test_a_training_knows_no_keys_and_stays_offline() -> None:
    """Keys of other services are not handed on; hub and telemetry are off whatever the user's environment says."""
    told = environment(
        {"LRQ_JUDGE_API_KEY": "sk-1", "OPENAI_API_KEY": "sk-2", "HF_TOKEN": "hf", "HF_HUB_OFFLINE": "0", "PATH": "/bin"}
    )
    assert "sk-1" not in told.values()
    assert "sk-2" not in told.values()
    assert "hf" not in told.values()
    assert (told["PATH"], told["HF_HUB_OFFLINE"], told["HF_HUB_DISABLE_TELEMETRY"]) == ("/bin", "1", "1")


def test_the_card_names_what_made_the_model() -> None:
    """Base fingerprint, method, settings, rows and figures stand in the card; paths of the machine do not."""
    preflight = Preflight(rows=12, kept=10, cut=2, dropped=1, set_aside=1, shared_prefix="yes", model="ab12")
    metrics = {"loss": 0.51234, "margin": 1.25, "accuracy": 0.75}
    card = model_card(
        job(zero_stage=3), Result(state="done", steps=40, seconds=61.5, preflight=preflight, metrics=metrics)
    )
    for words in ("`ab12`", "base_model: base", "# better", "ZeRO-3", "1 × sigmoid + 0.1 × sft", "| β | 0.15 |"):
        assert words in card
    for cells in ("| in the file | 12 |", "| trained on | 10 |", "| steps | 40 |", "| last loss | 0.5123 |"):
        assert cells in card
    assert "/models" not in card
