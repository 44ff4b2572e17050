"""The fingerprint of a tokenizer."""

import pytest

tokenizers = pytest.importorskip("tokenizers")
transformers = pytest.importorskip("transformers")

from lrq.policy.fingerprint import tokenizer_fingerprint  # noqa: E402


def tokenizer(words=("a", "b"), special=("<end>",), lowercase=False):
    vocabulary = {word: id_ for id_, word in enumerate(("<unk>", *words))}
    raw = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="<unk>"))
    raw.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    if lowercase:
        raw.normalizer = tokenizers.normalizers.Lowercase()
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=raw, unk_token="<unk>", additional_special_tokens=list(special)
    )


def test_a_saved_and_loaded_tokenizer_keeps_its_fingerprint(tmp_path):
    """Neither the place, nor a chat template, nor padding and cutting in a call change it."""
    first = tokenizer()
    before = tokenizer_fingerprint(first)
    first.chat_template = "{{ messages }}"
    first.pad_token = "<end>"
    first(["a", "a b"], padding=True, truncation=True, max_length=2)
    first.save_pretrained(tmp_path)
    loaded = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert len(before) == 64
    assert tokenizer_fingerprint(first) == before
    assert tokenizer_fingerprint(loaded) == before


@pytest.mark.parametrize(
    "changed", [{"words": ("b", "a")}, {"words": ("a", "b", "c")}, {"special": ("<stop>",)}, {"lowercase": True}]
)
def test_other_words_ids_or_rules_give_another_fingerprint(changed):
    """Whatever maps texts to ids is part of it."""
    assert tokenizer_fingerprint(tokenizer(**changed)) != tokenizer_fingerprint(tokenizer())
