"""The forms in which rows and scores leave."""

from lrq.domain.exports import (
    llama_factory_entry,
    llama_factory_pair,
    longreward_pair,
    score_row,
    trl_row,
)
from lrq.domain.records import Item, Response, Reward, Score

PROMPT = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Text.\n\nWhy?"}]
GOOD, BAD = ([{"role": "assistant", "content": text}] for text in ("good", "bad"))
FOUR = ("helpfulness", "logicality", "faithfulness", "completeness")


def test_a_trl_pair_is_conversational_with_an_explicit_prompt():
    """Prompt and both answers are lists of messages."""
    row = trl_row(PROMPT, GOOD, BAD)
    assert row == {"prompt": PROMPT, "chosen": GOOD, "rejected": BAD}


def test_a_trl_demonstration_is_a_prompt_with_its_completion():
    """Rows that show one good answer use TRL's other form."""
    assert trl_row(PROMPT, GOOD) == {"prompt": PROMPT, "completion": GOOD}


def test_a_longreward_pair_has_the_published_columns():
    """The same five names, in the same order."""
    row = longreward_pair(Item(id="11", context="Text.", question="Why?"), "good", "bad")
    assert list(row) == ["idx", "context", "query", "win_response", "lose_response"]
    assert list(row.values()) == ["11", "Text.", "Why?", "good", "bad"]


def test_a_llama_factory_pair_moves_the_system_message_into_its_column():
    """Roles are called human and gpt there."""
    assert llama_factory_pair(PROMPT, "good", "bad") == {
        "system": "Be brief.",
        "conversations": [{"from": "human", "value": "Text.\n\nWhy?"}],
        "chosen": {"from": "gpt", "value": "good"},
        "rejected": {"from": "gpt", "value": "bad"},
    }
    assert llama_factory_pair(PROMPT[1:], "good", "bad")["system"] == ""


def test_the_llama_factory_entry_names_the_columns_of_the_rows():
    """Whoever copies the entry need not know the format."""
    entry = llama_factory_entry("pairs.jsonl")
    assert set(entry["columns"].values()) == set(llama_factory_pair(PROMPT, "good", "bad"))
    assert (entry["formatting"], entry["ranking"], entry["file_name"]) == ("sharegpt", True, "pairs.jsonl")


def test_a_score_row_holds_all_scores_of_a_response():
    """Values on their scale, the reward on the recipe's: (7 + 8 + 7.5 + 8) / 4 = 7.625."""
    scores = [Score(dimension=name, k=3, value=value) for name, value in zip(FOUR, (7.0, 8.0, 7.5, 8.0), strict=True)]
    assert score_row("11", Response(text="So.", k=3), scores, Reward(k=3, value=7.625)) == {
        "id": "11",
        "response": 3,
        "answer": "So.",
        "scores": {"helpfulness": 7.0, "logicality": 8.0, "faithfulness": 7.5, "completeness": 8.0},
        "reward": 7.625,
        "reasons": {},
    }


def test_a_score_that_is_no_value_is_null_with_its_reason():
    """Zero is a value; what could not be had is not zero."""
    scores = [
        Score(dimension="helpfulness", k=0, value=0.0),
        Score(dimension="logicality", k=0, state="unscored", reason="no readable reply in 5 tries"),
        Score(dimension="faithfulness", k=0, state="not_applicable", reason="states no fact"),
    ]
    row = score_row("a", Response(text="", k=0), scores, Reward(k=0, value=None))
    assert row["scores"] == {"helpfulness": 0.0, "logicality": None, "faithfulness": None}
    assert row["reward"] is None
    assert row["reasons"] == {
        "logicality": "no readable reply in 5 tries",
        "faithfulness": "states no fact",
        "reward": "without logicality, faithfulness",
    }


def test_a_reward_may_say_how_it_was_made():
    """A mean of three of four says so beside its value."""
    scores = [Score(dimension="faithfulness", k=0, state="not_applicable", reason="states no fact")]
    row = score_row("a", Response(text="No.", k=0), scores, Reward(k=0, value=6.0, reason="mean of the other three"))
    assert row["reward"] == 6.0
    assert row["reasons"] == {"faithfulness": "states no fact", "reward": "mean of the other three"}


def test_every_null_has_a_reason():
    """Also where nobody recorded one."""
    row = score_row("a", Response(text="No.", k=0), [Score(dimension="logicality", k=0, state="unscored")], None)
    assert row["reasons"] == {"logicality": "unscored", "reward": "without logicality"}
    assert score_row("a", Response(text="No.", k=0), [], None)["reasons"] == {"reward": "not scored yet"}


def test_round_and_prompt_are_named_only_beyond_the_first():
    """One-round runs keep the plain form; others stay unambiguous."""
    row = score_row("a", Response(text="x", k=1, prompt=2, round=1), [], Reward(k=1, value=1.0))
    assert (row["round"], row["prompt"], row["response"]) == (1, 2, 1)
