"""The card of a trained model, in Markdown."""

from collections.abc import Mapping
from importlib.metadata import version

from lrq.trainer.job import TrainJob
from lrq.trainer.job_folder import Preflight, Result, Spread


def model_card(job: TrainJob, result: Result) -> str:
    """Return base, data, run, method, settings and figures of `result`; no path of this machine but the last names."""
    rows = result.preflight or Preflight()
    licence = job.about.get("licence")
    return f"""---
pipeline_tag: text-generation
library_name: {"peft" if job.adapter and not job.merge else "transformers"}
base_model: {job.model.name}
license: {licence or "other"}
tags: [{", ".join(["lrq", "trl", "dpo", *(["lora"] if job.adapter else [])])}]
---

# {job.output.name}

Trained from `{job.model.name}` (SHA-256 of configuration and weights `{rows.model}`)
on {"demonstrations" if job.is_one_sided else "preference pairs"}, with lrq {version("lrq")}: {_method(job)} in TRL, {
        _engine(job)
    }.

## Origin

{_table(_origin(job, rows))}

## Settings

{_table(_settings(job, rows))}

## Rows

{
        _table(
            {
                "in the file": rows.rows,
                "trained on": rows.kept - rows.held_out,
                "held out": rows.held_out,
                **_also(job, rows),
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

{_before_and_after(result)}

{_table({"steps": result.steps, "seconds in steps": result.seconds, **_figures(result)})}
"""


def _origin(job: TrainJob, rows: Preflight) -> dict[str, object]:
    """Return the lines on where the model comes from; what is not known is named as such."""
    data = getattr(job, "content_of_rows", "")
    return {
        "base": job.model.name,
        **({"reference": job.reference_model.name} if job.reference_model else {}),
        "run": job.about.get("run", "none: a file of pairs"),
        "recipe": job.about.get("recipe", "not stated"),
        "judge": job.about.get("judge", "not stated"),
        "data": f"{job.rows.name}, {rows.rows} rows, SHA-256 `{data}`",
        "licence of the data": job.about.get("licence", "not stated"),
    }


def _before_and_after(result: Result) -> str:
    """Show both ends of the training: on rows held out if there are any, else its first and its last step."""
    ends: tuple[Mapping[str, float | None] | None, ...] = (result.held_out.get("before"), result.held_out.get("after"))
    where = "on the rows held out"
    if not all(ends):
        ends, where = (result.first, result.metrics), "in the first and the last step"
    names = {"loss": "loss", "margin": "margin of rewards", "accuracy": "share of pairs in order"}
    lines = [f"| {where} | before | after |", "|---|---|---|"]
    for name, text in names.items():
        cells = [f"{value:.4g}" if end and (value := end.get(name)) is not None else "" for end in ends]
        lines.append(f"| {text} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _method(job: TrainJob) -> str:
    """Return the name of the method that the losses are; what has none stands under the settings."""
    losses = set(job.loss_type)
    for name, (terms, words) in _METHODS.items():
        if terms <= losses:
            return f"{words} ({name})"
    return "fine-tuning" if job.is_one_sided else "preference optimization"


_METHODS = {
    "arXiv 2502.13922": ({"nll", "sigmoid"}, "LongPO"),
    "arXiv 2305.18290": ({"sigmoid"}, "Direct Preference Optimization"),
    "arXiv 2405.00675": ({"sppo"}, "Self-Play Preference Optimization"),
    "arXiv 2403.07691": ({"orpo"}, "Odds Ratio Preference Optimization"),
    "arXiv 2405.14734": ({"simpo"}, "Simple Preference Optimization"),
}


def _also(job: TrainJob, rows: Preflight) -> dict[str, object]:
    if job.also is None:
        return {}
    share = rows.also / rows.kept if rows.kept else 0
    return {f"ordinary pairs mixed in, of {job.also.name}": f"{rows.also} ({share:.1%})"}


def _engine(job: TrainJob) -> str:
    return f"under DeepSpeed ZeRO-{job.zero_stage}" if job.zero_stage else "without DeepSpeed"


def _settings(job: TrainJob, rows: Preflight) -> dict[str, object]:
    betas = {name: f" (β {beta:g})" for name, beta in job.loss_betas.items()}
    terms = zip(job.loss_type, job.loss_weights, strict=True)
    losses = " + ".join(f"{weight:g} × {name}{betas.get(name, '')}" for name, weight in terms)
    return {
        "loss": losses,
        "β": job.beta,
        **({"γ": job.gamma} if "simpo" in job.loss_type else {}),
        **({"base of rotary positions": f"{job.rope_theta:g}"} if job.rope_theta else {}),
        "learning rate": f"{job.learning_rate:g}, {job.scheduler}, warm-up {job.warmup:g}",
        "optimizer": job.optim,
        "pairs in a step": job.batch_size,
        "length": f"{job.max_steps} steps" if job.max_steps else f"{job.epochs:g} epochs",
        "longest sequence": job.max_length or "no limit",
        "trained weights": _trained(job),
        "shared prefix": rows.shared_prefix,
        "seed": job.seed,
    }


def _trained(job: TrainJob) -> str:
    if not job.adapter:
        return "all"
    kind = "QLoRA" if job.adapter.quantize else "LoRA"
    targets = job.adapter.targets if isinstance(job.adapter.targets, str) else ", ".join(job.adapter.targets)
    merged = ", merged into the base" if job.merge else ""
    return f"{kind}, rank {job.adapter.r}, alpha {job.adapter.alpha:g}, on {targets}{merged}"


def _figures(result: Result) -> dict[str, object]:
    names = {
        "sppo_share": "last squared loss in units of (½/β)²",
        "loss": "last loss",
        "margin": "last margin of rewards",
        "accuracy": "last share of pairs in order",
    }
    figures = {text: f"{value:.4g}" for name, text in names.items() if (value := result.metrics.get(name)) is not None}
    return {**figures, "tokens per second": f"{result.tokens / result.seconds:,.0f}" if result.seconds else ""}


def _spreads(rows: Preflight) -> str:
    spreads: dict[str, Spread] = {"prompt": rows.prompt, "chosen": rows.chosen, "rejected": rows.rejected}
    return "\n".join(f"| {name} | {s.min} | {s.median} | {s.max} |" for name, s in spreads.items())


def _table(cells: dict[str, object]) -> str:
    return "| | |\n|---|---|\n" + "\n".join(f"| {name} | {value} |" for name, value in cells.items())
