"""What the page may change of runs and limits, each kept with its author and reason."""

import math
from collections.abc import Mapping
from typing import Any

from lrq.domain.errors import LrqError, UsageError
from lrq.ledger import Ledger, Transaction, backlog
from lrq.ledger import runs as runs_
from lrq.ledger.changes import LIMITS, Change, add_change, set_limits
from lrq.ledger.runs import Run
from lrq.ledger.transaction import SETTLING
from lrq.run_config import load_run_config

_MOST = 2**31 - 1  # what a limit's column holds


def change(ledger: Ledger, who: str, asked: Mapping[str, Any]) -> str:
    """Do what a page asks for; returns what was done, in one line.

    Args:
        who: the author.
        asked: `what` is pause, resume or budget of a `run`, or limits of a `lane`; `reason` says why.

    Raises UsageError for what cannot be done.
    """
    what, reason = str(asked.get("what", "")), str(asked.get("reason") or "").strip()[:500]
    if not reason:
        raise UsageError("say why: the reason is kept")
    with ledger.write() as tx:
        if what == "limits":
            return _change_limits(tx, who, reason, asked)
        if what not in _OF_RUN:
            raise UsageError(f"{what!r} is none of pause, resume, budget and limits")
        run = runs_.get_run(tx, str(asked.get("run", "")))
        words, values = _OF_RUN[what](tx, run, who, reason, asked)
        add_change(tx, Change(who=who, what=what, subject=run.name, reason=reason, values=values))
        return words


def _pause(
    tx: Transaction, run: Run, who: str, reason: str, _asked: Mapping[str, Any]
) -> tuple[str, Mapping[str, Any]]:
    if not runs_.halt(tx, run.id, state="paused", by="user", reason=f"paused by {who}: {reason}"):
        raise UsageError(f"run {run.name} is {run.state} already")
    return f"run {run.name} is paused; calls in flight are kept", {}


def _resume(
    tx: Transaction, run: Run, _who: str, _reason: str, _asked: Mapping[str, Any]
) -> tuple[str, Mapping[str, Any]]:
    if run.state not in {"paused", "stopped"}:
        raise UsageError(f"run {run.name} is {run.state}: only a paused run resumes")
    tx.alone(SETTLING)  # the ends of steps lock the same tasks after the run
    backlog.requeue_all(tx, run.id)
    runs_.activate(tx, run.id)
    backlog.advance_run(tx, run.id, load_run_config(run.recipe, run.config).schedule)
    return f"run {run.name} resumes with the workers that are up", {"was": run.reason}


def _set_budget(
    tx: Transaction, run: Run, _who: str, _reason: str, asked: Mapping[str, Any]
) -> tuple[str, Mapping[str, Any]]:
    cost = _amount(asked.get("max_cost"), "money", float)
    tokens = _amount(asked.get("max_tokens"), "tokens", int)
    try:
        runs_.set_budget(tx, run.id, max_cost=None if cost is None else round(cost * 1e6), max_tokens=tokens)
    except LrqError as error:
        raise UsageError(str(error)) from None
    backlog.advance_run(tx, run.id, load_run_config(run.recipe, run.config).schedule)
    values = {name: value for name, value in (("max_cost", cost), ("max_tokens", tokens)) if value is not None}
    return f"the budget of run {run.name} is changed", values


def _change_limits(tx: Transaction, who: str, reason: str, asked: Mapping[str, Any]) -> str:
    lane = str(asked.get("lane", ""))[:300]
    values = {name: _amount(asked[name], name, int) for name in LIMITS if name in asked}
    if not lane or not values:
        raise UsageError(f"name a lane and the limits to change: {', '.join(LIMITS)}")
    set_limits(tx, lane, values)
    add_change(tx, Change(who=who, what="limits", subject=lane, reason=reason, values=values))
    return f"the limits of {lane} hold in all processes within {WITHIN} s"


WITHIN = 10  # seconds: workers read the limits every five
_OF_RUN = {"pause": _pause, "resume": _resume, "budget": _set_budget}


def _amount(given: Any, what: str, kind: type[float] | type[int]) -> Any:
    """Read a positive number; None where nothing was given. Raises UsageError."""
    if given is None or given == "":
        return None
    try:
        value = kind(given)
    except (TypeError, ValueError, OverflowError):
        raise UsageError(f"{given!r} is no number of {what}") from None
    if not (math.isfinite(value) and 0 < value <= _MOST):
        raise UsageError(f"{what}: a number above 0 and at most {_MOST:,}")
    return value
