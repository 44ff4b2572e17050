"""What people are asked to label, and how far rewards agree with what they chose."""

import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from itertools import combinations
from operator import attrgetter
from typing import Any

from lrq.domain.agreement import wilson_interval
from lrq.ledger import Ledger, Transaction
from lrq.ledger import items as items_
from lrq.ledger.labels import labels_of
from lrq.ledger.runs import Run
from lrq.reports.run_sample import sample_items

SAMPLE = 500  # items from which pairs are drawn: all pairs of their responses are weighed
_PER_ITEM = 3  # pairs of one item, so that labels come from many documents
_SIGN = {"left": 1, "right": -1}


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """Two responses of a prompt that a person may compare."""

    item: int
    prompt: int
    pair: tuple[int, int]  # k
    information: float  # what a label is worth: 1 − margin over the run's widest, plus the share of contrary dimensions


def label_candidates(ledger: Ledger, run: Run) -> list[Candidate]:
    """Return the pairs that are worth a label, the most informative first; equal texts make none."""
    with ledger.read() as tx:
        ids, _ = sample_items(tx, run, SAMPLE)
        judged = [(id_, *_judged(tx, id_, run.round)) for id_ in ids]
    widest = max((max(r.values()) - min(r.values()) for _, r, _, _ in judged if r), default=0.0) or 1.0
    candidates: list[Candidate] = []
    for id_, rewards, values, texts in judged:
        pairs = (pair for pair in combinations(sorted(rewards), 2) if pair[0][0] == pair[1][0])
        weighed = [
            Candidate(item=id_, prompt=a[0], pair=(a[1], b[1]), information=_information(a, b, rewards, values, widest))
            for a, b in pairs
            if texts[a] != texts[b]
        ]
        candidates += sorted(weighed, key=lambda candidate: -candidate.information)[:_PER_ITEM]
    return sorted(candidates, key=lambda candidate: (-candidate.information, candidate.item, candidate.pair))


_Ref = tuple[int, int]


def _judged(
    tx: Transaction, id_: int, round_: int
) -> tuple[dict[_Ref, float], dict[_Ref, dict[str, float]], dict[_Ref, str]]:
    """Rewards, values by dimension, and texts of an item's responses."""
    values: dict[_Ref, dict[str, float]] = defaultdict(dict)
    for score in items_.load_scores(tx, id_, round_):
        if score.value is not None:
            values[score.prompt, score.k][score.dimension] = score.value
    texts = {(entry.prompt, entry.k): entry.text for entry in items_.load_responses(tx, id_, round_)}
    stored = ((entry.prompt, entry.k, entry.value) for entry in items_.load_rewards(tx, id_, round_))
    return {(p, k): value for p, k, value in stored if value is not None and (p, k) in texts}, values, texts


def _information(
    a: _Ref, b: _Ref, rewards: Mapping[_Ref, float], values: Mapping[_Ref, Mapping[str, float]], widest: float
) -> float:
    margin = rewards[a] - rewards[b]
    shared = [name for name in values[a] if name in values[b]]
    contrary = sum((values[a][name] - values[b][name]) * margin < 0 for name in shared)
    return 1 - abs(margin) / widest + (contrary / len(shared) if shared else 0.0)


def next_pair(
    ledger: Ledger, run: Run, candidates: Sequence[Candidate], who: str, skipped: Sequence[str] = ()
) -> dict[str, Any]:
    """Return the first pair that `who` has neither labelled nor skipped, sides drawn at random.

    `skipped` are names of pairs, as this returns them. `pair` is None where there is none left.
    """
    with ledger.read() as tx:
        labelled = {_name(row.item_id, row.prompt, (row.left, row.right)) for row in labels_of(tx, run.id, who=who)}
        passed = labelled | set(skipped)
        remaining = [pair for pair in candidates if _name(pair.item, pair.prompt, pair.pair) not in passed]
        facts = {"who": who, "labelled": len(labelled), "left": len(remaining), "pair": None}
        return facts | {"pair": _shown(tx, run, remaining[0])} if remaining else facts


def _name(item: int, prompt: int, pair: tuple[int, int]) -> str:
    return f"{item}.{prompt}.{min(pair)}.{max(pair)}"


def _shown(tx: Transaction, run: Run, candidate: Candidate) -> dict[str, Any]:
    row, item = items_.load_item(tx, candidate.item)
    texts = {(r.prompt, r.k): r.text for r in items_.load_responses(tx, candidate.item, run.round)}
    left, right = random.sample(candidate.pair, 2)
    return {
        "name": _name(candidate.item, candidate.prompt, candidate.pair),
        "item": candidate.item,
        "id": item.id,
        "round": row.round,
        "prompt": candidate.prompt,
        "question": item.question,
        "context_chars": len(item.context),
        "left": {"k": left, "text": texts[candidate.prompt, left]},
        "right": {"k": right, "text": texts[candidate.prompt, right]},
    }


# ----- what was labelled


def label_lines(ledger: Ledger, run: Run) -> Iterator[dict[str, Any]]:
    """Yield one line per label, in the order they were given, with the texts and rewards of both responses."""
    with ledger.read() as tx:
        labels = labels_of(tx, run.id)
    for row in labels:
        with ledger.read() as tx:
            rewards, _, _ = _judged(tx, row.item_id, row.round)
            texts = {(r.prompt, r.k): r.text for r in items_.load_responses(tx, row.item_id, row.round)}
        left, right = (row.prompt, row.left), (row.prompt, row.right)
        yield {
            "id": row.key,
            "round": row.round,
            "prompt": row.prompt,
            "left": row.left,
            "right": row.right,
            "choice": row.choice,
            "who": row.who,
            "at": datetime.fromtimestamp(row.at, UTC).isoformat(timespec="seconds"),
            "left_answer": texts.get(left),
            "right_answer": texts.get(right),
            "left_reward": rewards.get(left),
            "right_reward": rewards.get(right),
        }


@dataclass(frozen=True, kw_only=True)
class _Compared:
    """A label beside what the run says of the same two responses; differences are left minus right."""

    who: str
    choice: str
    winner: int | None  # k; None: a tie
    pair: str
    reward: float | None
    dimensions: Mapping[str, float]


def label_agreement(ledger: Ledger, run: Run) -> dict[str, Any] | None:
    """Return how often rewards prefer what people prefer; None where nobody has labelled.

    Ties of people and equal rewards decide nothing and are counted apart. `by_margin` has the decided labels in three
    parts of equal size by their difference of rewards: pairs were chosen for being close, so the whole is no estimate
    for other pairs.
    """
    compared = list(_compared(ledger, run))
    if not compared:
        return None
    sided = [label for label in compared if label.choice in _SIGN]
    decided = [label for label in sided if label.reward]
    by_margin = sorted(decided, key=lambda label: abs(label.reward or 0.0))
    thirds = [by_margin[n * len(by_margin) // 3 : (n + 1) * len(by_margin) // 3] for n in range(3)]
    people = sorted({label.who for label in compared})
    names = sorted({name for label in compared for name in label.dimensions})
    of_reward = attrgetter("reward")
    return {
        "labels": len(compared),
        "ties": sum(label.choice == "tie" for label in compared),
        "undecided": len(sided) - len(decided),  # rewards are equal, or there is none
        **_share(decided, of_reward),
        "by_margin": [_part(third) for third in thirds if third],
        "dimensions": {name: _share(sided, partial(_difference, name)) for name in names},
        "people": {who: _share([label for label in decided if label.who == who], of_reward) for who in people},
        "between_people": _between(compared),
        "left_chosen": sum(label.choice == "left" for label in sided) / len(sided) if sided else None,
    }


def _compared(ledger: Ledger, run: Run) -> Iterator[_Compared]:
    with ledger.read() as tx:
        for row in labels_of(tx, run.id):
            rewards, values, _ = _judged(tx, row.item_id, row.round)
            left, right = (row.prompt, row.left), (row.prompt, row.right)
            differences = {n: v - values[right][n] for n, v in values[left].items() if n in values[right]}
            is_known = left in rewards and right in rewards
            yield _Compared(
                who=row.who,
                choice=row.choice,
                winner={"left": row.left, "right": row.right}.get(row.choice),
                pair=_name(row.item_id, row.prompt, (row.left, row.right)),
                reward=rewards[left] - rewards[right] if is_known else None,
                dimensions=differences,
            )


def _share(compared: Sequence[_Compared], difference: Callable[[_Compared], float | None]) -> dict[str, Any]:
    """Count the labels that are decided by a difference that is not 0, and those that agree, with a 95 % interval."""
    signs = [(_SIGN[label.choice], value) for label in compared if (value := difference(label))]
    agreeing = sum(sign * value > 0 for sign, value in signs)
    if not signs:
        return {"decided": 0, "agree": None, "interval": None}
    return {"decided": len(signs), "agree": agreeing / len(signs), "interval": wilson_interval(agreeing, len(signs))}


def _difference(dimension: str, label: _Compared) -> float | None:
    return label.dimensions.get(dimension)


def _part(third: Sequence[_Compared]) -> dict[str, Any]:
    margins = [abs(label.reward or 0.0) for label in third]
    return {"low": min(margins), "high": max(margins), **_share(third, attrgetter("reward"))}


def _between(compared: Sequence[_Compared]) -> dict[str, Any]:
    """Count how often two people who saw the same pair chose alike."""
    by_pair: dict[str, list[_Compared]] = defaultdict(list)
    for label in compared:
        by_pair[label.pair].append(label)
    couples = [two for group in by_pair.values() for two in combinations(group, 2) if two[0].who != two[1].who]
    return {
        "pairs": len(couples),
        "agree": sum(a.winner == b.winner for a, b in couples) / len(couples) if couples else None,
    }
