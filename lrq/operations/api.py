"""lrq from Python: what `lrq run`, `status` and `export` do, as functions.

import lrq

run = lrq.run("dataset.jsonl", judge={"url": "http://127.0.0.1:8000/v1", "model": "my-judge"}, train=False)
print(run.outcome.end, run.status()["pairs"])
for pair in run.pairs():
    ...
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from lrq.config import OVERRIDES, Settings, load_settings, merge_flags
from lrq.ledger import open_ledger
from lrq.ledger import runs as runs_
from lrq.ledger.runs import Run as StoredRun
from lrq.operations.execute import execute
from lrq.operations.ingest import Intent, ingest
from lrq.operations.pairable import check_pairable, check_run_pairable
from lrq.operations.results import pairs, scores, write_results
from lrq.queue.diagnosis import check_servers
from lrq.reports.facts import run_facts
from lrq.reports.outcome import Outcome, outcome_of
from lrq.run_config import snapshot_config
from lrq.workers.probing import check_policy
from lrq.workers.trainer import check_trainable


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run in a ledger, read anew at every question."""

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)  # as lrq.yaml has them, over its own

    @property
    def outcome(self) -> Outcome:
        """Return how the run ended, and what it did not make: `end` is a word for the end, or for what it waits for."""
        with self._open() as (ledger, _, run):
            return outcome_of(ledger, run)

    def status(self) -> dict[str, Any]:
        """Return what `lrq status RUN --json` tells of the run: items, scores, pairs, calls, money, trainings."""
        with self._open() as (ledger, _, run):
            return run_facts(ledger, run)

    def pairs(self, form: str = "trl") -> Iterator[dict[str, Any]]:
        """Yield the run's rows as `lrq export RUN` writes them; `form` is trl, longreward or llama-factory."""
        with self._open() as (ledger, _, run):
            yield from pairs(ledger, run, form)

    def scores(self) -> Iterator[dict[str, Any]]:
        """Yield a line for each response: its scores and reward, or the reasons why there are none.

        Each is `{"id", "response", "answer", "scores", "reward", "reasons"}`, in the order of items and responses; a
        score that is no value is None, and `reasons` says why. A run of several rounds adds `round`, from 0.
        """
        with self._open() as (ledger, _, run):
            yield from scores(ledger, run)

    @contextmanager
    def _open(self) -> Iterator[tuple[Any, Settings, StoredRun]]:
        with _settings(self.settings) as settings:
            ledger = open_ledger(settings)
        try:
            with ledger.read() as tx:
                stored = runs_.get_run(tx, self.name)
            yield ledger, settings, stored
        finally:
            ledger.close()


def run(
    file: str | Path,
    *,
    name: str | None = None,
    responses: str | Path | None = None,
    train: bool = True,
    scores_only: bool = False,
    max_cost: float | None = None,
    max_tokens: int | None = None,
    judges: int = 1,
    samplers: int = 1,
    **settings: Any,
) -> Run:
    """Work on a dataset from its lines to pairs and, with `train`, to a trained model; returns the run.

    Run it again after any interruption: what was sampled, judged or trained is not done again.

    Args:
        file: the dataset, as `lrq run` takes it.
        name: of the run; by default the file's.
        responses: a second file, of sampled responses.
        train: train a model on the pairs.
        scores_only: go on where no item can make a pair.
        max_cost: where the run stops, in the currency of the prices; needs a known price.
        max_tokens: where the run stops, in tokens of paid calls.
        judges: judge processes that are started.
        samplers: sampler processes that are started.
        settings: as lrq.yaml has them, e.g. judge={"url": …, "model": …}, recipe="sppo", home="/data/lrq".

    Raises:
        UsageError: a file or setting that cannot be used; nothing was paid.
        LrqError: a process that the run needs cannot run here.
        KeyboardInterrupt: after an orderly stop; replies in flight are kept.
    """
    intent = Intent(
        file=str(file),
        name=name,
        responses=None if responses is None else str(responses),
        train=train,
        scores_only=scores_only,
        max_cost=None if max_cost is None else round(max_cost * 1_000_000),
        max_tokens=max_tokens,
    )
    with _settings(settings) as loaded:
        frozen = snapshot_config(loaded, train=train)
        check_trainable(frozen)
        check_servers(loaded)
        check_policy(loaded.home, frozen, is_served=bool(loaded.policy.serve))
        ledger = open_ledger(loaded, create=True)
        try:
            check_pairable(loaded, intent)
            stored = ingest(ledger, loaded, intent, send=False).run
            if not scores_only:
                check_run_pairable(ledger, stored)
            ended = execute(ledger, loaded, stored.name, judges=judges, samplers=samplers)
            if ended.state == "done":
                write_results(ledger, loaded, ended)
        finally:
            ledger.close()
    return Run(name=stored.name, settings=settings)


def open_run(name: str, **settings: Any) -> Run:
    """Return the run `name` of the ledger that `settings` lead to, e.g. home="/data/lrq".

    Raises UsageError where the ledger has none of that name.
    """
    run_ = Run(name=name, settings=settings)
    with run_._open():
        return run_


@contextmanager
def _settings(overrides: Mapping[str, Any]) -> Iterator[Settings]:
    """Enter with the settings, which processes started meanwhile have as well."""
    before = os.environ.get(OVERRIDES)
    merged = merge_flags((), {**orjson.loads(before or "{}"), **overrides})
    os.environ[OVERRIDES] = orjson.dumps(merged, default=str).decode()
    try:
        yield load_settings()
    finally:
        if before is None:
            del os.environ[OVERRIDES]
        else:
            os.environ[OVERRIDES] = before
