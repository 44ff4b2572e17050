"""The demo's documents: planted facts, questions on them, and answers of every kind."""

import importlib
import json
import random
from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest

from lrq.config import load_settings
from lrq.trainer.job import TrainJob

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    return importlib.import_module("make_dataset")


@pytest.mark.parametrize("code", ["en", "zh"])
def test_every_value_belongs_to_one_attribute(make: ModuleType, code: str) -> None:
    """A value names its attribute, so that a wrong value is a distractor's and not a slip of the generator."""
    language = next(each for each in make.LANGUAGES if each.code == code)
    counted = Counter(value for values in language.values.values() for value in values)
    assert max(counted.values()) == 1
    assert len(counted) == 80
    assert len(set(language.ships)) == 32


def test_the_same_seed_gives_the_same_lines(make: ModuleType) -> None:
    """A dataset can be made again anywhere; another seed gives other documents."""
    once, again, other = (list(make.sampled_items(random.Random(seed), "x", 4)) for seed in ("a", "a", "b"))
    assert once == again
    assert once != other


def test_the_right_answer_stands_in_the_document(make: ModuleType) -> None:
    """Each sentence of the reference is a sentence of the context, and the question names what it is about."""
    for number in range(20):
        language = make.LANGUAGES[number % 2]
        line, facts, asked = make.item(random.Random(number), "x", language)
        assert all(language.tell(fact) in line["context"] for fact in facts)
        assert line["answer"] == language.join([language.tell(fact) for fact in asked])
        assert all(fact.ship in line["question"] and fact.attribute in line["question"] for fact in asked)


def test_a_document_states_no_fact_twice_with_different_values(make: ModuleType) -> None:
    """A question has one right answer."""
    for number in range(20):
        _, facts = make.document(random.Random(number), make.LANGUAGES[number % 2], 100)
        assert max(Counter((fact.ship, fact.attribute) for fact in facts).values()) == 1


def test_answers_are_of_the_kind_asked_for(make: ModuleType) -> None:
    """Partial lacks a part, wrong has one value of another ship, a refusal says nothing, right says all."""
    rng = random.Random(3)
    for language in make.LANGUAGES:
        _, facts, asked = make.item(rng, "x", language)
        told = [language.tell(fact) for fact in asked]
        assert make.answer(rng, language, asked, facts, "right") == language.join(told)
        assert make.answer(rng, language, asked, facts, "refusal") == language.patterns["refusal"]
        partial = make.answer(rng, language, asked, facts, "partial")
        assert sum(sentence in partial for sentence in told) == len(told) - 1
        wrong = make.answer(rng, language, asked, facts, "wrong")
        assert sum(sentence in wrong for sentence in told) == len(told) - 1
        assert len(wrong) > len(partial)


def test_taught_answers_follow_the_declared_mixture(make: ModuleType) -> None:
    """Over many items the shares of the kinds are those that are declared, within five standard deviations."""
    kinds = Counter(line["kind"] for line in make.taught_items(random.Random(1), 250))
    assert set(kinds) == set(make.MIXTURE)
    for kind, share in make.MIXTURE.items():
        assert abs(kinds[kind] / 2000 - share) < 5 * (share * (1 - share) / 2000) ** 0.5


def test_judged_items_bring_responses_of_every_kind(make: ModuleType) -> None:
    """Each has six to ten responses: the right answer, a refusal, a rambling one, and some that are neither."""
    for line in make.judged_items(random.Random(5), 6):
        assert 6 <= len(line["responses"]) <= 10
        assert line["answer"] in line["responses"]
        assert {"I cannot tell.", "我无法确定。"} & set(line["responses"])
        assert any(line["answer"] in told and told != line["answer"] for told in line["responses"])
        assert len(set(line["responses"])) >= 5


def test_long_documents_have_64k_tokens_and_their_facts_far_apart(make: ModuleType) -> None:
    """The two long journals reach 64k tokens, and the places their question needs lie a tenth of them apart."""
    for line in make.long_items(random.Random(2)):
        english = line["id"] == "long-en"
        length = len(line["context"])
        assert (260_000 if english else 85_000) < length < (310_000 if english else 100_000)
        assert len(line["responses"]) == 10
        language = make.LANGUAGES[0 if english else 1]
        ends = ". " if english else "。"
        places = [line["context"].index(told.strip()) for told in line["answer"].split(ends) if told.strip()]
        assert len(places) >= 2
        assert max(places) - min(places) > length / 10
        assert language.journal.lines


def test_the_demos_settings_are_settings() -> None:
    """Every key of demo.yaml is known, and those of its training are the trainer's."""
    settings = load_settings(env={"LRQ_CONFIG": str(EXAMPLES / "demo.yaml")})
    assert settings.recipe == "longreward"
    assert settings.policy.path == "examples/small_policy/model"
    assert set(settings.train) <= set(TrainJob.model_fields)
    assert TrainJob(model=Path("m"), rows=Path("r"), output=Path("o"), **settings.train).accumulation(1) == 1


def test_the_committed_responses_are_what_the_generator_makes(make: ModuleType, tmp_path: Path) -> None:
    """judge_only.jsonl is generated, not edited by hand."""
    made = make.write(tmp_path, "judge_only", 7)
    assert made.read_bytes() == (EXAMPLES / "judge_only.jsonl").read_bytes()


def test_each_passage_of_a_document_alone_answers_its_question(make: ModuleType) -> None:
    """What a question names stands in its own short context, and the long document is all of them."""
    for line in make.documents(random.Random(4), "x", 6, (160, 360)):
        language = make.LANGUAGES[0 if line["context"].isascii() else 1]
        assert line["context"] == language.join(line["short_contexts"])
        for place, question in enumerate(line["questions"]):
            asked = [
                (ship, attribute)
                for ship in language.ships
                for attribute in language.values
                if language.patterns["part"].format(ship=ship, attribute=attribute) in question
            ]
            assert len(asked) in {2, 3}
            for ship, attribute in asked:
                stem = language.patterns["fact"].format(ship=ship, attribute=attribute, value="")[:-1]
                holders = [at for at, text in enumerate(line["short_contexts"]) if stem in text]
                assert holders == [place]


def test_an_examiner_counts_replies_and_right_answers(make: ModuleType) -> None:
    """A refusal is no reply, and 1 is the least score of a criterion."""
    for line in make.transcripts(random.Random(6), 8):
        told = [turn["text"] for turn in line["turns"] if turn["speaker"] == "Candidate"]
        refusals = sum(text in {"I cannot tell.", "我无法确定。"} for text in told)
        scores = json.loads(line["answer"])
        assert len(told) == 4
        assert scores["Replies"] == 5 - refusals
        assert 1 <= scores["Accuracy"] <= scores["Replies"]
