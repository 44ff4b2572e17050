"""lrq evaluate: mean rewards of policies on held-out items."""

import os
import random
import statistics
from pathlib import Path
from typing import Any

import click

from lrq.cli import EXIT_PARTLY
from lrq.cli.common import apply_settings, echo, echo_json, json_option, reading_bar
from lrq.cli.progress import finish
from lrq.config import OVERRIDES, merge_flags
from lrq.domain.errors import UsageError
from lrq.ledger import Ledger, open_ledger
from lrq.ledger import items as items_
from lrq.ledger import runs as runs_
from lrq.operations.ingest import Intent, ingest
from lrq.policy.folder import find

_RESAMPLES = 2000  # of the items, for the interval
_SEED = 0


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False))
@click.option("--policy", "policies", multiple=True, metavar="LABEL=FOLDER", help="Repeatable.")
@click.option("--rounds-of", metavar="RUN", help="The policy that a run began with, and its model of each round.")
@click.option("--name", metavar="RUN", help="What the runs' names begin with; by default the file's name.")
@click.option("--responses", type=click.IntRange(min=1), default=4, show_default=True, help="Sampled for each item.")
@click.option("--config", type=click.Path(exists=True, dir_okay=False), help="Settings file instead of ./lrq.yaml.")
@click.option("--set", "flags", multiple=True, metavar="KEY=VALUE", help="A setting, e.g. judge.rpm=500; repeatable.")
@json_option
def evaluate(
    file: str,
    policies: tuple[str, ...],
    rounds_of: str | None,
    name: str | None,
    responses: int,
    config: str | None,
    flags: tuple[str, ...],
    as_json: bool,
) -> int:
    """Sample held-out items from each policy, judge them alike, and compare the mean rewards.

    Responses that the items bring are left out. The difference to the first policy comes with a 95 % interval from
    resampling the items. Every policy is a run of its own (`lrq show` explains its scores); evaluated again, nothing is
    bought again.

    Example: lrq evaluate heldout.jsonl --policy before=base --policy after=.lrq/runs/my-run/model
    """
    flagged = merge_flags(flags)
    means: dict[str, dict[str, float]] = {}
    code = 0
    asked = [*map(_parse, policies), *(_of_rounds(rounds_of, config, flagged) if rounds_of else ())]
    if not asked:
        raise UsageError("name what is to be evaluated: --policy LABEL=FOLDER, or --rounds-of RUN")
    for label, folder in asked:  # all are looked at before the first is judged
        own = {**flagged, "policy": {**flagged.get("policy", {}), "path": folder}}
        own["sample"] = {**flagged.get("sample", {}), "responses": responses}
        settings = apply_settings(config, own)
        ledger = open_ledger(settings, create=True)
        run = f"{name or Path(file).stem}-{label}"
        ingest(ledger, settings, Intent(file=file, name=run, train=False, anew=True), send=False, watch=reading_bar)
        code = max(code, finish(ledger, settings, run))
        means[label] = _mean_by_item(ledger, run)
        ledger.close()
    os.environ.pop(OVERRIDES, None)
    compared = _compare(means)
    _print(compared, as_json)
    return code if code != EXIT_PARTLY else 0


def _of_rounds(name: str, config: str | None, flags: dict[str, Any]) -> list[tuple[str, str]]:
    """Label and folder of the policy before a run and after each of its rounds. Raises UsageError."""
    ledger = open_ledger(apply_settings(config, flags))
    with ledger.reading() as conn:
        run = runs_.get_run(conn, name)
        models = [(f"round_{one['round']}", one["model"]) for one in runs_.round_facts(conn, run.id) if one["model"]]
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


def _mean_by_item(ledger: Ledger, run: str) -> dict[str, float]:
    """Mean reward of each item's responses; an item without any reward is left out."""
    found: dict[str, float] = {}
    after = 0
    with ledger.reading() as conn:
        id_ = runs_.get_run(conn, run).id
        while page := items_.item_ids(conn, id_, after=after):
            for item in page:
                row, _ = items_.load_item(conn, item)
                values = [r.value for r in items_.load_rewards(conn, item, row.round) if r.value is not None]
                if values:
                    found[row.key] = statistics.fmean(values)
            after = page[-1]
    return found


def _compare(means: dict[str, dict[str, float]]) -> list[dict[str, Any]]:
    first = next(iter(means.values()))
    return [
        {"policy": label, "items": len(own), "reward": _mean(own.values()), **_difference(first, own)}
        for label, own in means.items()
    ]


def _mean(values: Any) -> float | None:
    found = list(values)
    return statistics.fmean(found) if found else None


def _difference(first: dict[str, float], own: dict[str, float]) -> dict[str, Any]:
    """Paired difference to the first policy over common items, with a percentile bootstrap interval."""
    both = sorted(first.keys() & own.keys())
    if own is first or not both:
        return {}
    differences = [own[key] - first[key] for key in both]
    rng = random.Random(_SEED)
    resampled = sorted(statistics.fmean(rng.choices(differences, k=len(both))) for _ in range(_RESAMPLES))
    interval = [resampled[int(_RESAMPLES * 0.025)], resampled[int(_RESAMPLES * 0.975)]]
    return {"difference": statistics.fmean(differences), "interval": interval}


def _print(compared: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        echo_json(compared)
        return
    for one in compared:
        reward = "–" if one["reward"] is None else f"{one['reward']:.2f}"
        line = f"{one['policy']}: mean reward {reward} on {one['items']} items"
        if "difference" in one:
            line += f", {one['difference']:+.2f} [{one['interval'][0]:+.2f}, {one['interval'][1]:+.2f}]"
        echo(line)
