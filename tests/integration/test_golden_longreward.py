"""LongReward's rewards and rows on the example dataset are those that were recorded."""

import json
from pathlib import Path

from inline import World

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden" / "longreward.json"


def outcome(lrq: World) -> dict[str, object]:
    """Rewards of every response to 6 decimals, and the pair of every item."""
    lrq.run(ROOT / "examples" / "judge_only.jsonl")
    found: dict[str, dict[str, object]] = {}
    for score in lrq.scores("judge_only"):
        rewards = found.setdefault(score["id"], {"rewards": [], "scores": []})
        rewards["rewards"].append(score["reward"] and round(score["reward"], 6))  # type: ignore[attr-defined]
        rewards["scores"].append({name: value and round(value, 6) for name, value in score["scores"].items()})  # type: ignore[attr-defined]
    for id_, item in found.items():
        rows = lrq("show", id_, "--json").json()["rows"]
        item["rows"] = [[row["chosen"], row["rejected"], round(row["margin"], 6)] for row in rows]
    return found


def test_rewards_and_rows_are_those_recorded(lrq: World):
    assert outcome(lrq) == json.loads(GOLDEN.read_text(encoding="utf-8"))
