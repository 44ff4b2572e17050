"""The forms in which rows and scores leave lrq: one record in, one JSON object out."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lrq.domain.records import Item, Message, Response, Reward, Score

_SHAREGPT = {"user": "human", "assistant": "gpt"}


def trl_row(
    prompt: Sequence[Mapping[str, Any]],
    chosen: Sequence[Mapping[str, Any]],
    rejected: Sequence[Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """Return a row of TRL of messages {"role", "content"}: a pair, or a demonstration where `rejected` is None."""
    if rejected is None:
        return {"prompt": list(prompt), "completion": list(chosen)}
    return {"prompt": list(prompt), "chosen": list(chosen), "rejected": list(rejected)}


def longreward_pair(item: Item, chosen: str, rejected: str) -> dict[str, Any]:
    """Return a row of LongReward's published preference data."""
    return {
        "idx": item.id,
        "context": item.context,
        "query": item.question,
        "win_response": chosen,
        "lose_response": rejected,
    }


def llama_factory_pair(prompt: Sequence[Message], chosen: str, rejected: str) -> dict[str, Any]:
    """Return a preference row of LLaMA-Factory in its sharegpt form; `llama_factory_entry` describes the file."""
    has_system = bool(prompt) and prompt[0]["role"] == "system"
    return {
        "system": prompt[0]["content"] if has_system else "",
        "conversations": [_sharegpt(message["role"], message["content"]) for message in prompt[has_system:]],
        "chosen": _sharegpt("assistant", chosen),
        "rejected": _sharegpt("assistant", rejected),
    }


def llama_factory_entry(file_name: str) -> dict[str, Any]:
    """Return the entry of dataset_info.json that describes the file `file_name` of such rows."""
    columns = {name: name for name in ("system", "chosen", "rejected")}
    return {
        "file_name": file_name,
        "formatting": "sharegpt",
        "ranking": True,
        "columns": {"messages": "conversations", **columns},
    }


def pair_scores(
    item: Item,
    margin: float | None,
    rewards: Mapping[str, Reward | None],
    scores: Mapping[str, Sequence[Score]],
) -> dict[str, Any]:
    """Return what a pair was made of beside what other tools read: `id`, `reward`, `margin` and scores.

    `rewards` and `scores` are those of each side, by "chosen" and "rejected"; the result has them by side too.
    """
    return {
        "id": item.id,
        "reward": {side: reward.value if reward else None for side, reward in rewards.items()},
        "margin": margin,
        "scores": {side: {score.dimension: score.value for score in values} for side, values in scores.items()},
    }


def score_row(item: str, response: Response, scores: Iterable[Score], reward: Reward | None) -> dict[str, Any]:
    """Return all scores of one response of the item with the id `item`.

    What is no value is null, with its reason under the same name in `reasons`. The reward keeps the recipe's scale; a
    reason of its own ("the mean of three") stands under `reward`. Round and prompt are named where they are not 0.
    """
    scores = list(scores)
    reasons = {score.dimension: score.reason or score.state for score in scores if score.state != "value"}
    if reward is None or reward.reason or reward.value is None:
        missing = f"without {', '.join(reasons)}" if reasons else "not scored yet"
        reasons["reward"] = (reward.reason if reward else "") or missing
    return {
        "id": item,
        **{name: number for name, number in (("round", response.round), ("prompt", response.prompt)) if number},
        "response": response.k,
        "answer": response.text,
        "scores": {score.dimension: score.value if score.state == "value" else None for score in scores},
        "reward": reward.value if reward else None,
        "reasons": reasons,
    }


def _sharegpt(role: str, text: str) -> dict[str, str]:
    return {"from": _SHAREGPT[role], "value": text}
