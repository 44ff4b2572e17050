"""The losses as the papers write them: each is a function of one record of log-probabilities.

Other names than those in LOSSES are TRL's own.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid


@dataclass(frozen=True, kw_only=True)
class LogProbs:
    """Log-probabilities of a batch of B rows, in nats; each field has shape [B].

    w is the chosen response and l the rejected one, x the prompt; of a row with several turns, a response is all its
    answers and x all that stands between them. Fields that a loss does not read may be left out.
    """

    chosen: Tensor  # log π(y_w|x), the sum over its tokens
    chosen_tokens: Tensor  # |y_w|
    rejected: Tensor | None = None  # log π(y_l|x)
    rejected_tokens: Tensor | None = None  # |y_l|
    chosen_reference: Tensor | None = None  # log π_ref(y_w|x)
    rejected_reference: Tensor | None = None  # log π_ref(y_l|x)
    sequence: Tensor | None = None  # log π(x, y_w), without the first token
    sequence_tokens: Tensor | None = None  # |x| + |y_w| - 1
    p_w: Tensor | None = None  # win rates against the reference, in [0, 1]
    p_l: Tensor | None = None

    @property
    def delta_w(self) -> Tensor:
        """log π(y_w|x) - log π_ref(y_w|x)"""
        return self.chosen - _given(self.chosen_reference)

    @property
    def delta_l(self) -> Tensor:
        """log π(y_l|x) - log π_ref(y_l|x)"""
        return _given(self.rejected) - _given(self.rejected_reference)

    @property
    def mean_w(self) -> Tensor:
        """log π(y_w|x) / |y_w|"""
        return self.chosen / self.chosen_tokens

    @property
    def mean_l(self) -> Tensor:
        """log π(y_l|x) / |y_l|"""
        return _given(self.rejected) / _given(self.rejected_tokens)


@dataclass(frozen=True, kw_only=True)
class Coefficients:
    """The numbers in the formulas."""

    beta: float
    gamma: float = 1.0
    betas: Mapping[str, float] = field(default_factory=dict)  # of single losses, where it is not `beta`

    def of(self, name: str) -> "Coefficients":
        """Return the coefficients of the loss `name`: with its own beta, where it has one."""
        return replace(self, beta=self.betas.get(name, self.beta))


Loss = Callable[[LogProbs, Coefficients], Tensor]


def dpo(p: LogProbs, c: Coefficients) -> Tensor:
    """Direct Preference Optimization (arXiv 2305.18290, equation 7), one figure for each row, [B].

    -log σ(β Δ_w - β Δ_l). With the references of LongPO (arXiv 2502.13922), its preference term.
    """
    return -logsigmoid(c.beta * p.delta_w - c.beta * p.delta_l)


def sft(p: LogProbs, _: Coefficients) -> Tensor:
    """Cross-entropy of the chosen response: the mean over all its tokens in the batch (arXiv 2410.21252, section 3.3).

    -Σ log π(y_w|x) / Σ |y_w|.
    """
    return -p.chosen.sum() / p.chosen_tokens.sum()


def nll(p: LogProbs, _: Coefficients) -> Tensor:
    """Cross-entropy of the whole chosen sequence, prompt included and padding not (arXiv 2502.13922, equation 7).

    -Σ log π(x, y_w) / Σ (|x| + |y_w| - 1).
    """
    return -_given(p.sequence).sum() / _given(p.sequence_tokens).sum()


def sppo(p: LogProbs, c: Coefficients) -> Tensor:
    """Self-Play Preference Optimization (arXiv 2405.00675, equation 4.7), one figure for each row, [B].

    ½ (Δ_w - (p_w - ½)/β)² + ½ (Δ_l - (p_l - ½)/β)², with β = 1/η.
    """
    return ((p.delta_w - (_given(p.p_w) - 0.5) / c.beta) ** 2 + (p.delta_l - (_given(p.p_l) - 0.5) / c.beta) ** 2) / 2


def orpo(p: LogProbs, c: Coefficients) -> Tensor:
    """Odds Ratio Preference Optimization (arXiv 2403.07691, equations 6 and 7), one figure for each row, [B].

    L_SFT - λ log σ(log odds_w - log odds_l), with λ = β and odds = P / (1 - P) of P = π(y|x)^(1/|y|).
    """
    return sft(p, c) - c.beta * logsigmoid(_log_odds(p.mean_w) - _log_odds(p.mean_l))


def simpo(p: LogProbs, c: Coefficients) -> Tensor:
    """Simple Preference Optimization (arXiv 2405.14734, equation 6), one figure for each row, [B].

    -log σ(β/|y_w| log π(y_w|x) - β/|y_l| log π(y_l|x) - γ).
    """
    return -logsigmoid(c.beta * p.mean_w - c.beta * p.mean_l - c.gamma)


LOSSES: Mapping[str, Loss] = {"sigmoid": dpo, "sft": sft, "nll": nll, "sppo": sppo, "orpo": orpo, "simpo": simpo}


def weighted(p: LogProbs, c: Coefficients, weights: Mapping[str, float]) -> Tensor:
    """Return the batch's loss, a scalar: the mean over its rows of each loss in `weights`, times its weight, summed."""
    return torch.stack([weight * LOSSES[name](p, c.of(name)).mean() for name, weight in weights.items()]).sum()


def sppo_share(loss: Tensor, beta: float) -> Tensor:
    """Return SPPO's loss in units of (½/β)²: 1 is hard labels before the first step, 0 is fitted."""
    return loss / (0.5 / beta) ** 2


def _log_odds(mean: Tensor) -> Tensor:
    """log P - log(1 - P) of log P."""
    return mean - torch.log(-torch.expm1(mean.clamp(max=-1e-6)))


def _given(field: Tensor | None) -> Tensor:
    if field is None:
        raise TypeError("the loss reads what the batch does not have")
    return field
