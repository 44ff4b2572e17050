"""lrq agreement: how far rewards agree with labels of people, and scores with reference scores."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import click

from lrq.cli.common import console, echo_json, json_option, settings_options
from lrq.cli.figures import table
from lrq.config import Settings
from lrq.domain.agreement import CATEGORIES, Agreement, best_constant, bootstrap_interval, compare
from lrq.domain.errors import Unreadable, UsageError
from lrq.ledger import Ledger, open_ledger
from lrq.ledger import items as items_
from lrq.ledger import runs as runs_
from lrq.ledger.runs import Run
from lrq.recipes import Case
from lrq.reports.labels import label_agreement
from lrq.workers.cases import load_case
from lrq.workers.frozen import Frozen, thaw

Compared = tuple[dict[str, int], dict[str, int]]  # of one item: reference and predicted scores by dimension


@click.command()
@click.argument("run")
@json_option
@settings_options
def agreement(run: str, as_json: bool, settings: Settings) -> None:
    """Compare a run's rewards with people's labels, and its rubric scores with the reference scores of its items.

    Labels (`lrq label RUN`): how often the reward, and each dimension, prefers what a person preferred, with a 95 %
    interval; apart for small and large margins, since the pairs were chosen for being close.

    Items count as accurate (all criteria equal), partly accurate (some), acceptable (each within 1, in one direction)
    or inaccurate; beside it stand the mean deviation, the quadratic weighted kappa of each criterion, and what a judge
    gets who always says the same. Figures come with a 95 % interval from resampling the items.

    Example: lrq agreement my-run --json
    """
    ledger = open_ledger(settings)
    with ledger.reading() as conn:
        found = runs_.get_run(conn, run)
    labels = label_agreement(ledger, found)
    try:
        facts = compare_scores(ledger, found)
    except UsageError:
        if labels is None:
            raise
        facts = {"run": run}
    if as_json:
        echo_json(facts | ({"labels": labels} if labels else {}))
        return
    if labels is not None:
        _print_labels(labels)
    if "criteria" in facts:
        _print(facts)


def compare_scores(ledger: Ledger, run: Run) -> dict[str, Any]:
    """Return the agreement of a run as plain data. Raises UsageError where no item has both kinds of scores."""
    frozen = thaw(run.recipe, run.config)
    compared = list(_compared(ledger, frozen, run))
    if not compared:
        raise UsageError(
            f"no item of run {run.name!r} has scores and reference scores (answers like {{'GV': 3}}), "
            "and it has no labels (`lrq label`)"
        )
    names = list(compared[0][0])
    alike = [pair for pair in compared if list(pair[0]) == names]
    references, predictions = ([[one[name] for name in names] for one in side] for side in zip(*alike, strict=True))
    scale = range(min(map(min, references)), max(map(max, references)) + 1)
    constant, baseline = best_constant(references, scale)
    interval = partial(bootstrap_interval, references, predictions)
    return {
        "run": run.name,
        "criteria": names,
        "left_out": len(compared) - len(alike),
        **_facts(compare(references, predictions)),
        "intervals": {
            "accurate": interval(lambda found: found.accurate),
            "acceptable": interval(lambda found: found.acceptable),
            "variation": interval(lambda found: found.variation),
        },
        "best_constant": {"scores": dict(zip(names, constant, strict=True)), **_facts(baseline)},
    }


def _facts(found: Agreement) -> dict[str, Any]:
    return {
        "items": found.items,
        "counts": dict(found.counts),
        "accurate": found.accurate,
        "acceptable": found.acceptable,
        "variation": found.variation,
        "kappa": list(found.kappa),
    }


def _compared(ledger: Ledger, frozen: Frozen, run: Run) -> Iterator[Compared]:
    """Reference and predicted scores of each item that has all of both; of several replies the first."""
    after = 0
    while True:
        with ledger.reading() as conn:
            page = items_.item_ids(conn, run.id, after=after)
            for id_ in page:
                _, case = load_case(conn, frozen, id_, items_.round_of(conn, id_), with_scores=True)
                predicted = {one.dimension: round(one.value) for one in reversed(case.scores) if one.value is not None}
                reference = _reference(frozen, case)
                if reference and predicted.keys() >= reference.keys():
                    yield reference, predicted
        if not page:
            return
        after = page[-1]


def _reference(frozen: Frozen, case: Case) -> dict[str, int]:
    try:
        return {} if frozen.recipe.references is None else dict(frozen.recipe.references(case))
    except Unreadable:
        return {}


def _print(facts: dict[str, Any]) -> None:
    out, constant = console(), facts["best_constant"]
    made = table("", "judge", "95 % interval", "always the same")
    for category in CATEGORIES:
        made.add_row(category, str(facts["counts"][category]), "", str(constant["counts"][category]))
    figures = {"accurate": "accurate, share", "acceptable": "acceptable accuracy", "variation": "variation"}
    for name, words in figures.items():
        low, high = facts["intervals"][name]
        made.add_row(words, f"{facts[name]:.2f}", f"{low:.2f} to {high:.2f}", f"{constant[name]:.2f}")
    for name, kappa in zip(facts["criteria"], facts["kappa"], strict=True):
        made.add_row(f"kappa of {name}", f"{kappa:.2f}", "", "0.00")
    out.print(made)
    said = ", ".join(f"{name} {score}" for name, score in constant["scores"].items())
    left = f"; {facts['left_out']} items with other criteria are left out" if facts["left_out"] else ""
    out.print(f"{facts['items']} items; always the same: {said}{left}", soft_wrap=True)


def _print_labels(facts: dict[str, Any]) -> None:
    out = console()
    made = table("", "agree", "95 % interval", "labels")
    parts = [("reward", facts)]
    parts += [(f"  margin {part['low']:.2f} to {part['high']:.2f}", part) for part in facts["by_margin"]]
    parts += list(facts["dimensions"].items())
    if len(facts["people"]) > 1:
        parts += [(f"reward, {who}", part) for who, part in facts["people"].items()]
    for name, part in parts:
        interval = part["interval"]
        words = f"{interval[0]:.0%} to {interval[1]:.0%}" if interval else "–"
        made.add_row(name, "–" if part["agree"] is None else f"{part['agree']:.0%}", words, str(part["decided"]))
    out.print(made)
    counted = f"{facts['labels']} labels: {facts['ties']} ties, {facts['undecided']} on equal rewards"
    both = facts["between_people"]
    people = f"; two people agree on {both['agree']:.0%} of {both['pairs']} pairs" if both["pairs"] else ""
    left = facts["left_chosen"]
    sides = "" if left is None else f"; the left one was chosen in {left:.0%}"
    out.print(f"{counted}{people}{sides}", soft_wrap=True)
