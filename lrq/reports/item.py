"""An item explained: every score down to the judge's words and the passages it saw."""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import orjson
import sqlalchemy as sa

from lrq.calls.replies import decode_body
from lrq.domain.errors import UsageError
from lrq.domain.records import Item, Score
from lrq.ledger import Ledger, Transaction
from lrq.ledger import items as items_
from lrq.ledger.schema import calls
from lrq.reports.usage import call_keys


def explain(ledger: Ledger, id_: int, round_: int | None = None) -> dict[str, Any]:
    """Return the item, its responses of round `round_`, and what led to each score; plain data.

    `id_` is its number in the ledger. None: its latest round. Raises UsageError where it has no such round.
    """
    with ledger.read() as tx:
        row, item = items_.load_item(tx, id_)
        if round_ is None:
            round_ = int(row.round)
        if round_ > row.round:
            raise UsageError(f"item {item.id!r} has no round {round_}: its latest is {row.round}")
        scores = items_.load_scores(tx, id_, round_)
        words = _words(tx, id_, scores)
        rewards = {(entry.prompt, entry.k): entry for entry in items_.load_rewards(tx, id_, round_)}
        responses = items_.response_rows(tx, id_, round_)
        return {
            "id": item.id,
            "state": row.state,
            "reason": row.reason,
            "round": round_,
            "question": item.question,
            "context_chars": len(item.context),
            "extraction": _extraction(item, scores, words),
            "responses": [
                {
                    "k": entry.k,
                    "prompt": entry.prompt,
                    "text": entry.text,
                    "written": entry.written,
                    "is_cut": entry.finish == items_.CUT,
                    "reason": entry.reason,
                    "reward": _reward(rewards.get((entry.prompt, entry.k))),
                    "scores": [_score(item, s, words) for s in scores if (s.prompt, s.k) == (entry.prompt, entry.k)],
                }
                for entry in responses
            ],
            "rows": [_row(entry) for entry in items_.load_rows(tx, id_, round_)],
            "calls": [dict(call) for call in words.values()],
        }


def _words(tx: Transaction, id_: int, scores: list[Score]) -> dict[str, Mapping[str, Any]]:
    """Return the calls made for the item, and those of others that its scores rest on, by key."""
    keys = {key for score in scores for key in call_keys(score.evidence)}
    rows = tx.execute(sa.select(calls).where((calls.c.item_id == id_) | calls.c.key.in_(keys)).order_by(calls.c.id))
    return {row.key: _call(row) for row in rows}


def _call(row: sa.Row[Any]) -> dict[str, Any]:
    choices = [] if row.reply is None else decode_body(row.reply)[0]
    names = (
        "key", "role", "endpoint", "model", "step", "dimension", "kind", "attempt", "series", "state", "deliveries",
    )  # fmt: skip
    return {
        **{name: getattr(row, name) for name in names},
        "reason": row.reason,
        "reply": [choice.text for choice in choices],
        "reasoning": [choice.reasoning for choice in choices if choice.reasoning],
        "tokens": [row.prompt_tokens, row.completion_tokens],
        "cached_tokens": row.cached_tokens,
        "cost": None if row.cost is None else row.cost / 1e6,
        "seconds": row.latency_ms / 1000,
    }


def _reply(words: Mapping[str, Mapping[str, Any]], keys: list[str]) -> str:
    """Return the judge's words that counted: those of the last attempt."""
    replies = words[keys[-1]]["reply"] if keys and keys[-1] in words else []
    return replies[0] if replies else ""


def _score(item: Item, score: Score, words: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    keys = list(score.evidence.get("calls", ()))
    left_out = ("statements_left_out", "passages_left_out")
    facts = {
        "dimension": score.dimension,
        "state": score.state,
        "value": score.value,
        "reason": score.reason,
        "judge": _reply(words, keys),
        "calls": keys,
        **{name: score.evidence[name] for name in left_out if name in score.evidence},
    }
    if "statements" not in score.evidence:
        return facts
    return facts | {"statements": [_statement(item, statement, words) for statement in score.evidence["statements"]]}


def _statement(item: Item, stored: Mapping[str, Any], words: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    passages = [{"start": start, "end": end, "text": item.context[start:end]} for start, end in stored["passages"]]
    return {**stored, "judge": _reply(words, list(stored["calls"])), "passages": passages}


def _extraction(item: Item, scores: list[Score], words: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return what was extracted from the context; it belongs to the item and stands with each of its scores."""
    parts: list[Any] = next((score.evidence["extraction"] for score in scores if score.evidence.get("extraction")), [])
    return [{**part, "text": _reply(words, list(part["calls"]))} for part in parts]


def _reward(reward: Any) -> dict[str, Any] | None:
    return None if reward is None else {"value": reward.value, "reason": reward.reason}


def _row(stored: sa.Row[Any]) -> dict[str, Any]:
    """Return a training row; `prompt`, `chosen` and `rejected` are its first turn's, where these are responses."""
    row = items_.read_row(stored)
    first = row.turns[0]
    chosen, rejected = ((ref[1] if isinstance(ref, tuple) else ref) for ref in (first.chosen, first.rejected))
    turns = [{"prompt": t.prompt, "chosen": t.chosen, "rejected": t.rejected} for t in row.turns]
    facts = {"prompt": first.prompt, "chosen": chosen, "rejected": rejected, "margin": row.margin}
    return {**facts, "turns": turns, "figures": dict(row.figures)}


# ----- for the viewer


_BULLET = re.compile(r"\s*(?:[-*•]|\d{1,3}[.)、])\s*(?P<point>\S.*)")
_WORD = re.compile(r"[^\W\d_]{4,}|\d+|[A-Z]\w+|[\u3400-\u9fff]{2}")
_MOST_MISSING = 0.75  # share of a point's words that a response has to lack for it to be called missing


def view_item(ledger: Ledger, id_: int) -> dict[str, Any]:
    """Return the item with all evidence as it was stored, of any recipe; plain data.

    What all scores of a dimension and prompt have alike (an extraction, a matrix) stands once, under `shared`. Spans of
    the document that evidence names have their texts in `excerpts`. Calls are named in evidence by their keys.
    """
    facts = explain(ledger, id_)
    with ledger.read() as tx:
        row, item = items_.load_item(tx, id_)
        scores = items_.load_scores(tx, id_, row.round)
        prompts = [items_.pack_prompt(prompt) for prompt in items_.load_prompts(tx, id_, row.round)]
    shared = _shared_evidence(scores)
    evidence = {(entry.prompt, entry.k, entry.dimension): entry.evidence for entry in scores}
    points = [point for part in facts["extraction"] for point in _points(part["text"])]
    for response in facts["responses"]:
        for score in response["scores"]:
            common = shared.get((score["dimension"], response["prompt"]), {})
            complete = evidence[response["prompt"], response["k"], score["dimension"]]
            score["evidence"] = {name: value for name, value in complete.items() if name not in common}
            score.pop("statements", None)
        response["missing_points"] = missing_points(points, response["text"] or "")
    spans = sorted({span for score in scores for span in _spans(score.evidence, len(item.context))})
    return {
        **facts,
        "number": id_,
        "document": row.context_hash,
        "answer": item.answer,
        "fields": dict(item.fields),
        "prompts": prompts,
        "shared": [
            {"dimension": dimension, "prompt": prompt, "evidence": common}
            for (dimension, prompt), common in shared.items()
            if common
        ],
        "excerpts": [{"start": start, "end": end, "text": item.context[start:end]} for start, end in spans],
    }


def _shared_evidence(scores: Sequence[Score]) -> dict[tuple[str, int], dict[str, Any]]:
    """Return the parts of evidence that several scores of a dimension and prompt have alike, by (dimension, prompt)."""
    groups: dict[tuple[str, int], list[Mapping[str, Any]]] = defaultdict(list)
    for score in scores:
        groups[score.dimension, score.prompt].append(score.evidence)
    return {name: _alike(group) for name, group in groups.items() if len(group) > 1}


def _alike(group: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    first, *others = group
    texts = {name: orjson.dumps(value) for name, value in first.items() if isinstance(value, list | Mapping) and value}
    return {
        name: first[name]
        for name, text in texts.items()
        if all(name in sibling and orjson.dumps(sibling[name]) == text for sibling in others) and name != "calls"
    }


def _spans(evidence: Any, length: int) -> Iterator[tuple[int, int]]:
    """Yield the spans of the document that evidence names: `passages`, `spans`, `chunk`, `span`, however deep."""
    if isinstance(evidence, Mapping):
        for name, value in evidence.items():
            if name in {"passages", "spans", "chunk", "span"}:
                yield from ((a, b) for a, b in _pairs(value) if 0 <= a < b <= length)
            else:
                yield from _spans(value, length)
    elif isinstance(evidence, list):
        for value in evidence:
            yield from _spans(value, length)


def _pairs(value: Any) -> Iterator[tuple[int, int]]:
    if isinstance(value, list) and len(value) == 2 and all(isinstance(n, int) for n in value):
        yield value[0], value[1]
    elif isinstance(value, list):
        for pair in value:
            yield from _pairs(pair)


def _points(text: str) -> list[str]:
    """Return the points of an extraction, one a line."""
    return [match["point"].strip() for match in map(_BULLET.fullmatch, text.splitlines()) if match]


def missing_points(points: Iterable[str], text: str) -> list[str]:
    """Return those of `points` of which `text` has hardly a word. Told by words alone; the judge names none."""
    lowered = text.lower()
    return [point for point in points if _lacking(point, lowered) >= _MOST_MISSING]


def _lacking(point: str, lowered: str) -> float:
    words = {word.lower() for word in _WORD.findall(point)}
    return sum(word not in lowered for word in words) / len(words) if words else 0.0


def document_part(ledger: Ledger, id_: int, start: int, end: int) -> dict[str, Any]:
    """Return the document of item `id_` from `start` to `end`, in characters, and its length; bounds are clamped."""
    with ledger.read() as tx:
        _, item = items_.load_item(tx, id_)
    start = max(0, min(start, len(item.context)))
    return {"start": start, "length": len(item.context), "text": item.context[start : max(start, end)]}
