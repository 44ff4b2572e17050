"""Measure each method on the small policy beside plain fine-tuning and a control: `python examples/proof.py`.

Each arm is one `lrq run` on the same documents: the method; SFT on what it chooses; and the control of
recipes/controls.py, whose preferences are drawn at random. Answers to new documents are compared with the right ones.
Settings were chosen with `--split dev`, whose documents are others. docs/proof.md says what this shows and what not.
"""

import json
import os
import random
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
import yaml
from demo import judge
from make_dataset import Line, documents, questions
from transformers import AutoTokenizer, LlamaForCausalLM
from transformers.utils.logging import disable_progress_bar

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "small_policy"))

from grade import prompt  # noqa: E402 - examples are no package
from try_dpo import interval, measure  # noqa: E402

LRQ = Path(sys.executable).with_name("lrq")
POLICY = HERE / "small_policy" / "model"
ARMS = ("method", "sft", "control")
FIGURES = ("sampled exact", "sampled reward", "greedy exact", "greedy reward")
COMPARED = (("method", "before"), ("control", "before"), ("method", "sft"), ("method", "control"))


def small_policy(folder: Path, split: str) -> Path:
    """Return the committed policy, which answers right a quarter of the time."""
    return POLICY


def short_reader(folder: Path, split: str) -> Path:
    """Train a policy that reads short documents well: SFT on right answers to documents of 15 to 60 sentences."""
    model = folder / "short_reader"
    if model.exists():
        return model
    lines = questions(random.Random(f"{split}-short"), "short", 240, (15, 60))
    rows = (
        {"prompt": prompt(line), "completion": [{"role": "assistant", "content": line["answer"]}]} for line in lines
    )
    settings = {"learning_rate": 3e-4, "batch_size": 8, "micro_batch": 8, "epochs": 2, "zero_stage": 0}
    flags = [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
    lrq("train", write(folder / "short.jsonl", rows), "--model", POLICY, "--output", model, "--loss", "sft", *flags)
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 4096}))  # longer than it learned
    return model


@dataclass(frozen=True, kw_only=True)
class Method:
    """What is trained on what, and where it is measured."""

    recipe: str
    seeds: Sequence[int] = (1,)
    make: Callable[[random.Random, str, int, tuple[int, int]], Iterable[Line]] = questions
    policy: Callable[[Path, str], Path] = small_policy
    items: int = 64
    sentences: tuple[int, int] = (45, 125)  # of a document; a sentence has six or seven tokens
    settings: Mapping[str, Any] = field(default_factory=dict)


TRAIN = {
    "train.learning_rate": 3e-4, "train.batch_size": 8, "train.micro_batch": 8, "train.epochs": 3,
    "train.gradient_checkpointing": False, "train.zero_stage": 0,
}  # fmt: skip
METHODS = {  # the longest first
    "longpo": Method(
        recipe="LONGPO",
        make=documents,
        policy=short_reader,
        items=48,
        sentences=(320, 360),
        settings={**TRAIN, "train.micro_batch": 2, "train.loss_weights": [1.0, 1.0]},
    ),
    "sppo": Method(  # beta: targets of a few nats; at the paper's 350 this policy forgets how to end its answers
        recipe="SPPO",
        settings={**TRAIN, "train.rounds": 2, "train.round_items": "all", "train.beta": 0.1},
    ),
    "longreward": Method(
        recipe="LONGREWARD",
        seeds=(1, 2, 3),
        settings={**TRAIN, "sample.responses": 4, "settings.min_scored": 2, "train.loss_weights": [1.0, 3.0]},
    ),
}


def lrq(*words: str | Path) -> None:
    """Run a command; what it says goes to a log beside LRQ_HOME. Raises CalledProcessError."""
    with Path(os.environ["LRQ_HOME"]).with_suffix(".log").open("ab") as log:
        subprocess.run([LRQ, *words], stdout=log, stderr=log, check=True)


def write(path: Path, lines: Iterable[Mapping[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
    return path


def prove(name: str, seed: int, home: Path, split: str, held_out: int) -> dict[str, Any]:
    """Run a method's arms with one seed and measure each; figures of each held-out item, and CPU seconds."""
    method, folder = METHODS[name], home / f"{name}-{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    os.environ |= {"LRQ_HOME": str(folder / "lrq"), "OMP_NUM_THREADS": "1"}
    torch.set_num_threads(1)
    lines = method.make(random.Random(f"{split}-{name}-{seed}"), f"{name}-{seed}", method.items, method.sentences)
    file = write(folder / "items.jsonl", lines)
    asked = list(questions(random.Random(f"{split}-{name}-held-out"), "held-out", held_out, method.sentences))
    policy = method.policy(folder, split)
    seeds = {"sample.seed": seed, "train.seed": seed}
    settings = {"policy.path": policy, "judge.identity": "judge-sim", **seeds, **method.settings}
    config = write_settings(folder / "lrq.yaml", settings)
    models = {"before": policy}
    with judge(folder):
        for arm in ARMS:
            recipe = f"{HERE / 'recipes' / 'controls.py'}:{method.recipe}" if arm == "control" else name
            loss = ("--loss", "sft") if arm == "sft" else ()
            lrq("run", file, "--name", arm, "--recipe", recipe, "--config", config, *loss)
            models[arm] = folder / "lrq" / "runs" / arm / "model"
    figures = {arm: _measure(model, asked, seed) for arm, model in models.items()}
    used = [resource.getrusage(whose) for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return {"method": name, "seed": seed, "figures": figures, "cpu": sum(use.ru_utime + use.ru_stime for use in used)}


def write_settings(path: Path, settings: Mapping[str, Any]) -> Path:
    """Write lrq.yaml: that of the demo with `settings`, named by section and key, laid over it."""
    known = yaml.safe_load((HERE / "demo.yaml").read_text())
    known = {name: known[name] for name in ("policy", "sample")}
    for name, value in settings.items():
        section, _, key = name.partition(".")
        known.setdefault(section, {})[key] = str(value) if isinstance(value, Path) else value
    path.write_text(yaml.safe_dump(known))
    return path


def _measure(model: Path, lines: Sequence[Line], seed: int) -> dict[str, list[float]]:
    tokenizer = AutoTokenizer.from_pretrained(model)
    found = measure(LlamaForCausalLM.from_pretrained(model).eval(), tokenizer, lines, seed)
    return {name: values.tolist() for name, values in found.items()}


def compare(name: str, cells: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return means and differences with their 95 % intervals over the items, each the mean of the seeds' figures."""
    means = {
        arm: {figure: np.mean([cell["figures"][arm][figure] for cell in cells], axis=0) for figure in FIGURES}
        for arm in ("before", *ARMS)
    }
    differences = {
        f"{arm} - {other}": {figure: _difference(means[arm][figure] - means[other][figure]) for figure in FIGURES}
        for arm, other in COMPARED
    }
    return {
        "method": name,
        "seeds": [cell["seed"] for cell in cells],
        "items": len(means["before"][FIGURES[0]]),
        "means": {arm: {figure: float(values.mean()) for figure, values in of.items()} for arm, of in means.items()},
        "differences": differences,
    }


def _difference(values: np.ndarray) -> dict[str, Any]:
    return {"mean": float(values.mean()), "interval": interval(values)}


def table(results: Sequence[Mapping[str, Any]]) -> str:
    """Return a Markdown table of what is sampled at temperature 1."""
    arms = ("before", *ARMS)
    compared = [f"{arm} - {other}" for arm, other in COMPARED]
    rows = [["method", "seeds", "figure", *arms, *compared]]
    rows.append(["---"] * 3 + ["---:"] * (len(arms) + len(compared)))
    for result in results:
        for figure in FIGURES[:2]:
            means = [f"{result['means'][arm][figure]:.3f}" for arm in arms]
            gains = [_shown(result["differences"][name][figure]) for name in compared]
            seeds = ", ".join(map(str, result["seeds"]))
            rows.append([result["method"], seeds, figure.removeprefix("sampled "), *means, *gains])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _shown(difference: Mapping[str, Any]) -> str:
    low, high = difference["interval"]
    return f"{difference['mean']:+.3f} [{low:+.3f}, {high:+.3f}]"


@click.command()
@click.option("--home", type=click.Path(file_okay=False, path_type=Path), default=Path(".proof"), show_default=True)
@click.option("--recipe", "names", multiple=True, type=click.Choice(list(METHODS)), help="One method; all by default.")
@click.option("--split", type=click.Choice(["test", "dev"]), default="test", show_default=True)
@click.option("--held-out", default=400, show_default=True, help="Items that are measured.")
@click.option("--jobs", default=2, show_default=True, help="Methods and seeds that run side by side.")
def main(home: Path, names: tuple[str, ...], split: str, held_out: int, jobs: int) -> None:
    """Print how each method changes the small policy's answers to new documents, and write proof.json and proof.md."""
    start, home = time.monotonic(), home.resolve()
    home.mkdir(parents=True, exist_ok=True)
    work = [(name, seed) for name in names or METHODS for seed in METHODS[name].seeds]
    with ProcessPoolExecutor(jobs, max_tasks_per_child=1) as pool:
        futures = [pool.submit(prove, name, seed, home, split, held_out) for name, seed in work]
        cells = [future.result() for future in futures]
    results = []
    for name in dict.fromkeys(name for name, _ in work):
        of_method = [cell for cell in cells if cell["method"] == name]
        several = [compare(name, [cell]) for cell in of_method] if len(of_method) > 1 else []
        results += [*several, compare(name, of_method)]
    cpu = sum(cell["cpu"] for cell in cells)
    (home / "proof.json").write_text(json.dumps({"split": split, "results": results, "cpu_seconds": cpu}, indent=1))
    text = table(results)
    (home / "proof.md").write_text(text + "\n")
    click.echo(f"{text}\n\n{cpu:.0f} seconds of CPU, {time.monotonic() - start:.0f} on the clock; {home}/proof.json")


disable_progress_bar()
if __name__ == "__main__":
    main()
