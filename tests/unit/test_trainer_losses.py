"""The losses, against numbers from the papers' own code and against figures worked by hand."""

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

import torch

from lrq.domain.errors import UsageError
from lrq.trainer.loss_names import loss_settings
from lrq.trainer.losses import Coefficients, LogProbs, nll, orpo, sft, simpo, sppo, sppo_share, weighted

pytestmark = pytest.mark.torch

GOLDEN = Path(__file__).parents[1] / "golden"
SPPO = json.loads((GOLDEN / "sppo_loss.json").read_text())["cases"]
LOGPS = json.loads((GOLDEN / "sppo_loss.json").read_text())["logps"]
LONGPO = json.loads((GOLDEN / "longpo_loss.json").read_text())["cases"]


def numbers(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def batch(**fields: Any) -> LogProbs:
    """One row of a response of one token, unless the fields say otherwise."""
    given = {name: value if torch.is_tensor(value) else numbers(value) for name, value in fields.items()}
    return LogProbs(**({"chosen": numbers(0), "chosen_tokens": numbers(1)} | given))


@pytest.mark.parametrize(
    ("ratios", "rates", "beta", "loss"),
    [
        ((0.0, 0.0), (0.85, 0.15), 1e-3, 122_500),  # (350² + 350²) / 2
        ((0.0, 0.0), (1.0, 0.0), 1e-3, 250_000),  # (500² + 500²) / 2
        ((2.0, -1.0), (0.7, 0.4), 0.1, 0),  # Δ stands where the rates want it: 0.2/0.1 and -0.1/0.1
        ((3.0, 1.0), (0.7, 0.4), 0.1, 2.5),  # (1² + 2²) / 2
        ((1.0, 1.0), (0.5, 0.5), 0.1, 1),  # an even pair pulls both back to the reference
    ],
)
def test_the_squared_loss_draws_each_ratio_to_its_win_rate(
    ratios: tuple[float, float], rates: tuple[float, float], beta: float, loss: float
) -> None:
    """SPPO: half the squared distances of Δ from (p - ½)/β, of winner and loser."""
    zero = {"chosen_reference": 0.0, "rejected_reference": 0.0}
    row = batch(chosen=ratios[0], rejected=ratios[1], p_w=rates[0], p_l=rates[1], **zero)
    assert sppo(row, Coefficients(beta=beta)).item() == pytest.approx(loss, abs=1e-9)


def test_the_squared_loss_is_one_for_hard_labels_before_the_first_step() -> None:
    """In units of (½/β)² SPPO's loss does not depend on β."""
    for beta in (1e-3, 0.1):
        row = batch(rejected=0.0, chosen_reference=0.0, rejected_reference=0.0, p_w=1.0, p_l=0.0)
        assert sppo_share(sppo(row, Coefficients(beta=beta)), beta).item() == pytest.approx(1)


@pytest.mark.parametrize("case", SPPO, ids=lambda case: case["seed"])
def test_sppo_and_dpo_equal_the_papers_code(case: dict[str, Any]) -> None:
    """Losses of each pair and gradients of their mean agree to a millionth, in float64."""
    compared = 0
    for official in case["official"]:
        single = official["loss_type"] == "sppo_single"
        if official["loss_type"] not in {"sppo", "sppo_single", "sigmoid"}:
            continue
        policy = [numbers(*case[f"policy_{side}_logps"]).requires_grad_() for side in ("chosen", "rejected")]
        rates = [case["chosen_probs"], [1 - p for p in case["chosen_probs"]]] if single else [
            case["chosen_probs_win"], case["chosen_probs_lose"]
        ]  # fmt: skip
        record = batch(
            chosen=policy[0],
            rejected=policy[1],
            chosen_reference=numbers(*case["reference_chosen_logps"]),
            rejected_reference=numbers(*case["reference_rejected_logps"]),
            p_w=numbers(*rates[0]),
            p_l=numbers(*rates[1]),
        )
        name = "sigmoid" if official["loss_type"] == "sigmoid" else "sppo"
        loss = weighted(record, Coefficients(beta=official["beta"]), {name: 1.0})
        assert loss.item() == pytest.approx(official["mean"], rel=1e-9, abs=1e-6)
        for side, gradient in zip(("chosen", "rejected"), torch.autograd.grad(loss, policy), strict=True):
            assert gradient.tolist() == pytest.approx(official[f"grad_policy_{side}"], rel=1e-9, abs=1e-9)
        compared += 1
    assert compared >= 4


@pytest.mark.parametrize("case", SPPO, ids=lambda case: case["seed"])
def test_hard_labels_of_trl_are_twice_the_papers_loss(case: dict[str, Any]) -> None:
    """TRL's sppo_hard leaves out the ½: p_w = 1, p_l = 0 in the formula is half of it, pair by pair."""
    sides = {side: numbers(*case[f"policy_{side}_logps"]) for side in ("chosen", "rejected")}
    references = {f"{side}_reference": numbers(*case[f"reference_{side}_logps"]) for side in ("chosen", "rejected")}
    hard = case["trl_sppo_hard"]
    losses = 2 * sppo(batch(**sides, **references, p_w=1.0, p_l=0.0), Coefficients(beta=hard["beta"]))
    assert losses.tolist() == pytest.approx(hard["losses"], rel=1e-9, abs=1e-6)
    assert losses.mean().item() == pytest.approx(hard["mean"], rel=1e-9)


def test_the_mean_of_a_response_is_over_its_own_tokens() -> None:
    """As in the paper's code: labels that are left out count neither way."""
    counts = [sum(label != -100 for label in labels[1:]) for labels in LOGPS["labels"]]
    logits = torch.tensor(LOGPS["logits"], dtype=torch.float64).log_softmax(-1)
    sums = [
        sum(row[place - 1, label].item() for place, label in enumerate(labels) if place and label != -100)
        for row, labels in zip(logits, LOGPS["labels"], strict=True)
    ]
    assert sums == pytest.approx(LOGPS["sum"], abs=1e-6)
    record = batch(chosen=numbers(*sums), chosen_tokens=numbers(*counts))
    assert record.mean_w.tolist() == pytest.approx(LOGPS["mean"], abs=1e-6)


def under(table: list[list[float]], sequences: list[list[int]], labels: list[list[int]]) -> torch.Tensor:
    """Sum of the labels' log-probabilities under a bigram table, of all sequences together, [1]."""
    logits = torch.tensor(table, dtype=torch.float64).log_softmax(-1)
    pairs = [
        logits[ids[place - 1], ids[place]]
        for ids, own in zip(sequences, labels, strict=True)
        for place in range(1, len(ids))
        if own[place] != -100
    ]
    return torch.stack(pairs).sum()[None]


@pytest.mark.parametrize("case", LONGPO, ids=lambda case: case["seed"])
def test_longpo_equals_the_papers_code_without_its_padding(case: dict[str, Any]) -> None:
    """NLL of the whole chosen sequence + λ · preference, with references turn by turn, to a millionth."""
    data, policy, reference = case["batch"], case["policy_table"], case["reference_table"]
    sides = {side: under(policy, data[f"{side}_input_ids"], data[f"{side}_labels"]) for side in ("chosen", "rejected")}
    turns = {
        f"{side}_reference": under(reference, data[f"ref_{side}_input_ids"][0], data[f"ref_{side}_labels"][0])
        for side in ("chosen", "rejected")
    }
    [ids] = data["chosen_input_ids"]
    ids = ids[: sum(data["chosen_attention_mask"][0])]
    record = batch(**sides, **turns, sequence=under(policy, [ids], [ids]), sequence_tokens=numbers(len(ids) - 1))
    official = case["official"]
    assert sides["chosen"].item() == pytest.approx(official["policy_chosen_logps"], abs=1e-5)
    assert turns["rejected_reference"].item() == pytest.approx(official["reference_rejected_logps"], abs=1e-5)
    coefficients = Coefficients(beta=case["beta"])
    assert nll(record, coefficients).item() == pytest.approx(case["ours_nll_without_padding"], abs=1e-6)
    assert weighted(record, coefficients, {"sigmoid": 1.0}).item() == pytest.approx(
        official["preference_loss"], abs=1e-6
    )
    weights = {"nll": 1.0, "sigmoid": case["dpo_lambda"]}
    loss = weighted(record, coefficients, weights)
    assert loss.item() == pytest.approx(case["ours_loss_without_padding"], abs=1e-6)


def test_cross_entropy_is_the_mean_over_the_tokens_of_the_batch() -> None:
    """A long response weighs more than a short one, as in TRL."""
    record = batch(chosen=numbers(-6, -2), chosen_tokens=numbers(3, 1))
    assert sft(record, Coefficients(beta=1)).item() == pytest.approx(2)


def test_orpo_adds_the_odds_ratio_of_mean_probabilities() -> None:
    """P_w = ½ has odds 1, P_l = ¼ has odds ⅓: -log ½ - λ log σ(log 3) = log 2 + λ log 4/3."""
    record = batch(chosen=2 * math.log(0.5), chosen_tokens=2.0, rejected=3 * math.log(0.25), rejected_tokens=3.0)
    assert orpo(record, Coefficients(beta=0.1)).item() == pytest.approx(math.log(2) + 0.1 * math.log(4 / 3))


def test_simpo_compares_rewards_per_token_with_a_margin() -> None:
    """β (-1) - β (-2) - γ = 1 for β = 2, γ = 1: the loss is log(1 + 1/e)."""
    record = batch(chosen=-3.0, chosen_tokens=3.0, rejected=-4.0, rejected_tokens=2.0)
    assert simpo(record, Coefficients(beta=2, gamma=1)).item() == pytest.approx(math.log(1 + math.exp(-1)))


def test_a_loss_without_its_inputs_is_an_error() -> None:
    """A batch that lacks what a loss reads is no number made up."""
    with pytest.raises(TypeError, match="reads what the batch does not have"):
        sppo(batch(rejected=0.0, chosen_reference=0.0, rejected_reference=0.0), Coefficients(beta=1))


def test_every_name_has_its_terms() -> None:
    """What `--loss` names is computed by a function of the table or by TRL."""
    assert loss_settings("longpo") == {"loss_type": ["nll", "sigmoid"], "loss_weights": [1.0, 0.01], "beta": 0.1}
    assert loss_settings("dpo") == {"loss_type": ["sigmoid"], "loss_weights": [1.0], "beta": 0.1}
    assert loss_settings("nll:2,dpo:0.5") == {"loss_type": ["nll", "sigmoid"], "loss_weights": [2.0, 0.5], "beta": 0.1}
    assert loss_settings("sft") == {"loss_type": ["sft"], "loss_weights": [1.0]}


def test_each_term_of_a_sum_has_a_beta() -> None:
    """Written beside it, or its paper's; of a sum by name, its terms that read one."""
    assert loss_settings("dpo:beta=0.3+0.1*sft") == {
        "loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, 0.1], "beta": 0.3
    }  # fmt: skip
    assert loss_settings("sppo+2*dpo:beta=1e-1") == {
        "loss_type": ["sppo", "sigmoid"], "loss_weights": [1.0, 2.0], "beta": 1e-3, "loss_betas": {"sigmoid": 0.1}
    }  # fmt: skip
    assert loss_settings("longpo:beta=0.2")["beta"] == 0.2
    assert loss_settings("simpo:gamma=0.5")["gamma"] == 0.5
    assert loss_settings("1e+1*hinge+sft")["loss_weights"] == [10.0, 1.0]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("sft:beta=0.1", "'sft' reads no beta"),
        ("dpo:beta=0.1+dpo:beta=0.2", "comes twice with different betas"),
        ("dpo:gamma=1", "simpo alone reads gamma"),
        ("dpo:alpha=1", "--loss wants NAME"),
        ("dpo:beta=much", "--loss wants NAME"),
        ("2*dpo:3", "--loss wants NAME"),
        ("nan*dpo", "--loss wants NAME"),
        ("dpo+", "no loss ''"),
    ],
)
def test_a_sum_that_means_nothing_is_refused(text: str, words: str) -> None:
    """In one line, before anything is paid."""
    with pytest.raises(UsageError, match=re.escape(words)):
        loss_settings(text)


def test_the_betas_of_a_sum_are_those_of_its_terms() -> None:
    """½(0 - ½/0.1)² + ½(0 + ½/0.1)² = 25 for hard labels at 0.1; log 2 for an even pair whatever DPO's beta."""
    row = batch(rejected=0.0, chosen_reference=0.0, rejected_reference=0.0, p_w=1.0, p_l=0.0)
    coefficients = Coefficients(beta=7.0, betas={"sppo": 0.1})
    assert weighted(row, coefficients, {"sppo": 1.0}).item() == pytest.approx(25)
    assert weighted(row, coefficients, {"sppo": 1.0, "sigmoid": 2.0}).item() == pytest.approx(25 + 2 * math.log(2))
