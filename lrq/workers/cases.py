"""An item as its recipe sees it, from the ledger."""

from collections.abc import MutableMapping
from typing import Any

import sqlalchemy as sa

from lrq.domain.records import Item
from lrq.ledger import items as items_
from lrq.recipes import Case
from lrq.run_config import RunConfig


def load_case(
    conn: sa.Connection,
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
    row, content = items_.load_item(conn, item, documents)
    case = frozen.case(
        content,
        step=step,
        prompts=items_.load_prompts(conn, item, round_),
        responses=items_.load_responses(conn, item, round_),
        scores=items_.load_scores(conn, item, round_) if with_scores else (),
    )
    return row, case
