"""SPPO from lines to a model by one command: compared by a preference model of this machine, or by the judge."""

import json
import re
import socket
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from running import REPOSITORY, Lrq, Sim, until, write_lines

pytestmark = [pytest.mark.torch, pytest.mark.timeout(900)]

POLICY = {"path": str(REPOSITORY / "examples/small_policy/model"), "device": "cpu", "dtype": "float32"}


def make_model(kind: str, folder: Path, items: list[dict[str, Any]]) -> Path:
    """Save a random model that knows the items' words."""
    from support.tiny_scorers import make_pairrm, make_reward_model  # noqa: PLC0415 - loads torch

    texts = (f"{item['context']} {item['question']}" for item in items)
    words = list(dict.fromkeys(word for text in texts for word in re.findall(r"\w+|[^\w\s]+", text)))
    return (make_reward_model if kind == "reward" else make_pairrm)(folder, words)


@pytest.fixture
def settings(lrq: Lrq) -> dict[str, Any]:
    made = {
        "policy": POLICY,
        "sample": {"max_new_tokens": 40, "seed": 1},
        "train": {"rounds": 1, "batch_size": 2, "max_steps": 3, "learning_rate": 1e-4, "zero_stage": 0},
    }
    lrq.configure(**made)
    return made


def training_rows(lrq: Lrq, run: str) -> list[dict[str, Any]]:
    job = lrq.home / "runs" / run / "training" / "round-0-window-0"
    return [json.loads(line) for line in (job / "pairs.jsonl").read_text().splitlines()]


def process(lrq: Lrq, type_: str) -> dict[str, Any] | None:
    """A living process of that type, as `lrq status` knows it, once it has said something of itself."""
    if not (lrq.home / "ledger.db").exists():
        return None
    done = lrq("status", "--json", code=None)
    known = json.loads(done.stdout)["processes"] if done.returncode == 0 else []
    return next((each for each in known if each["type"] == type_ and each["note"]), None)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def page(url: str) -> str:
    """What stands there; empty while nobody answers."""
    with suppress(OSError), urllib.request.urlopen(url, timeout=60) as reply:
        return str(reply.read().decode())
    return ""


def test_a_preference_model_of_this_machine(
    lrq: Lrq, asked_items: list[dict[str, Any]], settings: dict[str, Any], tmp_path: Path
) -> None:
    """One command starts the scorer, compares by it, trains on win rates; one call a prompt, none of them twice."""
    folder = make_model("pairrm", tmp_path / "Tiny-RM", asked_items)
    lrq.configure(judge={"path": str(folder), "device": "cpu"})
    file = write_lines(tmp_path / "asked.jsonl", asked_items)
    run = lrq.start("run", file, "--recipe", "sppo")
    scorer = until(lambda: process(lrq, "scorer"), "the scorer in `lrq status`")
    lrq.ended(run, code=0)
    assert scorer["note"]["serves"].startswith("Tiny-RM@")
    facts = lrq.status("asked")
    assert facts["state"] == "done"
    assert facts["calls"]["calls"] <= len(asked_items)
    rows = training_rows(lrq, "asked")
    assert rows
    for row in rows:
        assert 1 > row["p_w"] > 0.5 > row["p_l"] > 0
    assert (lrq.home / "runs" / "asked" / "model" / "model.safetensors").exists()
    lrq("run", file, "--recipe", "sppo")
    assert lrq.status("asked")["calls"]["calls"] == facts["calls"]["calls"]
    assert (lrq.home / "scorer.token").stat().st_mode & 0o777 == 0o600


def test_the_judge(
    lrq: Lrq, sim: Callable[..., Sim], asked_items: list[dict[str, Any]], settings: dict[str, Any], tmp_path: Path
) -> None:
    """The same command with a judge that writes: each pair of different texts in both orders, no pair twice."""
    judge = sim()
    lrq.judged_by(judge)
    file = write_lines(tmp_path / "asked.jsonl", asked_items)
    lrq("run", file, "--recipe", "sppo")
    facts = lrq.status("asked")
    assert facts["state"] == "done"
    asked = judge.stats()["received"]
    assert 0 < asked <= len(asked_items) * 5 * 4
    assert all(1 >= row["p_w"] > 0.5 > row["p_l"] >= 0 for row in training_rows(lrq, "asked"))
    assert (lrq.home / "runs" / "asked" / "model" / "model.safetensors").exists()
    assert not (lrq.home / "logs" / "scorer.log").exists()


def test_a_scorer_by_hand(lrq: Lrq, asked_items: list[dict[str, Any]], tmp_path: Path) -> None:
    """It serves on the loopback who has the token, shows in Flower and `lrq status`, and ends at a signal."""
    lrq.configure(judge={"path": str(make_model("reward", tmp_path / "Tiny-RM", asked_items)), "device": "cpu"})
    lrq.start("broker")
    until(lambda: list(Path(lrq.env["LRQ_RUNTIME"]).glob("lrq-*/redis.sock")), "the broker")
    begun = lrq.start("worker", "scorer")
    scorer = until(lambda: process(lrq, "scorer"), "the scorer in `lrq status`")
    assert "Tiny-RM@" in lrq("status").stdout
    assert lrq.said().count("is served at") == 1
    url = re.findall(r"is served at (\S+)", lrq.said())[0]
    assert url.startswith("http://127.0.0.1:")
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(f"{url}/models", timeout=60)
    token = (lrq.home / "scorer.token").read_text()
    asked = urllib.request.Request(f"{url}/models", headers={"Authorization": f"Bearer {token}"})
    with urllib.request.urlopen(asked, timeout=60) as reply:
        assert [one["id"] for one in json.load(reply)["data"]] == [scorer["note"]["serves"], "Tiny-RM"]
    flower = f"http://127.0.0.1:{free_port()}"
    lrq.start("flower", FLOWER_PORT=flower.rpartition(":")[2])
    until(
        lambda: f"scorer@{scorer['host']}-{scorer['pid']}" in page(f"{flower}/workers?json=1"), "the scorer in Flower"
    )
    begun.terminate()
    assert lrq.ended(begun) == 0
    assert process(lrq, "scorer") is None
    lrq.configure(judge={})
    refused = lrq("worker", "scorer", code=2)
    assert "set judge.path to its folder" in refused.stderr
