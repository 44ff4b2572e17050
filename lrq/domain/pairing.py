"""From rewards to a row of preference."""

from collections.abc import Collection, Mapping, Sequence

from lrq.domain.records import NoRow, Pair, Reward

DECIMALS = 9  # rewards that differ further behind the point are equal: that is rounding of a mean


def best_against_worst(
    rewards: Sequence[Reward],
    texts: Mapping[int, str],
    *,
    min_scored: int = 5,
    min_margin: float = 0.0,
    unfit: Collection[int] = (),
) -> Pair | NoRow:
    """Pair the highest reward with the lowest, for the responses of one prompt (LongReward, arXiv 2410.21252).

    `texts` maps each response's k to its text. Repeats count towards `min_scored`. The lowest k wins among equals.
    The best stands; if the worst repeats its text (a judge that scored one text twice may differ), the worst of the
    other texts is taken, since a pair of equal texts teaches nothing. `unfit` are the k that may be rejected and never
    chosen: responses that were cut off.
    """
    values = {reward.k: round(reward.value, DECIMALS) for reward in rewards if reward.value is not None}
    if len(values) < max(min_scored, 1):
        return NoRow(reason=f"{len(values)} of {len(rewards)} responses scored, {max(min_scored, 1)} needed")
    fit = [k for k in values if k not in unfit]
    if not fit:
        return NoRow(reason=f"all {len(values)} scored responses were cut by max_new_tokens")
    best = max(fit, key=lambda k: (values[k], -k))
    others = [k for k in values if texts[k] != texts[best]]
    if not others:
        return NoRow(reason="all scored responses have the same text")
    worst = min(others, key=lambda k: (values[k], k))
    margin = round(values[best] - values[worst], DECIMALS)
    if margin <= 0:
        equal = f"best and worst have the same reward, {values[best]:.6g}"
        return NoRow(reason=equal if margin == 0 else "only responses that were cut by max_new_tokens are better")
    if margin < min_margin:
        return NoRow(reason=f"margin {margin:.6g} is under {min_margin:.6g}")
    return Pair(chosen=best, rejected=worst, prompt=rewards[0].prompt, margin=margin)
