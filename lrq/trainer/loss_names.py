"""The losses by name: what each reads of a row, what it is by default, which are a sum of others. Loads no torch."""

import math
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
    beta: bool = True  # its strength against the reference, or of its odds or rewards


OWN: Mapping[str, Reads] = {  # lrq.trainer.losses has their formulas
    "sigmoid": Reads(),
    "sft": Reads(rejected=False, reference=False, beta=False),
    "nll": Reads(rejected=False, reference=False, beta=False),
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
    """Return what the loss `name` reads; those of TRL read pairs and a reference."""
    return OWN.get(name, Reads())


def is_known(name: str) -> bool:
    """Tell whether there is a loss of that name."""
    return name in OWN or name in SUMS or name in OF_TRL


def names() -> list[str]:
    """Return all names that can be given."""
    return [*SUMS, *OWN, *OF_TRL]


def expand(losses: Sequence[str], weights: Sequence[float]) -> tuple[list[str], list[float]]:
    """Replace sums among `losses` by their terms, each with its share of the weight; equal names are added up."""
    total: dict[str, float] = {}
    for name, weight in zip(losses, weights, strict=True):
        for term, share in SUMS.get(name, {name: 1.0}).items():
            total[term] = total.get(term, 0.0) + weight * share
    return list(total), list(total.values())


@dataclass(frozen=True, kw_only=True)
class Term:
    """One loss of a sum, as it is written on the command line."""

    name: str
    weight: float = 1.0
    beta: float | None = None
    gamma: float | None = None


_PLUS = re.compile(r",|(?<!\d[eE])\+")  # between terms; not the plus of 1e+3
_FORM = "NAME, NAME:WEIGHT or WEIGHT*NAME:beta=NUMBER, several of them joined by + or ,"


def read_terms(text: str) -> list[Term]:
    """Read `text`, a sum of losses, as dpo:beta=0.1+0.1*sft or nll:1,sigmoid:0.01. Raises UsageError."""
    return [_read_term(part) for part in ([text] if text in SUMS else _PLUS.split(text))]


def _read_term(text: str) -> Term:
    before, star, term = text.rpartition("*")
    name, *options = (part.strip() for part in term.split(":"))
    if not is_known(name):
        raise UsageError(f"no loss {name!r}; there is {', '.join(names())}")
    pairs = [("weight", before)] if star else []
    for option in options:
        key, equals, value = option.partition("=")
        pairs.append((key.strip(), value) if equals else ("weight", option))
    try:
        numbers = {key: float(value) for key, value in pairs}
        if len(numbers) != len(pairs) or not all(map(math.isfinite, numbers.values())):
            raise ValueError
        return Term(name=name, **numbers)
    except (ValueError, TypeError):
        raise UsageError(f"--loss wants {_FORM}, not {text!r}") from None


def loss_settings(text: str) -> dict[str, Any]:
    """Return the settings of a training for `--loss`, as `read_terms` reads it.

    Coefficients that a term does not name are its paper's; `beta` is the first term's, and `loss_betas` has the others
    that differ. Raises UsageError.
    """
    terms = read_terms(text)
    losses, weights = expand([term.name for term in terms], [term.weight for term in terms])
    betas: dict[str, float] = {}
    for term in terms:
        paper = _COEFFICIENTS.get(term.name, {}).get("beta")
        beta = paper if term.beta is None else term.beta
        if beta is not None and any(betas.setdefault(name, beta) != beta for name in readers_of_beta(term.name)):
            raise UsageError(f"--loss {text}: {term.name} comes twice with different betas")
    first = next(iter(betas.values()), None)
    gammas = [_COEFFICIENTS["simpo"]["gamma"] if t.gamma is None else t.gamma for t in terms if t.name == "simpo"]
    if any(term.gamma is not None and term.name != "simpo" for term in terms):
        raise UsageError(f"--loss {text}: simpo alone reads gamma")
    others = {name: beta for name, beta in betas.items() if beta != first}
    return {
        "loss_type": losses,
        "loss_weights": weights,
        **({} if first is None else {"beta": first}),
        **({"gamma": gammas[0]} if gammas else {}),
        **({"loss_betas": others} if others else {}),
    }


def readers_of_beta(name: str) -> list[str]:
    """Return the losses that a name stands for and that read a beta. Raises UsageError where none does."""
    readers = [term for term in SUMS.get(name, {name: 1.0}) if reads(term).beta]
    if not readers:
        raise UsageError(f"the loss {name!r} reads no beta")
    return readers


def trl_beta(losses: Collection[str], betas: Mapping[str, float], beta: float) -> float:
    """Return the beta of TRL's losses among `losses`, `beta` where there is none; it has one for all.

    `betas` are those of single losses, by their names. Raises UsageError where they differ.
    """
    trl_betas = {name: betas.get(name, beta) for name in losses if name not in OWN}
    if len(set(trl_betas.values())) > 1:
        differing = ", ".join(f"{name} {value:g}" for name, value in trl_betas.items())
        raise UsageError(f"losses of TRL share one beta, and these have several: {differing}")
    return next(iter(trl_betas.values()), beta)


def is_one_sided(losses: Collection[str]) -> bool:
    """Tell whether the chosen responses are all that `losses` read."""
    return not any(reads(name).rejected for name in losses)


def lack(losses: Collection[str], carried: Collection[str]) -> str:
    """Return what rows that have `carried` (of "rejected", "p_w") lack for one of `losses`; empty: nothing."""
    for name in losses:
        if reads(name).rejected and "rejected" not in carried:
            return f"no 'rejected', which the loss {name!r} reads: demonstrations are trained with sft"
        if reads(name).rates and "p_w" not in carried:
            return f"no win rates 'p_w' and 'p_l', which the loss {name!r} reads"
    return ""
