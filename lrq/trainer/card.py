"""The card of a trained model, in Markdown."""

from importlib.metadata import version

from lrq.trainer.job import Preflight, Result, Spread, TrainJob


def model_card(job: TrainJob, result: Result) -> str:
    """Base, method, settings, rows and figures; no path of this machine but the base's last name."""
    rows = result.preflight or Preflight()
    return f"""---
pipeline_tag: text-generation
library_name: transformers
base_model: {job.model.name}
tags: [lrq, trl, dpo]
---

# {job.output.name}

Trained from `{job.model.name}` (SHA-256 of configuration and weights `{rows.model}`)
on preference pairs, with lrq {version("lrq")}: Direct Preference Optimization (arXiv 2305.18290) in TRL, {
        _engine(job)
    }.

## Settings

{_table(_settings(job, rows))}

## Rows

{
        _table(
            {
                "in the file": rows.rows,
                "trained on": rows.kept,
                "of these with a cut prompt": rows.cut,
                "dropped as too long": rows.dropped,
                "set aside as unreadable": rows.set_aside,
            }
        )
    }

| tokens | least | median | most |
|---|---|---|---|
{_spreads(rows)}

## Figures

{_table({"steps": result.steps, "seconds in steps": result.seconds, **_figures(result)})}
"""


def _engine(job: TrainJob) -> str:
    return f"under DeepSpeed ZeRO-{job.zero_stage}" if job.zero_stage else "without DeepSpeed"


def _settings(job: TrainJob, rows: Preflight) -> dict[str, object]:
    losses = " + ".join(f"{weight:g} × {name}" for name, weight in zip(job.loss_type, job.loss_weights, strict=True))
    return {
        "loss": losses,
        "β": job.beta,
        "learning rate": f"{job.learning_rate:g}, {job.scheduler}, warm-up {job.warmup:g}",
        "pairs in a step": job.batch_size,
        "length": f"{job.max_steps} steps" if job.max_steps else f"{job.epochs:g} epochs",
        "longest sequence": job.max_length or "no limit",
        "shared prefix": rows.shared_prefix,
        "seed": job.seed,
    }


def _figures(result: Result) -> dict[str, object]:
    names = {"loss": "last loss", "margin": "last margin of rewards", "accuracy": "last share of pairs in order"}
    return {text: f"{value:.4g}" for name, text in names.items() if (value := result.metrics.get(name)) is not None}


def _spreads(rows: Preflight) -> str:
    named: dict[str, Spread] = {"prompt": rows.prompt, "chosen": rows.chosen, "rejected": rows.rejected}
    return "\n".join(f"| {name} | {s.min} | {s.median} | {s.max} |" for name, s in named.items())


def _table(cells: dict[str, object]) -> str:
    return "| | |\n|---|---|\n" + "\n".join(f"| {name} | {value} |" for name, value in cells.items())
