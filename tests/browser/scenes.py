"""A ledger with one run of each kind of evidence, written without a judge; and what makes texts hostile."""

from typing import Any

import orjson

from lrq.calls.replies import encode
from lrq.domain.records import Choice, Item, Reward, Row, Score, Turn
from lrq.ledger import Ledger
from lrq.ledger import items as items_
from lrq.ledger import runs as runs_
from lrq.ledger.schema import calls, metrics, trainings
from lrq.ledger.schema import items as items_table

HOSTILE = """<script>window.hurt = 1</script><img src=x onerror="window.hurt = 2">"""
DOCUMENT = "🚢 The hull of Heron is elm. " * 40 + "The cargo of Sirius is coal. " + "Rain fell on the quay. " * 40
FACT = "The cargo of Sirius is coal."
DIMENSIONS = ("completeness", "faithfulness", "helpfulness")


def add_run(ledger: Ledger, name: str, recipe: str = "longreward") -> int:
    with ledger.write() as tx:
        return runs_.create_run(tx, name, {"recipe": recipe, "settings": {}}).id


def add_call(ledger: Ledger, run: int, item: int, key: str, words: str, **more: Any) -> str:
    row = {"key": key, "run_id": run, "item_id": item, "role": "judge", "endpoint": "judge", "model": "judge-sim"}
    row |= {"state": "done", "owner": "", "reply": encode([Choice(text=words)]), "claimed_at": 1.0, "settled_at": 2.0}
    row |= {"cost": 1500, "latency_ms": 420, "prompt_tokens": 900, "completion_tokens": 20, **more}
    with ledger.write() as tx:
        tx.execute(calls.insert().values(**row))
    return key


def add_item(ledger: Ledger, run: int, name: str, question: str, texts: list[str], document: str = DOCUMENT) -> int:
    with ledger.write() as tx:
        items_.add_items(tx, run, [(1, Item(id=name, context=document, question=question), [])])
        id_ = items_.find_items(tx, name, run)[0].id
        sampled = [{"k": k, "text": text, "reason": "", "tokens": 5, "finish": "stop"} for k, text in enumerate(texts)]
        items_.add_responses(tx, id_, 0, 0, sampled)
        tx.execute(items_table.update().where(items_table.c.id == id_).values(state="done"))
    return int(id_)


def judge(ledger: Ledger, run: int, item: int, rewards: list[float], *evidence: dict[str, Any]) -> None:
    """Score each response alike in all dimensions, with its evidence or the last one's, and pair best with worst."""
    scores = [
        Score(dimension=name, k=k, value=value, evidence=evidence[min(k, len(evidence) - 1)] if evidence else {})
        for k, value in enumerate(rewards)
        for name in DIMENSIONS
    ]
    best, worst = rewards.index(max(rewards)), rewards.index(min(rewards))
    row = Row(turns=(Turn(prompt=0, chosen=(0, best), rejected=(0, worst)),), margin=max(rewards) - min(rewards))
    with ledger.write() as tx:
        items_.add_scores(tx, [(item, 0, score) for score in scores])
        items_.set_rewards(tx, item, 0, [Reward(k=k, value=value) for k, value in enumerate(rewards)])
        items_.set_rows(tx, run, item, 0, [row])


def fill(ledger: Ledger) -> dict[str, int]:
    """Write the runs; return the numbers of the items that tests name."""
    run = add_run(ledger, "journals")
    found = {}
    for n in range(60):
        texts = [f"The cargo of Sirius is coal, says page {n}.", "I cannot tell.", f"It carries timber, page {n}."]
        found[f"ship-{n:02d}"] = id_ = add_item(ledger, run, f"ship-{n:02d}", f"What is cargo number {n}?", texts)
        judge(ledger, run, id_, [9.0 - n / 20, 2.0, 5.0])
    found["evidence"] = _statements(ledger, run)
    found["hostile"] = id_ = add_item(ledger, run, HOSTILE, HOSTILE, [HOSTILE, f"other {HOSTILE}"], HOSTILE * 3)
    key = add_call(ledger, run, id_, "h" * 40, HOSTILE, reason=HOSTILE, model=HOSTILE)
    judge(ledger, run, id_, [8.0, 1.0], {"calls": [key], HOSTILE: HOSTILE, "text": [{"text": HOSTILE, "value": 0.5}]})
    _train(ledger, run)
    found["matrix"] = _tournament(ledger)
    return found


def _statements(ledger: Ledger, run: int) -> int:
    """An item whose one statement rests on a passage of a document that begins with emoji."""
    id_ = add_item(ledger, run, "with-evidence", "What does Sirius carry?", [FACT, "It carries timber and silk."])
    start = DOCUMENT.index(FACT)
    support = add_call(ledger, run, id_, "a" * 40, "The passage says so. [[Fully supported]]", dimension="faithfulness")
    points = add_call(ledger, run, id_, "b" * 40, "- The cargo of Sirius is coal.", kind="extraction")
    statement = {"text": FACT, "passages": [[start, start + len(FACT)]], "value": 1.0, "mark": "Fully supported"}
    evidence = {"calls": [], "statements": [statement | {"calls": [support]}]}
    shared = {"extraction": [{"chunk": [0, 60], "found": True, "calls": [points]}]}
    judge(ledger, run, id_, [9.5, 1.5], evidence | shared, shared)
    return id_


def _tournament(ledger: Ledger) -> int:
    run = add_run(ledger, "pairwise", "sppo")
    id_ = add_item(ledger, run, "match", "Which one?", ["one", "two", "three"])
    matrix = [[0.5, 1.0, 1.0], [0.0, 0.5, 0.5], [0.0, 0.5, 0.5]]
    judge(ledger, run, id_, [0.83, 0.33, 0.34], {"matrix": matrix, "responses": [0, 1, 2]})
    return id_


def _train(ledger: Ledger, run: int) -> None:
    with ledger.write() as tx:
        tx.execute(trainings.insert().values(run_id=run, round=0, window=0, state="done", rows=60, model="model"))
        for step in range(1, 9):
            body = orjson.dumps({"step": step, "loss": 0.7 / step, "margin": step / 4}).decode()
            tx.execute(metrics.insert().values(run_id=run, round=0, window=0, step=step, body=body))
