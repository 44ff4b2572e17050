"""SPPO (arXiv 2405.00675): K responses compared pairwise, win rates as rewards, squared loss, round after round.

The judge or a preference model compares each pair in both orders. The raw comparisons are kept with each score.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lrq.domain.pairing import DECIMALS
from lrq.domain.records import Dimension, NoRow, Response, Reward, Row, Score, Turn
from lrq.domain.win_rates import Matrix, collapsed_matrix, cycles, win_rates
from lrq.recipes import pairwise
from lrq.recipes.fanout import gather_all
from lrq.recipes.judge import Judge
from lrq.recipes.pairwise import Tournament, compare
from lrq.recipes.ports import Case
from lrq.recipes.recipe import Recipe, Step

SETTINGS: Mapping[str, Any] = {
    "responses": 5,
    "min_scored": 2,
    "min_margin": 0.0,
    "win_rates": "paper",
    "opponents": "all",
    **pairwise.SETTINGS,
}
DESCRIBED: Mapping[str, str] = {
    "responses": "Responses to each prompt, K in the paper",
    "min_scored": "Responses with a win rate that a row needs",
    "min_margin": "Win rate of chosen minus that of rejected that a row needs",
    "win_rates": "Of a preference model's logits: paper, or released for what the authors' code makes of them, where a "
    "logit counts twice and other responses count too",
    "opponents": "Whom p_w and p_l are win rates against: all K responses (paper), or pair, the chosen and the "
    "rejected one alone (sppo_single of the authors' code)",
    **pairwise.DESCRIBED,
}
CHOICES: Mapping[str, tuple[str, ...]] = {"win_rates": ("paper", "released"), "opponents": ("all", "pair")}
LOSS: Mapping[str, Any] = {  # section 5: beta is 1/eta, and each third of the items has a round of its own
    "rounds": 3,
    "round_items": "split",
    "loss_type": ["sppo"],
    "loss_weights": [1.0],
    "beta": 1e-3,
    "learning_rate": 5e-7,
    "scheduler": "linear",
    "optim": "rmsprop",
    "batch_size": 64,
}
_WIN_RATE = Dimension(name="win_rate", low=0.0, high=1.0)


async def score_pairwise(judge: Judge) -> Sequence[Score]:
    """Score each response by its mean probability of beating one of its prompt's K responses."""
    prompts = sorted({response.prompt for response in judge.case.responses})
    scored = await gather_all(_score_prompt(judge, judge.case.answers(prompt)) for prompt in prompts)
    return [score for scores in scored for score in scores]


async def _score_prompt(judge: Judge, responses: Sequence[Response]) -> list[Score]:
    if judge.case.settings.get("win_rates") == "released" and judge.prefer is None:
        reason = "win_rates: released is made of a preference model's logits, which a judge that writes does not give"
        return [_score(response, state="unscored", reason=reason) for response in responses]
    texts = list(dict.fromkeys(response.text for response in responses))
    tournament = await compare(judge, judge.case.item.question, texts)
    if tournament.reason:
        fields = {"state": "unscored", "reason": tournament.reason, "evidence": tournament.evidence}
        return [_score(response, **fields) for response in responses]
    matrix = response_matrix(tournament, [texts.index(response.text) for response in responses], judge.case.settings)
    evidence = {**tournament.evidence, "matrix": matrix, "responses": [response.k for response in responses]}
    rates = zip(responses, win_rates(matrix), strict=True)
    return [_score(response, value=rate, evidence=evidence) for response, rate in rates]


def response_matrix(tournament: Tournament, places: Sequence[int], settings: Mapping[str, Any]) -> list[list[float]]:
    """Return the K × K probabilities of all responses, of which equal texts tie.

    Args:
        places: for each response the place of its text among those that were compared.
    """
    if settings.get("win_rates") == "released":
        return collapsed_matrix(_spread(tournament.logits, places, tie=0.0))
    return _spread(tournament.matrix, places, tie=0.5)


def _spread(matrix: Matrix, places: Sequence[int], *, tie: float) -> list[list[float]]:
    return [[tie if a == b else matrix[a][b] for b in places] for a in places]


def _score(response: Response, **fields: Any) -> Score:
    return Score(dimension=_WIN_RATE.name, k=response.k, prompt=response.prompt, **fields)


def rows(case: Case, rewards: Sequence[Reward]) -> list[Row | NoRow]:
    """Pair the response that wins most with the one that wins least, for each prompt; both win rates go along.

    Where all tie, or the first does not beat the last head to head, preference has no direction to train on.
    """
    prompts = sorted({reward.prompt for reward in rewards})
    return [_row(case, [reward for reward in rewards if reward.prompt == prompt]) for prompt in prompts]


def _row(case: Case, rewards: Sequence[Reward]) -> Row | NoRow:
    settings, prompt = case.settings, rewards[0].prompt
    rates = {reward.k: round(reward.value, DECIMALS) for reward in rewards if reward.value is not None}
    if len(rates) < max(2, settings["min_scored"]):
        return NoRow(
            reason=f"{len(rates)} of {len(rewards)} responses have a win rate, {settings['min_scored']} needed"
        )
    cut = {response.k for response in case.answers(prompt) if response.is_cut}
    uncut = [k for k in rates if k not in cut]
    if not uncut:
        return NoRow(reason="all responses with a win rate were cut by max_new_tokens")
    best = max(uncut, key=lambda k: (rates[k], -k))
    worst = min(rates, key=lambda k: (rates[k], k))
    margin = round(rates[best] - rates[worst], DECIMALS)
    matrix = _stored_matrix(case, prompt, best)
    count = len(cycles(list(matrix.values()))) if matrix else 0
    rings = f"; {count} of its triples are cycles" if count else ""
    if margin <= 0:
        return NoRow(reason=f"all responses win equally often{rings}")
    if margin < settings["min_margin"]:
        return NoRow(reason=f"margin {margin:.6g} is under {settings['min_margin']:.6g}")
    beats = round(matrix[best][list(matrix).index(worst)], DECIMALS) if matrix else None
    if beats is not None and beats <= 0.5:
        return NoRow(reason=f"the response that wins most does not beat the one that wins least{rings}")
    turn = Turn(prompt=prompt, chosen=(prompt, best), rejected=(prompt, worst))
    figures = {"p_w": rates[best], "p_l": rates[worst]}
    if beats is not None and settings.get("opponents") == "pair":
        figures = {"p_w": beats, "p_l": round(1 - beats, DECIMALS)}
    return Row(turns=(turn,), margin=margin, figures=figures)


def _stored_matrix(case: Case, prompt: int, k: int) -> dict[int, list[float]]:
    """Return the matrix that a score keeps, its rows by response; empty where the rewards came another way."""
    evidence: Mapping[str, Any] = next((score.evidence for score in case.scores_of((prompt, k))), {})
    return dict(zip(evidence["responses"], evidence["matrix"], strict=True)) if "matrix" in evidence else {}


SPPO = Recipe(
    name="sppo",
    source="arXiv 2405.00675",
    settings=SETTINGS,
    described=DESCRIBED,
    choices=CHOICES,
    texts=Path(__file__).parent / "prompts" / "sppo",
    steps=(
        Step(name="pairwise", procedure=score_pairwise, dimensions=(_WIN_RATE,), kinds=pairwise.KINDS, compares=True),
    ),
    rows=rows,
    loss=LOSS,
)
