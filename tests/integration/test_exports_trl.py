"""Exported rows as their readers read them: `datasets` and TRL."""

from importlib import import_module
from pathlib import Path
from typing import Any

import orjson
import pytest

pytest.importorskip("torch")
pytest.importorskip("trl")

from lrq.domain.exports import llama_factory_pair, longreward_pair, trl_row
from lrq.domain.records import Item

PROMPT = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Text.\n\nWhy?"}]
GOOD, BAD = ([{"role": "assistant", "content": text}] for text in ("good", "bad"))
TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


@pytest.fixture(scope="module")
def trl() -> Any:
    """TRL's own reading of rows; slow to import."""
    return import_module("trl.data_utils")


def load(tmp_path: Path, *rows: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows, written as JSON lines and read back by `datasets`."""
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    datasets = import_module("datasets")
    return list(datasets.load_dataset("json", data_files=str(path), split="train", cache_dir=str(tmp_path / "cache")))


def tokenizer() -> Any:
    words = import_module("tokenizers")
    model = words.Tokenizer(words.models.WordLevel({"<unk>": 0}, unk_token="<unk>"))
    made = import_module("transformers").PreTrainedTokenizerFast(tokenizer_object=model)
    made.chat_template = TEMPLATE
    return made


def test_pairs_are_what_trl_calls_conversational(tmp_path: Path, trl: Any):
    """The prompt ends where the answer of the assistant begins; both answers follow it."""
    rows = load(tmp_path, trl_row(PROMPT, GOOD, BAD), trl_row(PROMPT[1:], BAD, GOOD))
    assert all(trl.is_conversational(row) for row in rows)
    assert trl.maybe_apply_chat_template(rows[0], tokenizer()) == {
        "prompt": "<system>Be brief.</s><user>Text.\n\nWhy?</s><assistant>",
        "chosen": "good</s>",
        "rejected": "bad</s>",
    }


def test_demonstrations_are_what_trl_calls_conversational(tmp_path: Path, trl: Any):
    """The completion is told apart from the prompt."""
    (row,) = load(tmp_path, trl_row(PROMPT, GOOD))
    assert trl.is_conversational(row)
    assert trl.maybe_apply_chat_template(row, tokenizer())["completion"] == "good</s>"


def test_the_other_forms_keep_one_schema_over_all_rows(tmp_path: Path):
    """Rows with and without a system message or a context load together."""
    rows = [llama_factory_pair(PROMPT, "good", "bad"), llama_factory_pair(PROMPT[1:], "yes", "no")]
    assert load(tmp_path, *rows) == rows
    rows = [longreward_pair(Item(id=name, question="Why?"), "good", "bad") for name in ("11", "a")]
    assert load(tmp_path, *rows) == rows
