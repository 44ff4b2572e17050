"""lrq evaluate: mean rewards of policies on held-out items."""

import os
from collections import defaultdict
from pathlib import Path
from typing import Any

import click

from lrq.cli import EXIT_PARTLY
from lrq.cli.common import apply_settings, json_option, reading_bar
from lrq.cli.progress import finish
from lrq.cli.terminal import echo, echo_json
from lrq.config import OVERRIDES, merge_flags
from lrq.domain.errors import UsageError
from lrq.ledger import open_ledger
from lrq.ledger import runs as runs_
from lrq.operations.ingest import Intent, ingest
from lrq.policy.folder import find
from lrq.reports.evaluation import Means, compare_policies, item_means

_RESPONSES = 4  # of an item, unless rubrics are asked for: the published evaluation samples one
_BY_RUBRICS = {"recipe": "janus", "settings": {"pair_by": "rubric", "write_systems": False}}


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False), metavar="FILE...")
@click.option("--policy", "policies", multiple=True, metavar="LABEL=FOLDER", help="Repeatable.")
@click.option("--rounds-of", metavar="RUN", help="The policy that a run began with, and its model of each round.")
@click.option("--rubrics", is_flag=True, help="Judge by the rubrics of each item, one call each.")
@click.option("--name", metavar="RUN", help="What the runs' names begin with; by default the file's name.")
@click.option("--responses", type=click.IntRange(min=1), help="Sampled for each item.  [default: 4, with --rubrics 1]")
@click.option("--runs", type=click.IntRange(min=1), default=1, show_default=True, help="Runs to average over.")
@click.option("--config", type=click.Path(exists=True, dir_okay=False), help="Settings file instead of ./lrq.yaml.")
@click.option("--set", "flags", multiple=True, metavar="KEY=VALUE", help="A setting, e.g. judge.rpm=500; repeatable.")
@json_option
def evaluate(
    files: tuple[str, ...],
    policies: tuple[str, ...],
    rounds_of: str | None,
    rubrics: bool,
    name: str | None,
    responses: int | None,
    runs: int,
    config: str | None,
    flags: tuple[str, ...],
    as_json: bool,
) -> int:
    """Sample held-out items from each policy, judge them alike, and compare the mean rewards.

    Responses that the items bring are left out. The difference to the first policy comes with a 95 % interval from
    resampling the items. Several files, long documents and ordinary short questions, are compared each by itself; an
    item without a document is judged in what needs none. Every policy is a run of its own (`lrq show` explains its
    scores); evaluated again, nothing is bought again.

    With --rubrics an item's reward is the mean of its rubrics, 1 to 5 as a rule (Multifaceted Bench). The judge sees
    the system message too, unless settings.show_system says otherwise.

    Example: lrq evaluate long.jsonl short.jsonl --policy before=base --policy after=.lrq/runs/my-run/model
    """
    if len({Path(file).stem for file in files}) < len(files):
        raise UsageError("two files have the same name, which names their runs: rename one")
    flagged = merge_flags(flags, _BY_RUBRICS) if rubrics else merge_flags(flags)
    candidates = [*map(_parse, policies), *(_of_rounds(rounds_of, config, flagged) if rounds_of else ())]
    if not candidates:
        raise UsageError("name what is to be evaluated: --policy LABEL=FOLDER, or --rounds-of RUN")
    seed = apply_settings(config, flagged).sample.seed
    sampled = responses or (1 if rubrics else _RESPONSES)
    code = 0
    reports: dict[str, list[dict[str, Any]]] = {}
    for file in files:
        first = "-".join(filter(None, (name, Path(file).stem if len(files) > 1 or not name else "")))
        means: dict[str, list[Means]] = defaultdict(list)
        for label, folder in candidates:
            for number in range(runs):
                run = f"{first}-{label}" + (f"-{number + 1}" if number else "")
                overrides = {**flagged, "policy": {**flagged.get("policy", {}), "path": folder}}
                overrides["sample"] = {**flagged.get("sample", {}), "responses": sampled, "seed": seed + number}
                ended, rewards = _evaluate_one(file, run, config, overrides)
                code = max(code, ended)
                means[label].append(rewards)
        reports[file] = compare_policies(means)
    os.environ.pop(OVERRIDES, None)
    _print(reports, as_json)
    return code if code != EXIT_PARTLY else 0


def _evaluate_one(file: str, run: str, config: str | None, flags: dict[str, Any]) -> tuple[int, Means]:
    """Work on one run to its end; return its exit code and the mean rewards by item."""
    settings = apply_settings(config, flags)
    ledger = open_ledger(settings, create=True)
    try:
        intent = Intent(file=file, name=run, train=False, anew=True, optional=("context",))
        ingest(ledger, settings, intent, send=False, watch=reading_bar)
        code = finish(ledger, settings, run, scores_only=True)
        return code, item_means(ledger, run)
    finally:
        ledger.close()


def _of_rounds(name: str, config: str | None, flags: dict[str, Any]) -> list[tuple[str, str]]:
    """Return label and folder of the policy before a run and after each of its rounds. Raises UsageError."""
    ledger = open_ledger(apply_settings(config, flags))
    with ledger.read() as tx:
        run = runs_.get_run(tx, name)
        rounds = runs_.round_facts(tx, run.id)
    models = [(f"round_{facts['round']}", facts["model"]) for facts in rounds if facts["model"]]
    ledger.close()
    if not models:
        raise UsageError(f"run {name!r} has made no model yet")
    before = run.config["policy"]["path"]
    return [(label, str(find(str(folder)).resolve())) for label, folder in [("before", before), *models]]


def _parse(text: str) -> tuple[str, str]:
    label, equals, folder = text.partition("=")
    if not equals or not label.isidentifier():
        raise UsageError(f"--policy wants LABEL=FOLDER, for example before=models/base, not {text!r}")
    return label, folder if "://" in folder else str(find(folder).resolve())


def _print(reports: dict[str, list[dict[str, Any]]], as_json: bool) -> None:
    if as_json:
        echo_json([{"file": Path(file).name, **facts} for file, compared in reports.items() for facts in compared])
        return
    for file, compared in reports.items():
        if len(reports) > 1:
            echo(f"{file}:")
        for facts in compared:
            echo(("  " if len(reports) > 1 else "") + _sentence(facts))


def _sentence(facts: dict[str, Any]) -> str:
    line = f"{facts['policy']}: mean reward {_number(facts['reward'])} on {facts['items']} items"
    if "runs" in facts:
        line += f", mean of {len(facts['runs'])} runs ({', '.join(map(_number, facts['runs']))})"
    if "difference" in facts:
        low, high = facts["interval"]
        line += f", {facts['difference']:+.2f} [{low:+.2f}, {high:+.2f}]"
    return line


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"
