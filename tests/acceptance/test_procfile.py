"""The Procfile's lines started by hand, without a supervisor: with PostgreSQL, and a Redis named by its URL."""

import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from running import LRQ, REPOSITORY, Lrq, Sim, until, write_lines

pytestmark = [pytest.mark.torch, pytest.mark.timeout(900)]


def procfile() -> dict[str, list[str]]:
    lines = (REPOSITORY / "Procfile").read_text().splitlines()
    return {name: shlex.split(words) for name, _, words in (line.partition(":") for line in lines if line.strip())}


@pytest.fixture
def redis_url(lrq: Lrq) -> str:
    """`lrq broker` of another LRQ_HOME, for all others a Redis like any."""
    lrq.start("broker", LRQ_HOME=str(lrq.folder / "elsewhere"))
    socket = until(lambda: list(Path(lrq.env["LRQ_RUNTIME"]).glob("lrq-*/redis.sock")), "the broker")[0]
    return f"unix://{socket}"


def test_the_whole_way_by_hand(
    lrq: Lrq,
    sim: Callable[..., Sim],
    policy: Path,
    open_items: list[dict[str, Any]],
    postgres_url: str,
    redis_url: str,
    tmp_path: Path,
):
    """Every line a process of its own, and one that Celery's own command starts: enqueue, and wait until it is done."""
    judge = sim()
    lrq.judged_by(judge)
    lrq.configure(
        policy={"path": str(policy), "device": "cpu", "dtype": "float32"},
        sample={"responses": 5, "max_new_tokens": 24, "seed": 1},
        train={"batch_size": 4, "learning_rate": 1e-4, "zero_stage": 0},
    )
    lrq.env |= {"LRQ_DATABASE_URL": postgres_url, "LRQ_REDIS_URL": redis_url, "FLOWER_PORT": "0"}
    lines = procfile()
    assert set(lines) == {"redis", "sampler", "judge", "scorer", "aggregator", "trainer", "flower"}
    assert {words[0] for words in lines.values()} == {"lrq"}
    lrq("enqueue", write_lines(tmp_path / "open.jsonl", open_items))
    assert not (lrq.home / "ledger.db").exists()
    celery = [str(Path(sys.executable).with_name("celery")), "-A", "lrq.queue", "worker", "-Q", "judge.faithfulness"]
    lrq.start(argv=celery)
    begun = {name: lrq.start(argv=[str(LRQ), *words[1:]]) for name, words in lines.items() if name != "judge"}
    until(lambda: faithful(lrq.status("open")), "scores of faithfulness by Celery's worker")
    begun["judge"] = lrq.start(argv=[str(LRQ), *lines["judge"][1:]])
    until(lambda: lrq.status("open")["state"] == "done", "the end of the run", 400)
    assert {name: process.poll() for name, process in begun.items()} == dict.fromkeys(lines)
    facts = lrq.status("open")
    assert facts["items"] == {"done": 10}
    assert facts["responses"]["count"] == 50
    (training,) = facts["trainings"]
    assert training["state"] == "done"
    assert (Path(training["model"]) / "model.safetensors").exists()
    stats = judge.stats()
    assert stats["complete"] == facts["calls"]["calls"]
    assert stats["duplicates"] == 0
    for process in begun.values():
        process.terminate()
    for name, process in begun.items():
        assert lrq.ended(process) == 0, name


def faithful(facts: dict[str, Any]) -> bool:
    return bool(facts["scores"].get("faithfulness", {}).get("value"))
