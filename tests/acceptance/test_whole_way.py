"""From documents to a better policy, with every process killed at its stage."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from running import Crew, Lrq, Sim, processes_naming, until, write_lines

pytestmark = [pytest.mark.torch, pytest.mark.timeout(1200)]

RESPONSES = 5
STEPS = 80  # of training
TALK = """
import sys
from transformers import AutoModelForCausalLM, AutoTokenizer
model, tokenizer = (auto.from_pretrained(sys.argv[1]) for auto in (AutoModelForCausalLM, AutoTokenizer))
asked = tokenizer.apply_chat_template(
    [{"role": "user", "content": "the ship"}], add_generation_prompt=True, return_tensors="pt", return_dict=True
)
print(tokenizer.decode(model.generate(**asked, max_new_tokens=8, do_sample=False)[0]))
"""


@pytest.fixture
def ready(lrq: Lrq, sim: Callable[..., Sim], policy: Path) -> Sim:
    """A judge, a policy and settings of a small training."""
    judge = sim("--latency", "100")
    lrq.judged_by(judge, concurrency=8)
    lrq.configure(
        policy={"path": str(policy), "device": "cpu", "dtype": "float32"},
        sample={"responses": RESPONSES, "max_new_tokens": 200, "seed": 1},
        train={"batch_size": 4, "max_steps": STEPS, "learning_rate": 1e-4, "save_steps": 5},
    )
    return judge


def responses(lrq: Lrq, run: str) -> dict[tuple[str, int], str]:
    query = "SELECT items.key, k, text FROM responses JOIN items ON items.id = item_id JOIN runs ON runs.id = run_id"
    return {(item, k): text for item, k, text in lrq.query(f"{query} WHERE runs.name = ?", run)}


def count(lrq: Lrq, table: str, where: str = "1 = 1") -> int:
    ((found,),) = lrq.query(f"SELECT count(*) FROM {table} WHERE {where}")
    return int(found)


def test_killed_at_every_stage(lrq: Lrq, ready: Sim, open_items: list[dict[str, Any]], tmp_path: Path):
    """Sampler, judge, broker, aggregator, trainer with its training, and `lrq run` itself; in the end a model."""
    file = write_lines(tmp_path / "open.jsonl", open_items)
    run = lrq.start("run", file)
    crew = Crew(lrq, run)
    until(lambda: count(lrq, "prompts"), "the first samples")
    crew.end("sampler", signal.SIGKILL)
    assert count(lrq, "prompts") < 10, "all was sampled before the kill"
    at_risk = 0
    for name in ("judge", "redis", "aggregator"):
        until(lambda: ready.stats()["in_flight"], "calls in flight")
        at_risk += crew.end(name, signal.SIGKILL)
    until(lambda: count(lrq, "metrics") >= 6, "the first checkpoint of the training")
    kill_training(lrq, crew)
    taken = count(lrq, "metrics")
    until(lambda: count(lrq, "metrics") > taken, "the training's second start")
    run.kill()
    lrq.ended(run)
    assert count(lrq, "metrics") < STEPS, "the training was over before it was killed: give it more steps"
    done = lrq("run", file)
    model = done.stdout.splitlines()[-1]
    facts = lrq.status("open")
    (training,) = facts["trainings"]
    assert (training["state"], training["model"]) == ("done", model)
    assert training["rows"] == facts["pairs"] >= 5
    assert [step for (step,) in lrq.query("SELECT step FROM metrics ORDER BY step")] == list(range(1, STEPS + 1))
    assert facts["responses"]["count"] == 10 * RESPONSES
    sampled = responses(lrq, "open")
    assert len(sampled) == count(lrq, "responses") == 10 * RESPONSES
    stats = ready.stats()
    print(f"\n{stats['complete']} calls, in flight at the kills {at_risk}, bought twice {stats['duplicates']}")
    assert stats["duplicates"] <= at_risk
    assert_talks(model)
    assert_nothing_again(lrq, file, ready, training)
    assert_same_by_two_samplers(lrq, file, ready, sampled)


def kill_training(lrq: Lrq, crew: Crew) -> None:
    """The worker and the processes it has started, all at once."""
    (worker,) = crew.pids("trainer")
    folder = str(lrq.home / "runs" / "open" / "training")
    own = processes_naming(folder)
    assert own, "no process of the training was found"
    for pid in (worker, *own):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    until(lambda: not set(own) & set(processes_naming(folder)), "their end")


def assert_talks(model: str) -> None:
    """The folder loads with from_pretrained in a fresh process and generates."""
    done = subprocess.run([sys.executable, "-c", TALK, model], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def assert_nothing_again(lrq: Lrq, file: Path, judge: Sim, training: dict[str, Any]) -> None:
    received = judge.stats()["received"]
    lrq("run", file)
    assert lrq.status("open")["trainings"] == [training]
    assert judge.stats()["received"] == received


def assert_same_by_two_samplers(lrq: Lrq, file: Path, judge: Sim, before: dict[tuple[str, int], str]) -> None:
    """Whoever samples, with or without kills: the same responses, and so no question that was not answered before."""
    complete = judge.stats()["complete"]
    run = lrq.start("run", file, "--name", "again", "--no-train", "--samplers", "2", "--judges", "2")
    crew = Crew(lrq, run)
    until(lambda: len(crew.pids("sampler")) == len(crew.pids("judge")) == 2, "two of each")
    lrq.ended(run, 0)
    assert responses(lrq, "again") == before
    assert judge.stats()["complete"] == complete


def test_two_judges_and_two_samplers(lrq: Lrq, ready: Sim, open_items: list[dict[str, Any]], tmp_path: Path):
    """At once, each with a part of the work; nothing is sampled or bought twice."""
    file = write_lines(tmp_path / "open.jsonl", open_items)
    lrq("run", file, "--no-train", "--samplers", "2", "--judges", "2")
    facts = lrq.status("open")
    assert facts["items"] == {"done": 10}
    assert facts["responses"]["count"] == 10 * RESPONSES
    assert facts["sampling"]["completion_tokens"] == facts["responses"]["tokens"]
    stats = ready.stats()
    assert stats["complete"] == facts["calls"]["calls"] > 50
    assert stats["duplicates"] == 0
    owners = dict(lrq.query("SELECT owner, count(*) FROM calls GROUP BY owner"))
    assert len(owners) == 2, owners
    logs = [path.read_text() for path in (lrq.home / "logs").glob("sampler*.log")]
    assert sum("Task lrq.sample" in log and "succeeded" in log for log in logs) == 2
    assert json.loads(lrq("show", "open:open-0", "--json").stdout)["state"] == "done"
