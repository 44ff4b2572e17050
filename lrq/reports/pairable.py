"""Which items of a run can make a pair: a pair needs some scored responses."""

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from lrq.ledger import Ledger
from lrq.ledger.runs import Run
from lrq.ledger.schema import items
from lrq.recipes import load_recipe

SETTING = "min_scored"  # the recipes' setting for it; one without it makes no pairs, or of anything


def responses_needed(config: Mapping[str, Any]) -> int:
    """Return how many responses an item needs for a pair under the frozen `config`; 0: any number will do."""
    settings = config["settings"]
    recipe = load_recipe(config["recipe"])
    if recipe.steps and not recipe.steps_for(settings):
        return 0  # its pairs are made of unscored responses
    return max(2, int(settings[SETTING])) if SETTING in settings else 0


def count_unpairable(ledger: Ledger, run: Run) -> int:
    """Count the run's items that have fewer responses than a pair needs."""
    needed, sampled = responses_needed(run.config), int(run.config["sample"]["responses"])
    count = sa.case((items.c.given > 0, items.c.given), else_=sampled)
    query = sa.select(sa.func.count()).where(items.c.run_id == run.id, count < needed)
    with ledger.read() as tx:
        return int(tx.execute(query).scalar_one())


def count_given(ledger: Ledger, run: Run) -> tuple[int, int]:
    """Return how many items the run has, and the responses of the item that brings most (`0`: none brings any)."""
    query = sa.select(sa.func.count(), sa.func.max(items.c.given)).where(items.c.run_id == run.id)
    with ledger.read() as tx:
        total, most = tx.execute(query).one()
    return int(total), int(most or 0)
