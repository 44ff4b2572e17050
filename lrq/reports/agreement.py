"""How far the scores of a run agree with the reference scores that its items bring."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from statistics import fmean
from typing import Any

from lrq.domain.agreement import Agreement, best_constant, bootstrap_intervals, compare
from lrq.domain.errors import Unreadable, UsageError
from lrq.ledger import Ledger
from lrq.ledger import items as items_
from lrq.ledger.runs import Run
from lrq.recipes import Case
from lrq.run_config import RunConfig, load_run_config
from lrq.workers.cases import load_case

Pair = tuple[Mapping[str, int], Mapping[str, int]]  # of one item: reference and predicted scores by dimension


def score_agreement(ledger: Ledger, run: Run) -> dict[str, Any]:
    """Return the agreement of a run as plain data: counts, figures with intervals, and the best constant judge's.

    `left_out` are items with other criteria than the first, `unscored` those whose prediction lacks a score; neither
    is counted. Raises UsageError where no item has both kinds of scores.
    """
    pairs = list(_score_pairs(ledger, load_run_config(run.recipe, run.config), run))
    complete = [(reference, predicted) for reference, predicted in pairs if predicted.keys() >= reference.keys()]
    if not complete:
        raise UsageError(
            f"no item of run {run.name!r} has scores and reference scores (answers like {{'GV': 3}}), "
            "and it has no labels (`lrq label`)"
        )
    names = list(complete[0][0])
    alike = [(reference, predicted) for reference, predicted in complete if list(reference) == names]
    references = [[reference[name] for name in names] for reference, _ in alike]
    predictions = [[predicted[name] for name in names] for _, predicted in alike]
    scale = range(min(map(min, references)), max(map(max, references)) + 1)
    constant, baseline = best_constant(references, scale)
    return {
        "run": run.name,
        "criteria": names,
        "left_out": len(complete) - len(alike),
        "unscored": len(pairs) - len(complete),
        **_facts(compare(references, predictions)),
        "intervals": bootstrap_intervals(references, predictions),
        "best_constant": {"scores": dict(zip(names, constant, strict=True)), **_facts(baseline)},
    }


def mean_agreement(reports: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return the means of shares and variation over `reports` of runs, each of which counts alike (EvalYaks' parts)."""
    return {name: fmean(report[name] for report in reports) for name in ("accurate", "acceptable", "variation")}


def _facts(agreement: Agreement) -> dict[str, Any]:
    shares = {"accurate": agreement.accurate, "acceptable": agreement.acceptable}
    return {**asdict(agreement), **shares, "counts": dict(agreement.counts), "kappa": list(agreement.kappa)}


def _score_pairs(ledger: Ledger, frozen: RunConfig, run: Run) -> Iterator[Pair]:
    """Yield reference and predicted scores of each item that has references; of several replies the first."""
    after = 0
    while True:
        with ledger.read() as tx:
            page = items_.item_ids(tx, run.id, after=after)
            for id_ in page:
                _, case = load_case(tx, frozen, id_, items_.round_of(tx, id_), with_scores=True)
                if reference := _references(frozen, case):
                    values = ((score.dimension, score.value) for score in reversed(case.scores))
                    yield reference, {name: round(value) for name, value in values if value is not None}
        if not page:
            return
        after = page[-1]


def _references(frozen: RunConfig, case: Case) -> dict[str, int]:
    try:
        return {} if frozen.recipe.references is None else dict(frozen.recipe.references(case))
    except (Unreadable, ValueError):  # the item's answer, or its rubrics
        return {}
