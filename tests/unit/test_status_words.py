"""What `lrq status` says beside its tables."""

import pytest

from lrq.cli.status import in_doubt


@pytest.mark.parametrize(
    ("count", "cost", "said"),
    [
        (0, 0.0, []),
        (7, 0.0792, ["7 deliveries of unknown outcome stay charged at their most, 0.0792 of the money"]),
        (1200, 0.0, ["1,200 deliveries of unknown outcome stay charged at their most"]),  # unpriced
    ],
)
def test_what_is_charged_without_a_reply_is_told(count: int, cost: float, said: list[str]) -> None:
    """Else the money of a run would be more than its calls cost, and nobody could say why."""
    assert in_doubt({"calls": {"unknown": count}, "money": {"unknown_outcome": cost}}) == said
