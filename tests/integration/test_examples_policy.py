"""The small policy that comes with the demo: it loads from its folder, reads its documents, and has much to gain."""

import importlib
import random
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.torch

EXAMPLES = Path(__file__).parents[2] / "examples"
FOLDER = EXAMPLES / "small_policy" / "model"
NAMES = ("harbour", "journal", "make_dataset", "tokenizer", "grade", "lessons")


@pytest.fixture
def demo(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The demo's modules."""
    for folder in (EXAMPLES, EXAMPLES / "small_policy"):
        monkeypatch.syspath_prepend(str(folder))
    return SimpleNamespace(**{name: importlib.import_module(name) for name in NAMES})


@pytest.fixture(scope="module")
def tokenizer():
    """The committed tokenizer."""
    return transformers.AutoTokenizer.from_pretrained(FOLDER)


@pytest.fixture(scope="module")
def model():
    """The committed policy."""
    return transformers.LlamaForCausalLM.from_pretrained(FOLDER).eval()


@pytest.fixture
def lines(demo):
    """A dozen questions on documents that no other file of the demo has."""
    return list(demo.make_dataset.sampled_items(random.Random("test"), "test", 12))


def test_the_folder_is_a_small_plain_llama(model):
    """It takes prompts of 2,048 tokens and fits into a repository."""
    assert model.config.model_type == "llama"
    assert model.config.max_position_embeddings >= 2048
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) < 3_000_000


def test_prompts_are_read_without_an_unknown_word_and_given_back_unchanged(demo, tokenizer, lines):
    """Decoding returns the very text, in both languages, for prompts as lrq writes them."""
    for line in lines:
        chat = [*demo.grade.prompt(line), {"role": "assistant", "content": line["answer"]}]
        text = tokenizer.apply_chat_template(chat, tokenize=False)
        ids = tokenizer(text)["input_ids"]
        assert tokenizer.unk_token_id not in ids
        assert tokenizer.decode(ids) == text
        assert 300 <= len(ids) <= 960
        answer = tokenizer(line["answer"])["input_ids"]
        assert tokenizer.decode(answer, skip_special_tokens=True) == line["answer"]


def test_the_template_takes_every_role(tokenizer):
    """A prompt with its answer begins with the prompt alone, so that training sees what was sampled."""
    chat = [{"role": role, "content": "I cannot tell."} for role in ("system", "user", "assistant")]
    asked = tokenizer.apply_chat_template(chat[:2], tokenize=False, add_generation_prompt=True)
    whole = tokenizer.apply_chat_template(chat, tokenize=False)
    assert asked == "<|system|>I cannot tell.<|end|><|user|>I cannot tell.<|end|><|assistant|>"
    assert whole == f"{asked}I cannot tell.<|end|>"


def test_the_committed_tokenizer_is_what_the_script_makes(demo, tokenizer):
    """Words added to the demo's world are missing from the policy until it is trained again."""
    assert demo.tokenizer.build().get_vocab() == tokenizer.get_vocab()


def test_it_answers_from_its_document_and_has_much_to_gain(demo, model, tokenizer, lines):
    """Sampled answers are far above chance, a tenth of all wrong values, and far below perfect."""
    transformers.set_seed(0)
    told = demo.grade.sample(model, tokenizer, lines, responses=4)
    pairs = [(line["answer"], text) for line, texts in zip(lines, told, strict=True) for text in texts]
    found = sum((demo.grade.count(*pair) for pair in pairs), start=demo.grade.Counter())
    assert found["right"] > 2 * found["wrong"] > 0
    assert 0.15 < sum(demo.grade.reward(*pair) for pair in pairs) / len(pairs) < 0.75


def test_its_answers_differ_from_draw_to_draw(demo, model, tokenizer, lines):
    """Ten samples of a question make a pair only if they are not all alike."""
    transformers.set_seed(0)
    told = demo.grade.sample(model, tokenizer, lines, responses=4)
    assert sum(len(set(texts)) > 1 for texts in told) >= 10


@pytest.mark.parametrize(
    ("response", "reward"),
    [
        ("The cargo of Aurora is coal. The hull of Heron is elm.", 1.0),
        ("The hull of Heron is elm.", 0.5),
        ("The cargo of Aurora is tea. The hull of Heron is elm.", 0.25),  # (1 - 0.5) / 2
        ("I cannot tell.", 0.0),
        ("The cargo of Aurora is coal. Of Heron.", 0.375),  # (1 - 0.25) / 2
        ("The hull of Heron is elm. The hull of Heron is elm.", 0.375),
        ("", 0.0),
    ],
)
def test_the_rule_knows_the_right_answer(demo, response, reward):
    """A right part counts one, a wrong value takes a half, anything else a quarter, over the parts asked for."""
    assert demo.grade.reward("The cargo of Aurora is coal. The hull of Heron is elm.", response) == reward


def test_lessons_know_where_the_next_word_stands(demo):
    """Wherever an answer goes on with a value or a name, the places to look at hold that very word."""
    reader = demo.lessons.Reader(demo.tokenizer.build())
    rng = random.Random(4)
    batch = reader.read([demo.lessons.lesson(rng, 12, questions=4) for _ in range(6)])
    for sought in (batch.values, batch.names):
        assert len(sought.rows) > 20
        assert sought.wanted.any(1).all()
        for row, place, wanted in zip(sought.rows.tolist(), sought.places.tolist(), sought.wanted, strict=True):
            assert set(batch.ids[row][wanted].tolist()) == {batch.ids[row, place + 1].item()}
            assert not wanted[place:].any()
    assert len(batch.values.rows) == (batch.answer & batch.value).sum()
