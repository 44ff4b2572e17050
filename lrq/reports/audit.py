"""What in a run's rewards cannot be trusted, from the ledger alone: nothing is sent."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from itertools import chain, starmap
from typing import Any

import orjson
import sqlalchemy as sa

from lrq.domain.audit import Judged, against_length, figure, position_figures, separation, share, vote_figures
from lrq.ledger import Ledger, Transaction
from lrq.ledger.items import CUT
from lrq.ledger.runs import Run, score_states
from lrq.ledger.schema import calls, responses, scores
from lrq.reports.labels import label_agreement
from lrq.reports.run_sample import load_lengths, load_rewards, load_values, of_current_round, pages, sample_items


def audit(ledger: Ledger, run: Run) -> dict[str, Any]:
    """Return the figures of the current round as plain data, over at most 2,000 items, spread evenly over the run.

    unscored: scores that failed (not those that do not apply), as a share of a dimension's scores, of all items.
    cut: responses that `max_new_tokens` cut off, as a share of those with a text.
    ties: pairs of responses to one prompt with equal values, as a share of the pairs that have both.
    commonest value: responses with the value that most have, as a share of those that have one.
    reward against length: Spearman's correlation of rewards and characters, as the mean over prompts (of three
        responses or more that differ in both): pairs are made within prompts.
    orders that disagree: pairs of texts compared in both orders with other results, as a share of those pairs.
    first preferred: mean result for the text that was shown first (1 it wins, 0.5 a tie): 0.5 is no liking.
    re-asks: calls after an unreadable reply, as a share of the judge's calls that were bought for these items.
    votes in one order: pairs of responses to one prompt that two votes put in the same order, as a share of those
        that both put in an order.
    agreement with people: labels with the same preference, as a share of the labels and values that prefer one
        (`label_agreement`, of all labels); doubtful where its 95 % interval reaches 0.5.
    """
    with ledger.read() as tx:
        ids, of = sample_items(tx, run)
        values, rewarded, lengths = load_values(tx, ids), load_rewards(tx, ids), load_lengths(tx, ids)
        query = of_current_round(sa.select(sa.func.count()), responses).where(responses.c.finish == CUT)
        query = query.where(responses.c.text.is_not(None))
        cut = sum(tx.execute(query.where(responses.c.item_id.in_(page))).scalar_one() for page in pages(ids))
        states, attempts, judged = _states(tx, run), _attempts(tx, ids), _judged(tx, ids)
    labels = label_agreement(ledger, run)
    parts = [] if labels is None else [("reward", labels), *labels["dimensions"].items()]
    figures = [
        *(share("unscored", name, count["unscored"], count.total()) for name, count in states.items()),
        share("cut", "", cut, len(lengths)),
        *chain.from_iterable(starmap(separation, [*values.items(), ("reward", rewarded)])),
        against_length(rewarded, lengths),
        *position_figures(judged),
        *(share("re-asks", kind, numbers.count(True), len(numbers)) for kind, numbers in attempts.items()),
        *vote_figures(judged),
        *(
            figure("agreement with people", name, part["agree"], part["decided"], low=(part["interval"] or (None,))[0])
            for name, part in parts
        ),
    ]
    return {"run": run.name, "items": len(ids), "of": of, "figures": list(map(asdict, figures))}


def _states(tx: Transaction, run: Run) -> dict[str, Counter[str]]:
    """Count the scores of the whole run by state, by dimension."""
    states: dict[str, Counter[str]] = defaultdict(Counter)
    for row in score_states(tx, run.id):
        states[row.dimension][row.state] = row.number
    return states


def _judged(tx: Transaction, ids: Sequence[int]) -> list[Judged]:
    """Load the evidence that has comparisons or votes."""
    has_any = sa.or_(*(scores.c.evidence.contains(f'"{name}":') for name in ("comparisons", "logits", "votes")))
    names = ("item_id", "prompt", "k", "dimension", "evidence")
    query = of_current_round(sa.select(*(scores.c[name] for name in names)).where(has_any), scores)
    return [
        Judged(response=(item, prompt, k), dimension=dimension, evidence=orjson.loads(text))
        for page in pages(ids)
        for item, prompt, k, dimension, text in tx.execute(query.where(scores.c.item_id.in_(page)))
    ]


def _attempts(tx: Transaction, ids: Sequence[int]) -> dict[str, list[bool]]:
    """Return for each of the judge's calls for these items, by kind, whether it is a re-ask."""
    query = sa.select(calls.c.step, calls.c.kind, calls.c.attempt).where(calls.c.role == "judge")
    kinds: dict[str, list[bool]] = defaultdict(list)
    for page in pages(ids):
        for row in tx.execute(query.where(calls.c.item_id.in_(page))):
            kinds[" · ".join(dict.fromkeys((row.step, row.kind)))].append(row.attempt > 0)
    return dict(sorted(kinds.items()))
