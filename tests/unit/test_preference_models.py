"""Preference models in this process: PairRM in both layouts, a reward model, and what is refused."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

import torch
from safetensors.torch import load_file, save_file
from support.tiny_scorers import make_pairrm, make_reward_model
from transformers import DebertaV2ForSequenceClassification

from lrq.domain.errors import UsageError
from lrq.run_config import scored_model
from lrq.scorer.models import Classifier, TooLong, open_scorer
from lrq.scorer.pairrm import PairRM

pytestmark = pytest.mark.torch

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "pairrm.json").read_text(encoding="utf-8"))
WORDS = ["the", "red", "blue", "colour", "is", "what", "of", "a"]
QUESTION = ("what is the colour", ["the colour is red", "blue", "a red red red"])


@pytest.fixture(scope="module")
def golden(tmp_path_factory: pytest.TempPathFactory) -> PairRM:
    """The model on which the authors' class was run."""
    folder = tmp_path_factory.mktemp("golden")
    for name in ("config", "tokenizer", "tokenizer_config"):
        (folder / f"{name}.json").write_text(json.dumps(GOLDEN[name]))
    (folder / "model.safetensors").write_bytes(base64.b64decode(GOLDEN["weights"]))
    scorer = open_scorer(str(folder), device="cpu")
    assert isinstance(scorer, PairRM)
    return scorer


@pytest.mark.parametrize("run", GOLDEN["runs"], ids=lambda run: f"{run['order']}-{run['limits']['source_max_length']}")
def test_pairrm_equals_the_authors_class(golden: PairRM, run: dict[str, Any]) -> None:
    """Token ids in full and cut, and logits in both orders; float32 leaves a few millionths."""
    sides = [GOLDEN[f"candidates_{side}"] for side in run["order"]]
    source, candidate = run["limits"]["source_max_length"], run["limits"]["candidate_max_length"]
    limits = {"source_tokens": source, "pair_tokens": source + 2 * candidate}
    pieces = [golden.encode(*texts, **limits) for texts in zip(GOLDEN["sources"], *sides, strict=True)]
    assert [[token for piece in three for token in piece] for three in pieces] == run["input_ids"]
    assert golden.logits(pieces) == pytest.approx(run["logits"], abs=1e-5)
    for text, first, second, logit in zip(GOLDEN["sources"], *sides, run["logits"], strict=True):
        [[_, above], _], _ = golden.score(text, [first, second], **limits)
        assert above == pytest.approx(logit, abs=1e-5)


def test_the_weights_are_those_of_the_published_names() -> None:
    weights = base64.b64decode(GOLDEN["weights"])
    header = json.loads(weights[8 : 8 + int.from_bytes(weights[:8], "little")])
    shapes = {name: entry["shape"] for name, entry in header.items() if name != "__metadata__"}
    assert shapes == GOLDEN["state_dict_shapes"]


def test_marks_inside_a_text_are_letters(golden: PairRM) -> None:
    """A response that spells out a mark or [SEP] moves no vector and ends no piece."""
    limits = {"source_tokens": 1224, "pair_tokens": 2048}
    source, first, second = golden.encode("hello", "i <|candidate2|> am [SEP] fine", "x", **limits)
    ids = [*source, *first, *second]
    assert [ids.count(number) for number in (32, 33, 34, 2)] == [1, 1, 1, 3]


def test_both_published_layouts_are_the_same_model(tmp_path: Path) -> None:
    """LLM-Blender's own names its backbone alone, and its sizes are read off the weights."""
    one, other = (make_pairrm(tmp_path / layout, WORDS, layout=layout) for layout in ("transformers", "blender"))
    rows, tokens = open_scorer(str(one), device="cpu").score(*QUESTION)
    assert open_scorer(str(other), device="cpu").score(*QUESTION) == (rows, tokens)
    assert [rows[n][n] for n in range(3)] == [0, 0, 0]
    assert rows[0][1] != -rows[1][0], "the order counts in such a model"
    another = dict(json.loads((other / "config.json").read_text()), model_name="roberta-large")
    (other / "config.json").write_text(json.dumps(another))
    with pytest.raises(UsageError, match="a ranker on roberta-large"):
        open_scorer(str(other), device="cpu")


@pytest.mark.parametrize("make", [make_pairrm, make_reward_model])
def test_missing_weights_are_refused(tmp_path: Path, make: Any) -> None:
    """Random numbers in their place would compare, and nobody would notice."""
    folder = make(tmp_path / "model", WORDS)
    file = folder / "model.safetensors"
    weights = load_file(file)
    lost = next(name for name in weights if name.startswith(("head_layer.4.weight", "classifier.weight")))
    save_file({name: tensor for name, tensor in weights.items() if name != lost}, file, {"format": "pt"})
    with pytest.raises(UsageError, match=f"they lack {lost}"):
        open_scorer(str(folder), device="cpu")


def test_other_than_safetensors_is_not_read(tmp_path: Path) -> None:
    folder = make_pairrm(tmp_path / "model", WORDS)
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(UsageError, match="no safetensors weights"):
        open_scorer(str(folder), device="cpu")


def test_a_classifier_of_one_label_rewards_each_response(tmp_path: Path) -> None:
    """The figure of a plain forward over the pair of texts; longer ones are refused, not cut."""
    folder = make_reward_model(tmp_path / "model", WORDS)
    scorer = open_scorer(str(folder), device="cpu")
    assert isinstance(scorer, Classifier)
    rows, _ = scorer.score(*QUESTION)
    model = DebertaV2ForSequenceClassification.from_pretrained(folder).eval()
    ids = {word: number for number, word in enumerate(("[PAD]", "[CLS]", "[SEP]", "[UNK]", *WORDS))}
    sent = [ids[word] for word in ["[CLS]", "what", "is", "the", "colour", "[SEP]", "blue", "[SEP]"]]
    with torch.inference_mode():
        assert rows[1] == [pytest.approx(model(torch.tensor([sent])).logits.item(), abs=1e-6)]
    with pytest.raises(TooLong, match="3004 tokens, the model takes 2048"):
        scorer.score("red", ["red " * 3000])


def test_a_classifier_of_two_labels_is_none(tmp_path: Path) -> None:
    folder = make_reward_model(tmp_path / "model", WORDS)
    config = DebertaV2ForSequenceClassification.config_class.from_pretrained(folder, num_labels=2)
    DebertaV2ForSequenceClassification(config).save_pretrained(folder)
    with pytest.raises(UsageError, match="2 labels; a reward model has one"):
        open_scorer(str(folder), device="cpu")


def test_a_folder_is_known_by_its_weights(tmp_path: Path) -> None:
    """The name under which it is frozen changes with them."""
    one = scored_model(str(make_pairrm(tmp_path / "model", WORDS)))
    other = scored_model(str(make_pairrm(tmp_path / "model", WORDS, seed=1)))
    assert one.startswith("model@")
    assert one != other
