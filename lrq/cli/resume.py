"""lrq resume: go on with a run, and repair it."""

import os
from collections.abc import Mapping
from typing import Any

import click
import orjson

from lrq.cli.common import json_option, settings_options
from lrq.cli.progress import process_options, work_on
from lrq.cli.terminal import echo
from lrq.config import OVERRIDES, Settings, load_settings
from lrq.domain.errors import UsageError
from lrq.domain.printable import one_line
from lrq.ledger import backlog, intakes, open_ledger
from lrq.ledger import runs as runs_
from lrq.ledger.transaction import SETTLING
from lrq.recipes import load_recipe
from lrq.run_config import load_run_config, named, snapshot_config


@click.command()
@click.argument("run")
@click.option(
    "--failed", is_flag=True, help="Ask again for what is unscored; restart what failed: items, samplings, trainings."
)
@click.option(
    "--skip", multiple=True, metavar="ITEM", help="Leave an item out: it fails, and costs no more; repeatable."
)
@click.option("--detach", is_flag=True, help="Only mark the work; `lrq up` does it.")
@process_options
@json_option
@settings_options
def resume(
    run: str,
    failed: bool,
    skip: tuple[str, ...],
    detach: bool,
    judges: int,
    samplers: int,
    as_json: bool,
    settings: Settings,
) -> int:
    """Go on with a run that was paused or interrupted; replies that were paid for are never asked again.

    Example: lrq resume my-run --failed
    """
    ledger = open_ledger(settings, create=True)
    with ledger.write() as tx:
        stored = runs_.get_run(tx, run)
        tx.alone(SETTLING)  # the ends of steps lock the same tasks after the run
        backlog.requeue_all(tx, stored.id)
        config = runs_.complete(tx, stored, named(settings))
        _check_flags(run, stored.recipe, config, settings)
        frozen = load_run_config(stored.recipe, config)
        if skip and stored.state == "active":
            raise UsageError(f"run {run!r} is at work: `lrq pause {run}` it before an item is left out")
        for key in dict.fromkeys(skip):
            backlog.leave_out(tx, stored.id, key)
        if stored.state in {"paused", "stopped"}:
            runs_.activate(tx, stored.id)
        if intakes.is_interrupted(tx, stored.id):
            count = sum(runs_.item_states(tx, stored.id).values())
            echo(
                f"the file of run {run} was not read to its end: it goes on with the {count:,} items there are",
                err=True,
            )
        if not intakes.is_read(tx, stored.id):
            runs_.set_ingesting(tx, stored.id, intakes.WHOLE)
        if failed:
            reopened = backlog.reopen_unscored(tx, stored.id, frozen.step_of, frozen.steps)
            trainings = backlog.reopen_trainings(tx, stored.id)
            echo(f"{reopened} items are asked again, {trainings} trainings started again", err=True)
        backlog.advance_run(tx, stored.id, frozen.schedule)
        state = runs_.get_run(tx, run).state
    for key in dict.fromkeys(skip):
        echo(f"item {one_line(key)} is left out", err=True)
    if detach:
        echo(f"run {run} is {state}{'; `lrq up` goes on with it' if state == 'active' else ''}", err=True)
        return 0
    return work_on(ledger, settings, run, judges=judges, samplers=samplers, as_json=as_json)


def _check_flags(name: str, recipe: str, config: Mapping[str, Any], settings: Settings) -> None:
    """Refuse --set where it would change what the run is frozen with. Raises UsageError.

    Limits and prices are no part of that. Settings that a flag did not change are not looked at: a run goes on
    whatever lrq.yaml says by now.
    """
    plain = load_settings(env={name: value for name, value in os.environ.items() if name != OVERRIDES})
    if settings.recipe not in {plain.recipe, recipe}:
        raise UsageError(f"run {name!r} is frozen with recipe {recipe}; --name makes another run with another recipe")
    own_settings = load_recipe(recipe).settings
    shared = {setting: value for setting, value in plain.settings.items() if setting in own_settings}
    before = snapshot_config(plain.model_copy(update={"recipe": recipe, "settings": shared}), train=True)
    flagged_config = snapshot_config(settings.model_copy(update={"recipe": recipe}), train=True)
    flagged = {path for path in runs_.differences(before, flagged_config) if not path.startswith("prices")}
    different = runs_.differences(orjson.loads(orjson.dumps(config)), orjson.loads(orjson.dumps(flagged_config)))
    if refused := sorted(path for path in flagged if any(path.startswith(prefix) for prefix in different)):
        raise UsageError(
            f"run {name!r} is frozen: --set cannot change {', '.join(refused)}; `lrq fork {name} --name NEW` "
            "makes a run with other settings, which finds the replies that still apply"
        )
