"""Losses that TRL lacks, as the papers write them."""

import torch


def sppo_loss(
    chosen: torch.Tensor, rejected: torch.Tensor, p_w: torch.Tensor, p_l: torch.Tensor, beta: float
) -> torch.Tensor:
    """The squared loss of SPPO (arXiv 2405.00675, eq. 4.7) with win rates of any value, one figure per pair.

    `chosen` and `rejected` are Δ, the summed log-probability under the policy minus the same under the reference, in
    nats; `p_w` and `p_l` in [0, 1] are the win rates against the reference; β = 1/η. All have shape [B].
    """
    return ((chosen - (p_w - 0.5) / beta) ** 2 + (rejected - (p_l - 0.5) / beta) ** 2) / 2
