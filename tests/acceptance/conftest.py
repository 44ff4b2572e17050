"""Datasets, a policy, judges and an LRQ_HOME for the acceptance tests."""

import json
import os
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from running import REPOSITORY, Lrq, Sim


def _journal_item() -> Callable[..., dict[str, Any]]:
    """examples/make_dataset.py's maker of journals, with the number of a language for the language."""
    sys.path.insert(0, str(REPOSITORY / "examples"))
    try:
        from harbour import LANGUAGES  # noqa: PLC0415
        from make_dataset import journal_item  # noqa: PLC0415
    finally:
        sys.path.remove(str(REPOSITORY / "examples"))
    return lambda rng, name, language, *sizes: dict(journal_item(rng, name, LANGUAGES[language], *sizes))


@pytest.fixture(scope="session")
def journal_items() -> Callable[[int, int], list[dict[str, Any]]]:
    """So many journals, English and Chinese in turn, with questions and so many responses each."""
    make = _journal_item()

    def several(count: int, responses: int) -> list[dict[str, Any]]:
        rng = random.Random("acceptance")
        return [make(rng, f"item-{n:02d}", n % 2, (3000, 1200)[n % 2], 14, responses) for n in range(count)]

    return several


@pytest.fixture(scope="session")
def open_items() -> list[dict[str, Any]]:
    """Ten short English documents with questions that a policy has to answer."""
    make = _journal_item()
    rng = random.Random("acceptance")
    lines = [make(rng, f"open-{n}", 0, 600, 6, 0) for n in range(10)]
    return [{name: value for name, value in line.items() if name != "responses"} for line in lines]


@pytest.fixture(scope="session")
def asked_items() -> list[dict[str, Any]]:
    """Six documents with questions that examples/small_policy is made for."""
    sys.path.insert(0, str(REPOSITORY / "examples"))
    try:
        from make_dataset import sampled_items  # noqa: PLC0415
    finally:
        sys.path.remove(str(REPOSITORY / "examples"))
    return [dict(line) for line in sampled_items(random.Random("rounds"), "asked", 6)]


@pytest.fixture(scope="session")
def policy(tmp_path_factory: pytest.TempPathFactory, open_items: list[dict[str, Any]]) -> Path:
    """A random Llama of two layers that answers in the commonest words of these documents."""
    pytest.importorskip("torch")
    from lrq.trainer.tiny import WORDS, make_policy  # noqa: PLC0415 - loads torch

    folder = make_policy(tmp_path_factory.mktemp("policy") / "model")
    words = Counter(word for item in open_items for word in f"{item['context']} {item['question']}".split())
    common = dict(zip(WORDS, (word for word, _ in words.most_common(len(WORDS))), strict=True))
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    tokenizer["model"]["vocab"] = {common.get(word, word): number for word, number in vocabulary.items()}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    return folder


@pytest.fixture
def sim(tmp_path: Path) -> Iterator[Callable[..., Sim]]:
    """Starts judge-sims: `sim("--latency", "100")`."""
    started: list[Sim] = []

    def start(*options: str) -> Sim:
        started.append(Sim(tmp_path, *options))
        return started[-1]

    yield start
    for one in started:
        one.stop()


@pytest.fixture
def lrq(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lrq]:
    """An empty LRQ_HOME, but for what is known of the models that all tests use."""
    with tempfile.TemporaryDirectory(prefix="lrq") as runtime:
        os.chmod(runtime, 0o700)
        base = tmp_path_factory.getbasetemp()
        session = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
        (probes := session / "probes").mkdir(exist_ok=True)
        made = Lrq(tmp_path, runtime, probes)
        yield made
        made.close()
