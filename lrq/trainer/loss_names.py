"""The losses by name: what each reads of a row, what it is by default, which are a sum of others. Loads no torch."""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lrq.domain.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Reads:
    """What a loss reads beside the chosen response."""

    rejected: bool = True
    reference: bool = True  # log-probabilities under the model at the start
    rates: bool = False  # p_w and p_l


OWN: Mapping[str, Reads] = {  # lrq.trainer.losses has their formulas
    "sigmoid": Reads(),
    "sft": Reads(rejected=False, reference=False),
    "nll": Reads(rejected=False, reference=False),
    "sppo": Reads(rates=True),
    "orpo": Reads(reference=False),
    "simpo": Reads(reference=False),
}
OF_TRL = (
    "hinge", "ipo", "exo_pair", "nca_pair", "robust", "bco_pair", "sppo_hard", "aot", "aot_unpaired", "apo_zero",
    "apo_down", "discopop", "sigmoid_norm",
)  # fmt: skip
DEFAULT_LOSS = ("sigmoid", "sft")  # LongReward's, with weights 1 and 0.1
SUMS: Mapping[str, Mapping[str, float]] = {
    "dpo": {"sigmoid": 1.0},
    "dpo+sft": {"sigmoid": 1.0, "sft": 0.1},  # arXiv 2410.21252, section 3.3
    "longpo": {"nll": 1.0, "sigmoid": 0.01},  # arXiv 2502.13922, equation 7
}
# The papers' values of the coefficients that a loss reads.
_COEFFICIENTS: Mapping[str, Mapping[str, float]] = {
    "dpo": {"beta": 0.1},
    "sigmoid": {"beta": 0.1},
    "dpo+sft": {"beta": 0.15},
    "longpo": {"beta": 0.1},
    "sppo": {"beta": 1e-3},  # 1/η
    "orpo": {"beta": 0.1},  # λ, the weight of the odds ratio
    "simpo": {"beta": 2.0, "gamma": 1.0},
}


def reads(name: str) -> Reads:
    """Return what a loss of that name reads; those of TRL read pairs and a reference."""
    return OWN.get(name, Reads())


def is_known(name: str) -> bool:
    """Whether there is a loss of that name."""
    return name in OWN or name in SUMS or name in OF_TRL


def names() -> list[str]:
    """Return all names that can be given."""
    return [*SUMS, *OWN, *OF_TRL]


def expand(losses: Sequence[str], weights: Sequence[float]) -> tuple[list[str], list[float]]:
    """Replace sums by their terms, each with its share of the weight; a name that comes twice is added up."""
    total: dict[str, float] = {}
    for name, weight in zip(losses, weights, strict=True):
        for term, share in SUMS.get(name, {name: 1.0}).items():
            total[term] = total.get(term, 0.0) + weight * share
    return list(total), list(total.values())


def loss_settings(text: str) -> dict[str, Any]:
    """Return the settings of a training for `--loss`: a name, or several with their weights, as nll:1,sigmoid:0.01.

    The coefficients are the papers' for the first of them that has any. Raises UsageError.
    """
    parts = [text] if text in SUMS else re.split(r"[,+]", text)
    named = [part.partition(":")[::2] for part in parts]
    if unknown := [name for name, _ in named if not is_known(name)]:
        raise UsageError(f"no loss {unknown[0]!r}; there is {', '.join(names())}")
    try:
        weights = [float(weight or 1.0) for _, weight in named]
    except ValueError:
        raise UsageError(f"--loss wants NAME or NAME:WEIGHT,NAME:WEIGHT, not {text!r}") from None
    losses, weights = expand([name for name, _ in named], weights)
    coefficients = next((_COEFFICIENTS[name] for name, _ in named if name in _COEFFICIENTS), {})
    return {"loss_type": losses, "loss_weights": weights, **coefficients}


def is_one_sided(losses: Collection[str]) -> bool:
    """Whether the chosen responses are all that these losses read."""
    return not any(reads(name).rejected for name in losses)


def lack(losses: Collection[str], carried: Collection[str]) -> str:
    """Say what rows that carry these (of "rejected", "p_w") lack for a loss; empty: nothing."""
    for name in losses:
        if reads(name).rejected and "rejected" not in carried:
            return f"no 'rejected', which the loss {name!r} reads: demonstrations are trained with sft"
        if reads(name).rates and "p_w" not in carried:
            return f"no win rates 'p_w' and 'p_l', which the loss {name!r} reads"
    return ""
