"""Rows of several turns as token ids, and what the reference sees of them."""

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pyarrow")
pytest.importorskip("transformers")

import tokenizers
from transformers import PreTrainedTokenizerFast

from lrq.trainer.conversation import join, parts
from lrq.trainer.rows import BadRow, PreferenceRow, read_row
from lrq.trainer.tokens import Chat, encode, render

LABELS = json.loads((Path(__file__).parents[1] / "golden" / "longpo_labels.json").read_text())
CHATML = (
    "{% if messages[0].role != 'system' %}<|im_start|>system\nYou are a helper.<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture(scope="module")
def chat() -> Chat:
    """One token a byte, and ChatML's control tokens."""
    letters = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    raw = tokenizers.Tokenizer(tokenizers.models.BPE({letter: n for n, letter in enumerate(letters)}, []))
    raw.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    raw.decoder = tokenizers.decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<|im_end|>")
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|endoftext|>", "<|im_start|>"]})
    tokenizer.chat_template = CHATML
    return Chat(tokenizer, {tokenizer.eos_token_id})


def said(role: str, text: str) -> list[dict[str, str]]:
    return [{"role": role, "content": text}]


def turns(source: dict[str, Any]) -> list[dict[str, Any]]:
    """A released row before tokenization, as lrq writes it."""
    columns = (source[name] for name in ("questions", "short_prompts", "chosens", "rejecteds"))
    return [
        {
            "prompt": said("user", question if number else f"{source['prompt']}\n\n{question}"),
            "reference": said("user", f"{short}\n\n{question}"),
            "chosen": said("assistant", chosen),
            "rejected": said("assistant", rejected),
        }
        for number, (question, short, chosen, rejected) in enumerate(zip(*columns, strict=True))
    ]


def read(row: Any) -> PreferenceRow:
    found = read_row(json.dumps(row).encode(), 1)
    assert isinstance(found, PreferenceRow), found
    return found


def tokens(row: PreferenceRow, chat: Chat) -> dict[str, Any]:
    pieces = [render(part, chat) for part in parts(row)]
    return dict(join(row, encode(pieces, chat), chat.opening))


def answers(ids: list[int], mask: list[int], chat: Chat) -> list[str]:
    """The stretches that a mask marks."""
    found: list[list[int]] = []
    for place, (token, is_answer) in enumerate(zip(ids, mask, strict=True)):
        if is_answer:
            if not place or not mask[place - 1]:
                found.append([])
            found[-1].append(token)
    return [chat.tokenizer.decode(stretch) for stretch in found]


def test_a_conversation_and_its_labels_are_those_of_the_papers_script(chat: Chat) -> None:
    """One long sequence a side, history its own earlier answers; labels are answers with what ends their turn."""
    ids = tokens(read({"turns": turns(LABELS["row"])}), chat)
    for side in ("chosen", "rejected"):
        whole = ids["prompt_ids"] + ids[f"{side}_ids"]
        assert chat.tokenizer.decode(whole) == LABELS["texts"][side]
        assert f"list of {len(whole)}" == LABELS["columns"][f"{side}_input_ids"]
        assert answers(ids[f"{side}_ids"], ids[f"{side}_mask"], chat) == LABELS["labelled"][side]


def test_the_reference_sees_each_turn_alone_behind_its_short_prompt(chat: Chat) -> None:
    """Both answers of a turn stand behind the short prompt, without history."""
    ids = tokens(read({"turns": turns(LABELS["row"])}), chat)
    for side in ("chosen", "rejected"):
        texts = [chat.tokenizer.decode(turn["prompt_ids"] + turn[f"{side}_ids"]) for turn in ids["reference"]]
        assert texts == [text.replace("<|endoftext|>", "") for text in LABELS["texts"][f"ref_{side}"]]  # no padding
        labelled = [[chat.tokenizer.decode(turn[f"{side}_ids"])] for turn in ids["reference"]]
        assert labelled == LABELS["labelled"][f"ref_{side}"]


def test_drawn_answers_keep_their_tokens_and_are_ended_once(chat: Chat) -> None:
    """Ids of answers are taken as they are, and of a turn's end only what they lack stands between two turns."""
    source = turns(LABELS["row"])
    for number, turn in enumerate(source):
        for side in ("chosen", "rejected"):
            [drawn] = chat.tokenizer([f"{turn[side][0]['content']}<|im_end|>"], add_special_tokens=False)["input_ids"]
            turn[f"{side}_ids"] = drawn
        if not number:
            turn["prompt_ids"] = [0, 1, 2]
        turn["reference_ids"] = [3, 4]
    row = read({"turns": source, "tokenizer": chat.fingerprint})
    assert row.ids is not None
    assert row.ids.prompt == [0, 1, 2]
    first, *rest = parts(row)
    encoded = [{"prompt_ids": first.ids.prompt, "chosen_ids": first.ids.chosen, "rejected_ids": first.ids.rejected}]
    ids = join(row, [*encoded, *encode([render(part, chat) for part in rest], chat)], chat.opening)
    assert chat.tokenizer.decode(ids["chosen_ids"]) == (
        "yes<|im_end|>\n<|im_start|>user\nq2?<|im_end|>\n<|im_start|>assistant\nbecause B<|im_end|>"
    )
    assert answers(ids["chosen_ids"], ids["chosen_mask"], chat) == ["yes<|im_end|>", "because B<|im_end|>"]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"turns": []}, "has 'turns' that are no list of turns"),
        ({"turns": [7]}, "has 'turns' that are no list of turns"),
        ({"turns": [{"prompt": "q", "chosen": "a"}]}, "has turns that are no messages"),
        ({"turns": [*turns(LABELS["row"])[:1], {**turns(LABELS["row"])[1], "rejected": None}]}, "turns without"),
        ({"turns": [*turns(LABELS["row"])[:1], {**turns(LABELS["row"])[1], "reference": None}]}, "turns without"),
    ],
)
def test_turns_that_do_not_belong_together_are_a_bad_row(row: Any, reason: str) -> None:
    """One bad row costs one row, with its reason."""
    found = read_row(json.dumps(row).encode(), 1)
    assert isinstance(found, BadRow)
    assert reason in found.reason


def test_demonstrations_are_read_in_all_their_forms() -> None:
    """A response alone, TRL's completion, a whole chat, or the winning side of LongReward's pairs."""
    asked, told = said("user", "q"), said("assistant", "a")
    forms = ({"prompt": asked, "chosen": told}, {"prompt": asked, "completion": told}, {"messages": asked + told})
    for form in forms:
        row = read(form)
        assert (row.prompt, row.chosen, row.rejected, row.sides) == (asked, told, None, ("chosen",))
        assert "'rejected'" in row.lacks(["sigmoid"])
        assert row.lacks(["sft"]) == ""


def test_published_pairs_are_read_as_they_are() -> None:
    """LongReward's fields become a prompt of context and question, and two responses."""
    row = read({"idx": 3, "context": "c", "query": "q?", "win_response": "w", "lose_response": "l"})
    assert row.prompt == said("user", "c\n\nq?")
    assert (row.chosen, row.rejected) == (said("assistant", "w"), said("assistant", "l"))
