"""What is trained on what, and how: the settings of one training, checked. Loads no torch."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator, model_validator

from lrq.config import setting
from lrq.domain.errors import UsageError
from lrq.trainer.loss_names import (
    DEFAULT_LOSS,
    expand,
    is_known,
    is_one_sided,
    names,
    readers_of_beta,
    reads,
    trl_beta,
)  # fmt: skip

Losses = tuple[str, ...]

# Where figures can go, and the beginning of the environment variables that each reads.
REPORTERS = {"trackio": "TRACKIO_", "wandb": "WANDB_", "tensorboard": "TENSORBOARD_", "mlflow": "MLFLOW_"}


class Record(BaseModel):
    """Plain data that is read back as it was written; what it does not know is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class Adapter(Record):
    """Low-rank matrices beside the weights, trained instead of them (LoRA, arXiv 2106.09685).

    The defaults are those that match full training over a wide range of data: every linear layer, alpha twice the rank.
    """

    r: int = setting("Rank of the matrices", example=64, default=16, gt=0)
    alpha: float = setting("What their product is scaled by, over the rank", example=128, default=32, gt=0)
    dropout: float = setting("Share of their input that is left out in training", example=0.1, default=0.0, ge=0, lt=1)
    targets: str | tuple[str, ...] = setting(
        "Names of the modules that get them, or a pattern", example=["q_proj", "v_proj"], default="all-linear"
    )
    quantize: bool = setting(
        "Keep the base in 4 bits (QLoRA, arXiv 2305.14314): on a GPU, with bitsandbytes", example=True, default=False
    )


class TrainJob(Record):
    """What is trained on what, and how.

    The defaults of loss, beta, learning rate and batch are LongReward's (arXiv 2410.21252); its other settings were
    not published, and each choice of ours is argued in docs/design/training.md.
    """

    model: Path  # a folder with safetensors and a tokenizer: policy at the start, and reference
    reference_model: Path | None = None  # the folder of another reference, as for a later window of a round
    rows: Path  # a TRL preference file, or a folder of them
    output: Path  # the folder of the trained model; must not exist yet

    also: Path | None = setting(
        "A further file of pairs, ordinary short ones, mixed with the rows", example="short_pairs.jsonl"
    )

    loss_type: Losses = setting(
        "Losses: dpo, sft, nll, sppo, longpo, orpo, simpo, and those of TRL's DPOConfig by their names",
        example=["sigmoid"],
        default=DEFAULT_LOSS,
    )
    loss_weights: tuple[float, ...] = setting("Weight of each loss", example=[1.0], default=(1.0, 0.1))
    beta: float = setting("Strength of the tie to the reference", example=0.1, default=0.15, gt=0)
    loss_betas: dict[str, float] = setting(
        "Strengths of single losses, where it is not beta", example={"sppo": 1e-3}, default={}
    )
    gamma: float = setting("Margin of SimPO", example=0.5, default=1.0, ge=0)
    learning_rate: float = setting("Peak learning rate", example=5e-7, default=1e-6, gt=0)
    batch_size: int = setting("Pairs in one step, over all processes", unit="pairs", example=32, default=16, gt=0)
    micro_batch: int = setting("Pairs in one forward pass of one process", unit="pairs", example=2, default=1, gt=0)
    epochs: float = setting("Times that all pairs are seen", unit="epochs", example=2, default=1.0, gt=0)
    max_steps: int | None = setting("Steps, instead of epochs", unit="steps", example=500, gt=0)
    warmup: float = setting(
        "Steps until the peak: a share of all, or their number if 1 or more", example=50, default=0.1, ge=0
    )
    scheduler: str = setting("Learning rate schedule, as transformers names it", example="linear", default="cosine")
    optim: str = setting(
        "Optimizer, as transformers names it", example="rmsprop", default="adamw_torch_fused", pattern="^[a-z0-9_]+$"
    )
    weight_decay: float = setting("Weight decay of the optimizer", example=0.01, default=0.0, ge=0)
    max_grad_norm: float = setting("Largest norm of the gradients", example=0.5, default=1.0, gt=0)
    seed: int = setting("Seed of the order of the pairs", example=1, default=42)

    max_length: int | None = setting(
        "Longest prompt and response together; unset: nothing is cut", unit="tokens", example=65_536, gt=0
    )
    overlong: Literal["cut", "drop"] = setting(
        "What becomes of a longer pair: the middle of its prompt is cut, or the pair is dropped",
        example="drop",
        default="cut",
    )
    max_dropped: float = setting(
        "Share of the pairs that may be dropped before the training fails", example=0.1, default=0.01, ge=0, le=1
    )

    control_tokens: bool = setting(
        "Read control tokens that rows of plain texts spell out as tokens, as in chats that were rendered before; "
        "else they are letters",
        example=True,
        default=False,
    )

    device: Literal["auto", "cpu", "gpu"] = setting("Where it trains", example="gpu", default="auto")
    processes: int | None = setting(
        "Processes of the training; unset: one per GPU, or one", unit="processes", example=8, gt=0
    )
    zero_stage: Literal[0, 2, 3] = setting("Stage of ZeRO; 0: without DeepSpeed", example=3, default=2)
    deepspeed: dict[str, Any] = setting(
        "Laid over the DeepSpeed configuration", example={"zero_optimization": {"overlap_comm": False}}, default={}
    )
    bf16: bool | None = setting("Train in bfloat16; unset: on a GPU that can", example=False)
    gradient_checkpointing: bool = setting("Save memory by computing twice", example=False, default=True)
    shared_prefix: bool = setting(
        "Read the prompt once for chosen and rejected, where the model allows it", example=False, default=True
    )
    rope_theta: float | None = setting(
        "Base of the policy's rotary positions, for longer contexts than it was made for; the reference keeps its own",
        example=1e7,
        gt=0,
    )
    reference: Path | None = setting(
        "File of reference log-probabilities that trainings share; unset: the training's own", example="reference.jsonl"
    )

    adapter: Adapter | None = setting(
        "Train low-rank matrices beside the weights (LoRA); unset: all weights, or the adapter that the model is",
        example={"r": 16, "alpha": 32},
    )
    merge: bool = setting("Save a whole model, the adapter added to its base", example=True, default=False)

    held_out: float = setting(
        "Share of the rows that is measured before and after and not trained on", example=0.05, default=0.0, ge=0, lt=1
    )
    report_to: tuple[str, ...] = setting(
        "Where figures of each step go: trackio, wandb, tensorboard, mlflow", example=["tensorboard"], default=()
    )
    about: dict[str, str] = setting(
        "Further lines of the model's card",
        example={"licence": "CC BY 4.0"},
        default={},
    )

    save_steps: int = setting("Steps between two checkpoints", unit="steps", example=100, default=50, gt=0)
    keep_checkpoints: bool = setting("Keep them after the end", example=True, default=False)

    @field_validator("adapter", mode="before")
    @classmethod
    def _adapter_by_name(cls, value: Any) -> Any:
        return {} if value == "lora" else value

    @field_validator("report_to", mode="before")
    @classmethod
    def _several(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @field_validator("report_to")
    @classmethod
    def _known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := set(value) - REPORTERS.keys():
            raise ValueError(f"{min(unknown)} is none of {', '.join(REPORTERS)}")
        return value

    @model_validator(mode="before")
    @classmethod
    def _terms(cls, settings: Any) -> Any:
        """Write sums of losses as their terms."""
        if not isinstance(settings, dict):
            return settings
        settings = {**settings, "loss_betas": _betas_by_term(settings.get("loss_betas"))}
        if "loss_type" not in settings:
            return settings
        losses = settings["loss_type"]
        losses = [losses] if isinstance(losses, str) else losses
        weights = settings.get("loss_weights", cls.model_fields["loss_weights"].default)
        if not isinstance(losses, list | tuple) or not isinstance(weights, list | tuple) or len(losses) != len(weights):
            return {**settings, "loss_type": losses}
        if unknown := [name for name in losses if not is_known(name)]:
            raise ValueError(f"no loss {unknown[0]!r}; there is {', '.join(names())}")
        losses, weights = expand(losses, weights)
        return {**settings, "loss_type": losses, "loss_weights": weights}

    @property
    def is_one_sided(self) -> bool:
        """Tell whether the chosen responses are all that is read."""
        return is_one_sided(self.loss_type)

    @property
    def reads_reference(self) -> bool:
        """Tell whether any loss reads the model at the start."""
        return any(reads(name).reference for name in self.loss_type)

    @model_validator(mode="after")
    def _weights_match(self) -> Self:
        if len(self.loss_type) != len(self.loss_weights):
            raise ValueError(
                f"loss_type names {len(self.loss_type)} losses and loss_weights has {len(self.loss_weights)}"
            )
        return self

    @model_validator(mode="after")
    def _betas_fit(self) -> Self:
        for name, beta in self.loss_betas.items():
            if name not in self.loss_type:
                raise ValueError(f"loss_betas names {name!r}, which is none of the losses")
            if beta <= 0:
                raise ValueError(f"loss_betas has {beta:g} for {name!r}; a beta is above 0")
        try:
            trl_beta(self.loss_type, self.loss_betas, self.beta)
        except UsageError as error:
            raise ValueError(str(error)) from None
        return self

    def accumulation(self, processes: int) -> int:
        """Return the forward passes of each of `processes` that make a step; UsageError where they do not divide."""
        passes, remainder = divmod(self.batch_size, self.micro_batch * processes)
        if remainder or not passes:
            raise UsageError(
                f"batch_size {self.batch_size} is no multiple of {processes} processes × micro_batch "
                f"{self.micro_batch}: change one of them"
            )
        return passes


def _betas_by_term(betas: Any) -> Any:
    """Write the betas of sums, dpo and the like, as those of their terms; leave what cannot be read to pydantic."""
    if not isinstance(betas, dict):
        return {} if betas is None else betas
    terms: dict[str, Any] = {}
    for name, beta in betas.items():
        if not is_known(str(name)):
            raise ValueError(f"no loss {name!r}; there is {', '.join(names())}")
        try:
            terms |= dict.fromkeys(readers_of_beta(name), beta)
        except UsageError as error:
            raise ValueError(str(error)) from None
    return terms


def make_job(settings: Mapping[str, Any]) -> TrainJob:
    """Return the job with these settings, fields of TrainJob by their names.

    Raises UsageError, in one line, on a setting that does not exist or cannot be.
    """
    if unknown := settings.keys() - TrainJob.model_fields.keys():
        raise UsageError(
            f"{min(unknown)} is no setting of a training; there are: {', '.join(sorted(TrainJob.model_fields))}"
        )
    try:
        return TrainJob(**settings)
    except ValidationError as error:
        raise UsageError(f"the training's settings: {first_problem(error)}") from error


def first_problem(error: ValidationError) -> str:
    """Return the first thing that pydantic has against a record, in one line, by the name of its field."""
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc'])) or 'settings'}: {first['msg']}"
