"""A run's rows as the trainer reads them: several turns, references, and what rows must carry for a loss."""

import json
from typing import Any

import pytest

from lrq.config import Settings
from lrq.domain.errors import UsageError
from lrq.domain.records import Item
from lrq.domain.win_rates import rates_by_reward
from lrq.ledger.items import DrawnResponse
from lrq.run_config import snapshot_config
from lrq.trainer.rows import PreferenceRow, read_row
from lrq.workers.drawn import DrawnPair, Tokens
from lrq.workers.rows import TrainingRow, TrainingTurn, trl_row


class Renderer:
    """Knows each prompt by the length of its text."""

    def tokens(self, pair: DrawnPair, messages: Any) -> Tokens | None:
        return Tokens(prompt=[len(messages[-1]["content"])], tokenizer="t")


def drawn(text: str, token: int) -> DrawnResponse:
    return DrawnResponse(text=text, ids=(token, 0), written=text, form="content", is_cut=False)


def turn(number: int, *, known: bool = True) -> TrainingTurn:
    pair = DrawnPair(
        chosen=drawn(f"short {number}", 10 + number) if known else DrawnResponse(
            text="short", ids=(), written="short", form="", is_cut=False
        ),
        rejected=drawn(f"long {number}", 20 + number),
        rendering={"template": {}},
    )  # fmt: skip
    return TrainingTurn(
        messages=[{"role": "user", "content": f"document, question {number}"}],
        drawn=pair,
        is_cut=False,
        reference=[{"role": "user", "content": f"chunk, question {number}"}],
        reference_drawn=pair,
        followup=f"question {number}",
    )


def read(row: TrainingRow) -> PreferenceRow:
    found = read_row(json.dumps(trl_row(row, Renderer())).encode(), 1)
    assert isinstance(found, PreferenceRow), found
    return found


def test_a_conversation_holds_its_long_prompt_once() -> None:
    """Later turns bring their question alone; each turn's reference is its short prompt; tokens are those drawn."""
    row = read(TrainingRow(round=0, item=Item(id="1"), turns=[turn(0), turn(1)], margin=None))
    assert [part.prompt[0]["content"] for part in (row, *row.later)] == ["document, question 0", "question 1"]
    assert [part.prompt[0]["content"] for part in row.reference] == ["chunk, question 0", "chunk, question 1"]
    assert [part.ids and (part.ids.prompt, part.ids.chosen, part.ids.rejected) for part in (row, *row.later)] == [
        ([20], [10, 0], [20, 0]), ([], [11, 0], [21, 0])
    ]  # fmt: skip
    assert [part.ids and part.ids.prompt for part in row.reference] == [[17], [17]]


def test_one_answer_without_tokens_leaves_a_conversation_to_its_texts() -> None:
    """Tokens go along only where all of them are known."""
    row = read(TrainingRow(round=0, item=Item(id="1"), turns=[turn(0), turn(1, known=False)], margin=None))
    assert [part.ids for part in (row, *row.later, *row.reference)] == [None] * 4


def test_rewards_make_win_rates() -> None:
    """The best of four beats three and ties with itself; equal rewards share."""
    assert rates_by_reward({"a": 9.0, "b": 5.0, "c": 5.0, "d": 1.0}) == {"a": 0.875, "b": 0.5, "c": 0.5, "d": 0.125}


@pytest.mark.parametrize(
    ("recipe", "own", "loss", "lacking"),
    [
        ("janus", {}, ["sppo"], "'p_w'"),
        ("janus", {"pair_by": "rubric"}, ["sppo"], None),
        ("janus", {}, ["orpo"], None),
        ("rubric", {}, ["sigmoid"], "'rejected'"),
        ("rubric", {}, ["sft", "longpo"], "'rejected'"),
        ("longpo", {}, ["sppo"], "'p_w'"),
        ("longreward", {}, ["sppo"], None),
        ("longreward", {}, ["sft"], None),
    ],
)
def test_a_loss_that_rows_cannot_feed_is_refused(
    recipe: str, own: dict[str, Any], loss: list[str], lacking: str | None
) -> None:
    """When the run is frozen, in one line: nothing has been paid by then."""
    train = {"loss_type": loss, "loss_weights": [1.0] * len(loss)}
    settings = Settings(recipe=recipe, settings=own, train=train)
    if lacking is None:
        assert snapshot_config(settings, train=True)["train"]["loss_type"] == loss
        return
    with pytest.raises(UsageError, match=f"rows of recipe {recipe} have no .*{lacking}"):
        snapshot_config(settings, train=True)
    assert snapshot_config(settings, train=False)["train"] is None
