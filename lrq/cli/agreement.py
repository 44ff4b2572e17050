"""lrq agreement: how far rewards agree with labels of people, and scores with reference scores."""

from typing import Any

import click

from lrq.cli.common import json_option, settings_options
from lrq.cli.terminal import console, echo_json, table
from lrq.config import Settings
from lrq.domain.agreement import CATEGORIES
from lrq.domain.errors import UsageError
from lrq.ledger import Ledger, open_ledger
from lrq.ledger import runs as runs_
from lrq.reports.agreement import mean_agreement, score_agreement
from lrq.reports.labels import label_agreement

_FIGURES = {"accurate": "accurate, share", "acceptable": "acceptable accuracy", "variation": "variation"}


@click.command()
@click.argument("runs", nargs=-1, required=True, metavar="RUN...")
@json_option
@settings_options
def agreement(runs: tuple[str, ...], as_json: bool, settings: Settings) -> None:
    """Compare a run's rewards with people's labels, and its rubric scores with the reference scores of its items.

    Labels (`lrq label RUN`): how often the reward, and each dimension, prefers what a person preferred, with a 95 %
    interval; apart for small and large margins, since the pairs were chosen for being close.

    Items count as accurate (all criteria equal), partly accurate (some), acceptable (each within 1, in one direction)
    or inaccurate; beside it stand the mean deviation, the quadratic weighted kappa of each criterion, and what a judge
    gets who always says the same. Figures come with a 95 % interval from resampling the items. Of several runs, one
    for each part of an exam, the means follow.

    Example: lrq agreement my-run --json
    """
    ledger = open_ledger(settings)
    reports = [_report(ledger, name) for name in runs]
    ledger.close()
    scored = [facts for facts in reports if "criteria" in facts]
    means = mean_agreement(scored) if len(scored) > 1 else None
    if as_json:
        echo_json(reports[0] if len(runs) == 1 else {"runs": reports, "mean": means})
        return
    for facts in reports:
        if len(runs) > 1:
            console().print(facts["run"])
        if "labels" in facts:
            _print_labels(facts["labels"])
        if "criteria" in facts:
            _print(facts)
    if means is not None:
        words = ", ".join(f"{text} {means[name]:.2f}" for name, text in _FIGURES.items())
        console().print(f"mean of {len(scored)} runs: {words}", soft_wrap=True)


def _report(ledger: Ledger, name: str) -> dict[str, Any]:
    """Return what is known of a run's agreement. Raises UsageError where nothing is."""
    with ledger.read() as tx:
        run = runs_.get_run(tx, name)
    labels = label_agreement(ledger, run)
    try:
        facts = score_agreement(ledger, run)
    except UsageError:
        if labels is None:
            raise
        facts = {"run": name}
    return facts | ({"labels": labels} if labels else {})


def _print(facts: dict[str, Any]) -> None:
    out, constant = console(), facts["best_constant"]
    rows = table("", "judge", "95 % interval", "always the same")
    for category in CATEGORIES:
        rows.add_row(category, str(facts["counts"][category]), "", str(constant["counts"][category]))
    for name, words in _FIGURES.items():
        rows.add_row(words, f"{facts[name]:.2f}", _interval(facts["intervals"][name]), f"{constant[name]:.2f}")
    kappas = zip(facts["criteria"], facts["kappa"], facts["intervals"]["kappa"], constant["kappa"], strict=True)
    for name, kappa, interval, of_constant in kappas:
        rows.add_row(f"kappa of {name}", f"{kappa:.2f}", _interval(interval), f"{of_constant:.2f}")
    out.print(rows)
    scores = ", ".join(f"{name} {score}" for name, score in constant["scores"].items())
    left = f"; {facts['left_out']} items with other criteria are left out" if facts["left_out"] else ""
    left += f"; {facts['unscored']} items are not scored in all criteria" if facts["unscored"] else ""
    out.print(f"{facts['items']} items; always the same: {scores}{left}", soft_wrap=True)


def _interval(bounds: tuple[float, float]) -> str:
    return f"{bounds[0]:.2f} to {bounds[1]:.2f}"


def _print_labels(facts: dict[str, Any]) -> None:
    out = console()
    rows = table("", "agree", "95 % interval", "labels")
    parts = [("reward", facts)]
    parts += [(f"  margin {part['low']:.2f} to {part['high']:.2f}", part) for part in facts["by_margin"]]
    parts += list(facts["dimensions"].items())
    if len(facts["people"]) > 1:
        parts += [(f"reward, {who}", part) for who, part in facts["people"].items()]
    for name, part in parts:
        interval = part["interval"]
        words = f"{interval[0]:.0%} to {interval[1]:.0%}" if interval else "–"
        rows.add_row(name, "–" if part["agree"] is None else f"{part['agree']:.0%}", words, str(part["decided"]))
    out.print(rows)
    counts = f"{facts['labels']} labels: {facts['ties']} ties, {facts['undecided']} on equal rewards"
    between = facts["between_people"]
    people = f"; two people agree on {between['agree']:.0%} of {between['pairs']} pairs" if between["pairs"] else ""
    left = facts["left_chosen"]
    sides = "" if left is None else f"; the left one was chosen in {left:.0%}"
    out.print(f"{counts}{people}{sides}", soft_wrap=True)
