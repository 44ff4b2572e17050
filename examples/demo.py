"""The whole way on a small dataset, offline: sample, judge, pair, train, and the policy before and after.

    python examples/demo.py --home .demo

Every step is a command that is printed before it runs. Run again, nothing is bought or trained again.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from make_dataset import write
from rich import box
from rich.console import Console
from rich.table import Table

HERE = Path(__file__).resolve().parent
LRQ = Path(sys.executable).with_name("lrq")
POLICY = HERE / "small_policy" / "model"
SEED = 7


@click.command()
@click.option("--home", type=click.Path(file_okay=False, path_type=Path), default=Path(".demo"), show_default=True)
@click.option("--recipe", type=click.Choice(["longreward", "sppo", "longpo", "janus", "rubric"]), default="longreward")
def main(home: Path, recipe: str) -> None:
    """Show lrq's whole way on documents made for the purpose, by one of the methods."""
    start = time.monotonic()
    home.mkdir(parents=True, exist_ok=True)
    os.environ["LRQ_HOME"] = str(home / "lrq")
    with judge(home):
        if recipe == "longreward":
            show_longreward(home, start)
        elif recipe == "rubric":
            show_rubric(home)
        else:
            show_method(home, recipe, start)


def show_longreward(home: Path, start: float) -> None:
    """Sample, judge, pair and train; judge two documents of 64k tokens; compare the policy before and after."""
    files = {name: write(home / "data", name, SEED) for name in ("demo", "long")}
    lrq("run", files["long"], "--no-train")
    lrq("run", files["demo"], "--config", HERE / "demo.yaml", "--set", f"policy.path={POLICY}")
    model = Path(facts("demo")["trainings"][0]["model"])
    summary(home, model, evaluate(home, {"before": POLICY, "after": model}), time.monotonic() - start)


# Dataset of each method, and its settings beside those of demo.yaml: the small policy needs a larger learning rate.
SHOWN: dict[str, tuple[str, dict[str, str]]] = {
    "sppo": ("demo", {"train.rounds": "2", "train.round_items": "split"}),
    "longpo": ("documents", {"train.loss_weights": "[1.0, 1.0]", "train.epochs": "3"}),
    "janus": ("instructed", {"train.epochs": "2"}),
}


def show_method(home: Path, recipe: str, start: float) -> None:
    """Go from a dataset to a model by one command, and compare the policy before and after."""
    name, settings = SHOWN[recipe]
    policy = short_reader(home) if recipe == "longpo" else POLICY
    settings |= {"policy.path": str(policy), "policy.device": "cpu", "policy.dtype": "float32"}
    settings |= {"sample.max_new_tokens": "40", "train.learning_rate": "3e-4", "train.batch_size": "8"}
    flags = [word for setting in settings.items() for word in ("--set", "=".join(setting))]
    lrq("run", write(home / "data", name, SEED), "--name", recipe, "--recipe", recipe, *flags)
    model = home / "lrq" / "runs" / recipe / "model"
    held_out = "held_out_long" if recipe == "longpo" else "held_out"
    console = Console()
    console.print(_change(*evaluate(home, {"before": policy, "after": model}, held_out)))
    console.print(f"{time.monotonic() - start:.0f} seconds in all; next: lrq report {recipe}, lrq view")


def short_reader(home: Path) -> Path:
    """Train a policy that answers right from short documents: without one LongPO has nothing to teach.

    The committed policy leaves out parts of its answers by its own habit, from short documents as from long ones.
    """
    print("\nLongPO wants a policy that is good at short documents; this one is taught so first")
    model = home / "short_reader"
    settings = {"learning_rate": 3e-4, "batch_size": 8, "micro_batch": 8, "epochs": 2, "zero_stage": 0}
    flags = [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
    if not model.exists():
        file = write(home / "data", "short_answers", SEED)
        lrq("train", file, "--model", POLICY, "--output", model, "--loss", "sft", *flags)
        config = json.loads((model / "config.json").read_text())
        (model / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 4096}))  # beyond its lessons
    return model


def show_rubric(home: Path) -> None:
    """Score conversations by two criteria, several in one call, and compare with the examiner's scores."""
    file = write(home / "data", "transcripts", SEED)
    lrq("run", file, "--name", "rubric", "--recipe", "rubric", "--no-train")
    lrq("agreement", "rubric")


def evaluate(home: Path, models: dict[str, Path], held_out: str = "held_out") -> list[dict[str, Any]]:
    """Judge what the models answer to held-out items."""
    policies = [word for label, model in models.items() for word in ("--policy", f"{label}={model}")]
    file = write(home / "data", held_out, SEED)
    return list(json.loads(lrq("evaluate", file, "--config", HERE / "demo.yaml", *policies, "--json", quiet=True)))


@contextmanager
def judge(home: Path) -> Iterator[None]:
    """judge-sim on a free port; it compares texts and is no language model."""
    log = (home / "judge-sim.log").open("wb")
    process = subprocess.Popen([LRQ, "judge-sim", "--port", "0"], stdout=subprocess.PIPE, stderr=log, text=True)
    assert process.stdout is not None
    url = next(line.split()[-1] for line in process.stdout if "listening on" in line)
    os.environ.update(LRQ_JUDGE_URL=url, LRQ_JUDGE_MODEL="judge-sim")
    print(f"$ lrq judge-sim    # {url}; it compares texts by rules and is no language model")
    try:
        yield
    finally:
        process.terminate()
        process.wait()
        log.close()


def lrq(*words: str | Path, quiet: bool = False) -> str:
    """Run a command as a user would; its progress goes to the terminal."""
    if words[0] in {"run", "evaluate"}:
        words += ("--set", "judge.identity=judge-sim")  # its port is another one each time
    shown = " ".join(_short(word) for word in words)
    print(f"\n$ lrq {shown}", flush=True)
    done = subprocess.run([LRQ, *words], stdout=subprocess.PIPE if quiet else None, text=True, check=False)
    if done.returncode:
        sys.exit(done.returncode)
    return done.stdout or ""


def _short(word: str | Path) -> str:
    """Paths from here, for the eye."""
    return str(word).replace(f"{Path.cwd()}/", "")


def facts(run: str) -> dict[str, Any]:
    found = subprocess.run([LRQ, "status", run, "--json"], stdout=subprocess.PIPE, check=True)
    return dict(json.loads(found.stdout)["runs"][0])


def summary(home: Path, model: Path, compared: list[dict[str, Any]], seconds: float) -> None:
    runs = {name: facts(name) for name in ("demo", "long")}
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title="\nwhat came out", title_justify="left")
    table.add_column("")
    for name in ("48 documents, sampled", "2 documents of 64k tokens"):
        table.add_column(name, justify="right")
    for label, value in ROWS.items():
        table.add_row(label, *(value(run) for run in runs.values()))
    console = Console()
    console.print(table)
    console.print(_change(*compared))
    console.print(f"{seconds:.0f} seconds in all; this run's files:")
    for path in (
        home / "lrq" / "runs" / "demo" / "pairs.jsonl",
        home / "lrq" / "runs" / "demo" / "scores.jsonl",
        model,
    ):
        console.print(f"  {_short(path.resolve())}", soft_wrap=True)
    console.print("next: LRQ_HOME=" + _short((home / "lrq").resolve()) + " lrq show demo:demo-001")


def _change(before: dict[str, Any], after: dict[str, Any]) -> str:
    """Return a sentence on the held-out reward before and after."""
    low, high = after["interval"]
    return (
        f"held-out reward: {before['reward']:.2f} before, {after['reward']:.2f} after training "
        f"({after['difference']:+.2f}, 95 % interval {low:+.2f} to {high:+.2f}, {after['items']} items)"
    )


def _score(dimension: str) -> Any:
    def value(run: dict[str, Any]) -> str:
        mean = run["scores"][dimension]["mean"]
        return "–" if mean is None else f"{mean:.2f}"

    return value


def _training(run: dict[str, Any]) -> str:
    trained = [one["ended_at"] - one["started_at"] for one in run["trainings"] if one["started_at"]]
    return f"{sum(trained):.1f}" if trained else "–"


ROWS: dict[str, Any] = {
    "items": lambda run: str(sum(run["items"].values())),
    "responses": lambda run: str(run["responses"]["count"]),
    **{name: _score(name) for name in ("helpfulness", "logicality", "faithfulness", "completeness")},
    "pairs": lambda run: str(run["pairs"]),
    "judge calls": lambda run: f"{run['calls']['calls']:,}",
    "answers reused": lambda run: f"{run['calls']['reused']:,}",
    "judge tokens": lambda run: f"{run['calls']['prompt_tokens'] + run['calls']['completion_tokens']:,}",
    "of them cached": lambda run: f"{run['calls']['cached_tokens']:,}",
    "seconds of sampling": lambda run: f"{run['sampling']['seconds']:.1f}" if run["sampling"]["seconds"] else "–",
    "seconds of training": _training,
}

if __name__ == "__main__":
    main()
