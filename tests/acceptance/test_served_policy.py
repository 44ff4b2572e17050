"""policy.serve: rounds of a policy that servers have, which lrq starts, ends before a training, and leaves none of."""

import shlex
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from running import REPOSITORY, Crew, Lrq, Sim, processes_naming, until, write_lines

from lrq.policy.folder import fingerprint

pytestmark = [pytest.mark.torch, pytest.mark.timeout(1200)]

SERVER = Path(__file__).with_name("policy_server.py")
POLICY = REPOSITORY / "examples/small_policy/model"


def configure(lrq: Lrq, *words: object, **settings: Any) -> None:
    """Have the policy served by a command."""
    lrq.configure(
        policy={"path": str(POLICY), "dtype": "float32", "serve": shlex.join(map(str, words)), **settings},
        sample={"responses": 4, "max_new_tokens": 40, "seed": 1},
        settings={"min_scored": 2},
        train={"batch_size": 2, "max_steps": 3, "learning_rate": 1e-4, "zero_stage": 0, "device": "cpu"},
    )


def test_two_rounds_killed_in_the_second(
    lrq: Lrq, sim: Callable[..., Sim], asked_items: list[dict[str, Any]], tmp_path: Path
) -> None:
    """A server for each round's model, none beside a training or after the run; killed, the same responses."""
    judge = sim()
    lrq.judged_by(judge)
    configure(lrq, sys.executable, SERVER, "{model}", "{port}")
    words = ("run", write_lines(tmp_path / "asked.jsonl", asked_items), "--rounds", 2)
    run = lrq.start(*words, "--name", "killed")
    crew = Crew(lrq, run)
    until(lambda: lrq_training(lrq, "killed"), "the first training", 600)
    assert not servers(), "the server has made room for the training"
    until(lambda: lrq.query("SELECT 1 FROM calls WHERE role = 'policy' AND state = 'sent'") and servers(), "a sample")
    crew.end("sampler", signal.SIGKILL)
    until(lambda: count(lrq) > 0, "the second round's first sample")
    run.kill()
    lrq.ended(run)
    until(lambda: not servers(), "the server's end with whoever started it")
    lrq("resume", "killed")
    facts = lrq.status("killed")
    assert (facts["state"], facts["round"], facts["items"]) == ("done", 1, {"done": len(asked_items)})
    folders = [POLICY, lrq.home / "runs" / "killed" / "models" / "round-0"]
    sampled_by = dict(lrq.query("SELECT round, json_extract(body, '$.policy') FROM prompts"))
    assert sampled_by == {number: fingerprint(folder) for number, folder in enumerate(folders)}
    assert not servers()


def count(lrq: Lrq) -> int:
    ((found,),) = lrq.query("SELECT count(*) FROM prompts WHERE round = 1")
    return int(found)


def lrq_training(lrq: Lrq, run: str) -> list[int]:
    return processes_naming(str(lrq.home / "runs" / run / "training" / "round-0-window-0"))


def servers() -> list[int]:
    return processes_naming(str(SERVER))


@pytest.mark.parametrize(
    ("words", "seconds", "line"),
    [
        (
            ("-c", "print('no GPU is free'); raise SystemExit(3)", "{model}", "{port}"),
            60,
            "ended with code 3; its last",
        ),
        (("-c", "import time; print('loading'); time.sleep(600)", "{model}", "{port}"), 2, "did not answer at http://"),
    ],
)
def test_a_server_that_does_not_come_up_pauses_the_run(
    lrq: Lrq,
    sim: Callable[..., Sim],
    asked_items: list[dict[str, Any]],
    tmp_path: Path,
    words: tuple[str, ...],
    seconds: float,
    line: str,
) -> None:
    """With its last words, in one line; nothing was judged, and nothing goes on running."""
    judge = sim()
    lrq.judged_by(judge)
    configure(lrq, sys.executable, *words, serve_timeout=seconds)
    done = lrq("run", write_lines(tmp_path / "asked.jsonl", asked_items), "--name", "r", "--no-train", code=None)
    assert done.returncode != 0
    reason = lrq.status("r")["reason"]
    assert line in reason
    assert "then `lrq resume`" in reason
    assert ("no GPU is free" in reason) or ("loading" in reason)
    assert reason.count("\n") == 0
    assert judge.stats()["complete"] == 0
