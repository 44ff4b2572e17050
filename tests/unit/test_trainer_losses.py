"""Losses that TRL lacks, against figures worked by hand."""

import pytest

pytest.importorskip("torch")

import torch

from lrq.trainer.losses import sppo_loss

pytestmark = pytest.mark.torch


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
    parts = (torch.tensor([value], dtype=torch.float64) for value in (*ratios, *rates))
    assert sppo_loss(*parts, beta=beta).item() == pytest.approx(loss, abs=1e-9)
