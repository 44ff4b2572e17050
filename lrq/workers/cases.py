"""An item as its recipe sees it, from the ledger."""

from collections.abc import MutableMapping
from dataclasses import replace
from typing import Any

import sqlalchemy as sa

from lrq.domain.records import Item, Response, Role
from lrq.ledger import Transaction
from lrq.ledger import items as items_
from lrq.recipes import Case
from lrq.run_config import RunConfig


def load_case(
    tx: Transaction,
    frozen: RunConfig,
    item: int,
    round_: int,
    *,
    step: str = "",
    with_scores: bool = False,
    documents: MutableMapping[str, Item] | None = None,
) -> tuple[sa.Row[Any], Case]:
    """Return an item's row, and all that is known of it in a round; `step` names whose configuration holds.

    Its context is shared with those of `documents`, named by its hash.

    Prompts that were never sampled, because the item brings its responses, are the first that the recipe makes.
    """
    row, content = items_.load_item(tx, item, documents)
    case = frozen.case(
        content,
        step=step,
        prompts=items_.load_prompts(tx, item, round_),
        responses=items_.load_responses(tx, item, round_),
        scores=items_.load_scores(tx, item, round_) if with_scores else (),
    )
    return row, case


_MOST_PHASES = 8  # of prompts that are made from the answers to earlier ones


def roles_asked(frozen: RunConfig, case: Case) -> set[Role]:
    """Return who is asked the prompts of an item that are not answered yet, by playing them with stand-in answers."""
    roles: set[Role] = set()
    for _ in range(_MOST_PHASES):
        first = len(case.prompts)
        prompts = frozen.recipe.prompts(case)
        if not prompts:
            break
        roles |= {prompt.by for prompt in prompts}
        answers = [
            Response(text=prompt.typical or f"Text {n}.", k=0, prompt=n) for n, prompt in enumerate(prompts, first)
        ]
        case = replace(case, prompts=(*case.prompts, *prompts), responses=(*case.responses, *answers))
    return roles
