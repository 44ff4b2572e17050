"""How a run ended, and what it did not make."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from lrq.ledger import Ledger
from lrq.ledger.runs import Run
from lrq.reports.facts import run_facts
from lrq.reports.pairable import count_unpairable
from lrq.run_config import load_run_config

End = Literal["done", "partly", "failed", "budget", "account", "halted"]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """`partly`: done, but some lines, responses, scores or results are missing, as `notes` say."""

    end: End
    notes: Sequence[str]


def outcome_of(ledger: Ledger, run: Run, *, scores_only: bool = False) -> Outcome:
    """Return how a run that is worked on no more has ended.

    With `scores_only`, a run without a pair has made what was wanted.
    """
    if run.state != "done":
        hint = "" if "lrq " in run.reason else f"; `lrq resume {run.name}` goes on"
        ends: Mapping[str, End] = {"budget": "budget", "account": "account"}
        return Outcome(end=ends.get(run.halt, "halted"), notes=[f"is {run.state}: {run.reason}{hint}"])
    facts = run_facts(ledger, run)
    wants_pairs = not scores_only and count_unpairable(ledger, run) < sum(facts["items"].values())
    wants_scores = bool(load_run_config(run.recipe, run.config).steps)
    missing = missing_results(facts, wants_pairs=wants_pairs, wants_scores=wants_scores)
    notes = [*([run.reason] if run.reason else []), *missing, *(shortfalls(facts) if missing else ())]
    if any(training["state"] == "failed" for training in facts["trainings"]):
        return Outcome(end="failed", notes=notes)
    unscored = sum(counts["unscored"] for counts in facts["scores"].values())
    unsampled = sum(number for reason, number in facts["responses"]["without_text"].items() if reason != "empty")
    is_short = unscored + unsampled + facts["items"].get("failed", 0) + facts["set_aside"] or missing
    return Outcome(end="partly" if is_short else "done", notes=notes)


def missing_results(facts: Mapping[str, Any], *, wants_pairs: bool, wants_scores: bool) -> list[str]:
    """Return which of the wanted results a run has none of, with the commonest reasons; `facts` are its `run_facts`."""
    if not facts["items"]:
        return ["no line could be read"]
    if wants_scores and not any(counts["value"] for counts in facts["scores"].values()):
        return ["no score was made"]
    if not facts["pairs"] and wants_pairs:
        return [f"no pair was made{because(facts['no_pair'])}"]
    return []


def shortfalls(facts: Mapping[str, Any]) -> list[str]:
    """Return what a run did not make, by its `facts`, each with its commonest reasons; nothing where all is well."""
    failed, unscored = facts["items"].get("failed", 0), sum(counts["unscored"] for counts in facts["scores"].values())
    without = facts["responses"]["without_text"]
    shortages = (
        (facts["set_aside"], "lines rejected", facts["rejected"]),
        (failed, "items failed", facts["failed"]),
        (sum(without.values()), "responses have no text", without),
        (unscored, "scores missing", facts["unscored"]),
    )
    return [f"{number:,} {what}{because(reasons)}" for number, what, reasons in shortages if number]


def because(reasons: Mapping[str, int], most: int = 3) -> str:
    """Return the `most` commonest of `reasons`, which are counted, in words after a colon; empty where none is."""
    ordered = sorted(reasons.items(), key=lambda entry: -entry[1])[:most]
    words = "; ".join(f"{number:,} × {reason or 'no reason given'}" for reason, number in ordered)
    others = f" and {len(reasons) - most} other reasons" if len(reasons) > most else ""
    return f": {words}{others}" if words else ""
