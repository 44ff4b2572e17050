"""Losses of TRL as they are handed through: against published numbers, each with the beta it was given."""

import json
import warnings
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("trl")

with warnings.catch_warnings():  # the libraries warn about each other when imported
    warnings.simplefilter("ignore")
    import torch

    from lrq.trainer.losses import LOSSES, Coefficients
    from lrq.trainer.preference import PreferenceTrainer

pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore")]

SPPO = json.loads((Path(__file__).parents[1] / "golden" / "sppo_loss.json").read_text())["cases"]


def numbers(values: list[float]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def loss_of(
    case: dict[str, Any], weights: dict[str, float], *, beta: float, betas: dict[str, float], tokens: int = 1
) -> float:
    """Return the trainer's loss of a golden case: a batch of pairs whose responses are so many tokens long."""
    sides = ("chosen", "rejected")
    log_probs = numbers([value for side in sides for value in case[f"policy_{side}_logps"]])[:, None]
    log_probs = (log_probs / tokens).repeat(1, tokens)
    outputs = SimpleNamespace(
        log_probs=log_probs, entropy=log_probs, mean_logits=log_probs, is_top1=torch.ones_like(log_probs).bool()
    )
    same = SimpleNamespace(gather=lambda part: part, gather_for_metrics=lambda part: part, device="cpu")
    of_trl = {name: weight for name, weight in weights.items() if name not in LOSSES}
    trainer = object.__new__(PreferenceTrainer)
    trainer.__dict__ |= {
        "model": SimpleNamespace(training=True), "accelerator": same, "aux_loss_enabled": False, "ld_alpha": None,
        "precompute_ref_logps": True, "f_divergence_type": "reverse_kl", "use_weighting": False, "_tp_size": 1,
        "_metrics": {"train": defaultdict(list)}, "_total_train_tokens": 0, "beta": beta, "prefix": None,
        "loss_types": list(of_trl), "loss_weights": list(of_trl.values()),
        "_own": {name: weight for name, weight in weights.items() if name in LOSSES},
        "_one_sided": False, "_reads_reference": True, "_coefficients": Coefficients(beta=beta, betas=betas),
    }  # fmt: skip
    rows = len(log_probs)
    inputs = {
        "input_ids": torch.ones(rows, 1 + tokens).long(),
        "attention_mask": torch.ones(rows, 1 + tokens),
        "completion_mask": torch.tensor([[0] + [1] * tokens] * rows),
        "p_w": numbers(case["chosen_probs_win"]),
        "p_l": numbers(case["chosen_probs_lose"]),
        **{f"ref_{side}_logps": numbers(case[f"reference_{side}_logps"]) for side in sides},
    }
    return float(trainer._compute_loss(lambda **_: outputs, inputs, return_outputs=False))


@pytest.mark.parametrize("case", SPPO, ids=lambda case: case["seed"])
def test_losses_of_trl_equal_the_published_numbers(case: dict[str, Any]) -> None:
    """The sppo_hard of TRL, and ipo as SPPO's code has it, which for responses of one token is TRL's."""
    hard = case["trl_sppo_hard"]
    assert loss_of(case, {"sppo_hard": 1.0}, beta=hard["beta"], betas={}) == pytest.approx(hard["mean"], rel=1e-9)
    [ipo] = [official for official in case["official"] if official["loss_type"] == "ipo"]
    assert loss_of(case, {"ipo": 1.0}, beta=ipo["beta"], betas={}) == pytest.approx(ipo["mean"], rel=1e-9)


@pytest.mark.parametrize("case", SPPO, ids=lambda case: case["seed"])
def test_terms_of_a_sum_have_betas_of_their_own(case: dict[str, Any]) -> None:
    """Each is what it is alone: TRL's with the trainer's beta, ours with their own."""
    hard = case["trl_sppo_hard"]
    for official in (loss for loss in case["official"] if loss["loss_type"] == "sppo"):
        weights, betas = {"sppo_hard": 1.0, "sppo": 0.5}, {"sppo": official["beta"]}
        assert loss_of(case, weights, beta=hard["beta"], betas=betas) == pytest.approx(
            hard["mean"] + 0.5 * official["mean"], rel=1e-9
        )


@pytest.mark.parametrize("case", SPPO, ids=lambda case: case["seed"])
def test_ipo_is_of_means_over_tokens(case: dict[str, Any]) -> None:
    """The loss of TRL, whose authors had it from those of IPO; the published numbers are of sums over responses.

    With T tokens in each response, (Δ/T - 1/(2β))² is the published (Δ - T/(2β))² over T²: that of β/T.
    """
    [ipo] = [official for official in case["official"] if official["loss_type"] == "ipo"]
    tokens = 4
    mean = loss_of(case, {"ipo": 1.0}, beta=ipo["beta"] * tokens, betas={}, tokens=tokens)
    assert mean == pytest.approx(ipo["mean"] / tokens**2, rel=1e-9)
