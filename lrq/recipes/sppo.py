"""SPPO (arXiv 2405.00675): K responses compared pairwise, win rates as rewards, squared loss, round after round.

The judge compares each pair in both orders, so that a liking for a place cancels out. The raw comparisons are kept with
each score.
"""

from collections.abc import Mapping, Sequence
from itertools import permutations
from pathlib import Path
from typing import Any

from lrq.domain.errors import Unreadable, Unscored
from lrq.domain.fences import fenced
from lrq.domain.pairing import DECIMALS
from lrq.domain.records import Dimension, NoRow, Response, Reward, Row, Score, Turn
from lrq.domain.win_rates import cycles, preference_matrix, win_rates
from lrq.recipes.fanout import settled
from lrq.recipes.judge import Judge, Kind
from lrq.recipes.ports import Case
from lrq.recipes.recipe import Recipe, Step

SETTINGS: Mapping[str, Any] = {
    "responses": 5,
    "min_scored": 2,
    "min_margin": 0.0,
    "passages": 3,
    "passage_chunk_tokens": 128,
}
DESCRIBED: Mapping[str, str] = {
    "responses": "Responses to each prompt, K in the paper",
    "min_scored": "Responses with a win rate that a row needs",
    "min_margin": "Win rate of chosen minus that of rejected that a row needs",
    "passages": "Passages of the document nearest to each answer that the judge is shown; 0: none",
    "passage_chunk_tokens": "Length in tokens of these passages",
}
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
VALUES = {"A": 1.0, "B": 0.0, "C": 0.5}  # of the first answer
_WIN_RATE = Dimension(name="win_rate", low=0.0, high=1.0)

Pair = tuple[int, int]  # places of two responses among those of the prompt, in the order they were shown


def read_preference(reply: str) -> float:
    """Return 1, 0 or ½ for a last mark of [[A]], [[B]] or [[C]]. Raises Unreadable."""
    start = reply.rfind("[[")
    mark, closed, _ = reply[start + 2 :].partition("]]") if start >= 0 else ("", "", "")
    letter = mark.strip(" *_.").upper().removeprefix("ANSWER ").removeprefix("回答")
    if not closed or letter not in VALUES:
        raise Unreadable("the last mark is none of [[A]], [[B]] and [[C]]")
    return VALUES[letter]


async def pairwise(judge: Judge) -> Sequence[Score]:
    """Score each response by its mean probability of beating one of its prompt's K responses."""
    prompts = sorted({response.prompt for response in judge.case.responses})
    scored = await settled(_tournament(judge, judge.case.answers(prompt)) for prompt in prompts)
    return [score for scores in scored for score in scores]


async def _tournament(judge: Judge, responses: Sequence[Response]) -> list[Score]:
    texts = list(dict.fromkeys(response.text for response in responses))
    orders = list(permutations(range(len(texts)), 2))
    asked = dict(zip(orders, await settled(_compare(judge, texts, order) for order in orders), strict=True))
    failed = [(order, outcome["reason"]) for order, outcome in asked.items() if "reason" in outcome]
    evidence = judge.evidence(texts=len(texts), comparisons=list(asked.values()))
    if failed:
        (first, second), why = failed[0]
        reason = f"comparison of {first} with {second}: {why}" + (f", and {len(failed) - 1} more" if failed[1:] else "")
        return [_score(response, state="unscored", reason=reason, evidence=evidence) for response in responses]
    places = [texts.index(response.text) for response in responses]
    values = {order: outcome["value"] for order, outcome in asked.items()}
    # Equal texts tie; every other pair of responses is compared as its texts are.
    whole = {
        (i, j): 0.5 if a == b else values[a, b] for i, a in enumerate(places) for j, b in enumerate(places) if i != j
    }
    matrix = preference_matrix(whole, len(responses))
    evidence |= {"matrix": matrix, "responses": [response.k for response in responses]}
    rates = zip(responses, win_rates(matrix), strict=True)
    return [_score(response, value=rate, evidence=evidence) for response, rate in rates]


def _score(response: Response, **fields: Any) -> Score:
    return Score(dimension=_WIN_RATE.name, k=response.k, prompt=response.prompt, **fields)


async def _compare(judge: Judge, texts: Sequence[str], order: Pair) -> dict[str, Any]:
    """Ask which of two answers is better; a record of what came of it."""
    first, second = (texts[place] for place in order)
    try:
        sections = {
            "question": judge.question,
            "first": fenced(first),
            "second": fenced(second),
            "passages": await _passages(judge, first, second),
        }
        answer = await judge.answer("pairwise", read_preference, sections)
    except Unscored as why:
        return {"order": list(order), "reason": str(why), "calls": []}
    return {"order": list(order), "value": answer.value, "calls": list(answer.calls)}


async def _passages(judge: Judge, *texts: str) -> str:
    """The document's passages nearest to the answers, each once in its order; nothing where there is no document."""
    settings = judge.case.settings
    if not (judge.case.item.context and settings["passages"]):
        return ""
    queries = sorted(texts)  # the same passages in either order
    near = await judge.nearest(queries, count=settings["passages"], chunk_tokens=settings["passage_chunk_tokens"])
    passages = {passage.index: passage for found in near for passage in found}
    return judge.passages(passages[index] for index in sorted(passages)) + "\n\n"


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
    whole = [k for k in rates if k not in cut]
    if not whole:
        return NoRow(reason="all responses with a win rate were cut by max_new_tokens")
    best = max(whole, key=lambda k: (rates[k], -k))
    worst = min(rates, key=lambda k: (rates[k], k))
    margin = round(rates[best] - rates[worst], DECIMALS)
    rings = _rings(case, prompt, best)
    if margin <= 0:
        return NoRow(reason=f"all responses win equally often{rings}")
    if margin < settings["min_margin"]:
        return NoRow(reason=f"margin {margin:.6g} is under {settings['min_margin']:.6g}")
    if _beats(case, prompt, best, worst) <= 0.5:
        return NoRow(reason=f"the response that wins most does not beat the one that wins least{rings}")
    turn = Turn(prompt=prompt, chosen=(prompt, best), rejected=(prompt, worst))
    return Row(turns=(turn,), margin=margin, figures={"p_w": rates[best], "p_l": rates[worst]})


def _tournament_of(case: Case, prompt: int, k: int) -> tuple[list[list[float]], list[int]] | None:
    """The matrix kept with a score, and whose rows it has; None where the rewards came another way."""
    evidence: Mapping[str, Any] = next((score.evidence for score in case.scores_of((prompt, k))), {})
    return (evidence["matrix"], evidence["responses"]) if "matrix" in evidence else None


def _beats(case: Case, prompt: int, best: int, worst: int) -> float:
    kept = _tournament_of(case, prompt, best)
    return 1.0 if kept is None else round(kept[0][kept[1].index(best)][kept[1].index(worst)], DECIMALS)


def _rings(case: Case, prompt: int, k: int) -> str:
    kept = _tournament_of(case, prompt, k)
    count = len(cycles(kept[0])) if kept else 0
    return f"; {count} of its triples are cycles" if count else ""


_STEP = Step(name="pairwise", procedure=pairwise, dimensions=(_WIN_RATE,), kinds=(Kind(name="pairwise", typical=90),))
SPPO = Recipe(
    name="sppo",
    source="arXiv 2405.00675",
    settings=SETTINGS,
    described=DESCRIBED,
    texts=Path(__file__).parent / "prompts" / "sppo",
    steps=(
        Step(name="pairwise", procedure=pairwise, dimensions=(_WIN_RATE,), kinds=(Kind(name="pairwise", typical=90),)),
    ),
    rows=rows,
    loss=LOSS,
)
