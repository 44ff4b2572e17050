"""The backlog: which work is open, what goes out next, who works on it, and what an ended task brings about.

A task's row lives from the start of its work to its end: ready → sent → running → deleted. Ending it is deleting it:
whoever deletes the row has the right to write the effects, so a task that is delivered twice has its effects once.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import sqlalchemy as sa

from lrq.config import TrainSchedule
from lrq.domain.errors import UsageError
from lrq.domain.records import NOT_FINITE, UNFINISHED_THOUGHT, UNRENDERABLE, NoRow, Reward, Row
from lrq.ledger import items as items_
from lrq.ledger.depth import covered, stop_short
from lrq.ledger.processes import is_dead
from lrq.ledger.schema import items, responses, rows, runs, scores, tasks, trainings
from lrq.ledger.transaction import Transaction

# Why there is no response: it would be so again.
_NO_OTHER_TRY = ("empty", "over_long", "content_filter", NOT_FINITE, UNFINISHED_THOUGHT, UNRENDERABLE)
LEFT_OUT = "left out by the user"  # the reason of an item that is not tried again
_TRIES = 3  # deliveries that may end in an unforeseen error before the item is set to failed


@dataclass(frozen=True, kw_only=True)
class Task:
    id: int
    run: int
    item: int  # 0: the whole run
    round: int
    name: str  # sample, a step's name, aggregate, train.<window>
    queue: str
    delivery: int


_CLAIM = (
    tasks.update()
    .where(tasks.c.id == sa.bindparam("task"), tasks.c.delivery == sa.bindparam("sent_as"), tasks.c.state == "sent")
    .values(state="running", owner=sa.bindparam("by"))
    .returning(tasks)
)


@dataclass(frozen=True, kw_only=True)
class ClaimTask:
    """Begin the work that a message names; None where it is not due: ended, begun already, or sent once more since."""

    is_free: ClassVar[bool] = True
    task: int
    delivery: int
    owner: str  # id of the process, as in `processes`

    @classmethod
    def apply(cls, tx: Transaction, writes: "Sequence[ClaimTask]") -> "Sequence[Task | None]":
        claimed: dict[ClaimTask, Task | None] = {}
        for write in sorted(writes, key=lambda write: write.task):
            parameters = {"task": write.task, "sent_as": write.delivery, "by": write.owner}
            row = tx.execute(_CLAIM, parameters).one_or_none()
            claimed.setdefault(write, None if row is None else _task(row))
        return [claimed.pop(write, None) for write in writes]


def release_task(tx: Transaction, id_: int, delivery: int, owner: str) -> None:
    """Give up work that was claimed, so that it goes out again; nothing where it is no longer this process's."""
    claimed = tasks.c.id == id_, tasks.c.delivery == delivery, tasks.c.owner == owner
    tx.execute(tasks.update().where(*claimed, tasks.c.state == "running").values(state="ready", owner=""))


def release_dead_tasks(tx: Transaction) -> int:
    """Have the tasks of processes that have ended go out again; return how many."""
    owners = tx.execute(sa.select(tasks.c.owner).where(tasks.c.state == "running").distinct()).scalars().all()
    dead = [owner for owner in owners if is_dead(tx, owner)]
    free = tasks.update().where(tasks.c.state == "running", tasks.c.owner.in_(dead)).values(state="ready", owner="")
    return tx.execute(free).rowcount if dead else 0


def _task(row: sa.Row[Any]) -> Task:
    return Task(
        id=row.id,
        run=row.run_id,
        item=row.item_id,
        round=row.round,
        name=row.name,
        queue=row.queue,
        delivery=row.delivery,
    )


@dataclass(frozen=True, kw_only=True)
class Window:
    """How much of one run may be open: as little as keeps its workers busy, so that what is begun soon ends."""

    tasks: int  # of judging; and of each other queue the messages that are out
    sampling: int  # items


def has_dispatchable_work(tx: Transaction, run: int, window: Window) -> bool:
    """Tell whether the run has work that could go out now; a read that costs the same for any size of run."""
    ready = sa.select(tasks.c.id).where(tasks.c.run_id == run, tasks.c.state == "ready").limit(1)
    return tx.execute(ready).first() is not None or any(_startable(tx, run, 1, window).values())


_JUDGING = tasks.c.queue.startswith("judge")


def _startable(tx: Transaction, run: int, steps: int, window: Window) -> dict[str, list[int]]:
    """Items that may be started now, by their state; each that is judged opens so many steps."""
    sampled = sa.select(items.c.id).where(items.c.run_id == run, items.c.state == "sampling")
    judged = sa.select(tasks.c.id).where(tasks.c.run_id == run, _JUDGING)
    rooms = {
        "unsampled": window.sampling - _counted(tx, sampled, window.sampling),
        "unjudged": -(-(window.tasks - _counted(tx, judged, window.tasks)) // max(1, steps)),
    }
    startable = {}
    for state, room in rooms.items():
        query = sa.select(items.c.id).where(items.c.run_id == run, items.c.state == state).order_by(items.c.id)
        startable[state] = list(tx.execute(query.limit(room)).scalars()) if room > 0 else []
    return startable


def _counted(tx: Transaction, query: sa.Select[Any], most: int) -> int:
    return int(tx.execute(sa.select(sa.func.count()).select_from(query.limit(most).subquery())).scalar_one())


def start_items(tx: Transaction, run: int, steps: Mapping[str, str], window: Window) -> None:
    """Start as many items as the window has room for, and the run's budget. `steps`: name of each → its queue."""
    startable = _startable(tx, run, len(steps), window)
    waiting = [id_ for ids in startable.values() for id_ in ids]
    chosen = covered(tx, run, waiting)
    as_they_are = sa.select(items.c.id, items.c.state).where(items.c.id.in_(chosen))
    states = {row.id: row.state for row in tx.execute(as_they_are)}
    for id_ in chosen:
        if states[id_] == "unsampled":
            _open_tasks(tx, run, id_, {"sample": "sample"}, was="unsampled", state="sampling")
        else:
            _start_judging(tx, run, id_, steps, was="unjudged")
    if waiting and not chosen:
        stop_short(tx, run)


def _start_judging(tx: Transaction, run: int, item: int, steps: Mapping[str, str], *, was: str) -> None:
    """Open the item's steps; an item with no response to judge, or a recipe without steps, goes on to aggregate."""
    texts = sa.select(responses.c.id).join(items, items.c.id == responses.c.item_id)
    texts = texts.where(items.c.id == item, responses.c.round == items.c.round, responses.c.text.is_not(None))
    if steps and tx.execute(texts.limit(1)).first() is not None:
        _open_tasks(tx, run, item, steps, was=was, state="judging")
    else:
        _open_tasks(tx, run, item, {"aggregate": "aggregate"}, was=was, state="aggregating")


def _open_tasks(tx: Transaction, run: int, item: int, names: Mapping[str, str], *, was: str, state: str) -> None:
    """Open an item's tasks; nothing where its state is no longer what it was: somebody else has opened them."""
    update = items.update().where(items.c.id == item, items.c.state == was)
    moved = tx.execute(update.values(state=state, open_steps=len(names)).returning(items.c.round)).one_or_none()
    if moved is None:
        return
    round_ = moved.round
    opened = [
        {"run_id": run, "item_id": item, "round": round_, "name": name, "queue": queue, "state": "ready"}
        for name, queue in names.items()
    ]
    tx.execute(tx.insert(tasks).on_conflict_do_nothing(), opened)


def take_ready(tx: Transaction, run: int, window: Window) -> list[Task]:
    """Mark as sent what the window has room for, oldest first, and return it for sending."""
    in_queue = sa.select(tasks.c.queue, tasks.c.state, sa.func.count().label("number")).where(tasks.c.run_id == run)
    counts = {(row.queue, row.state): row.number for row in tx.execute(in_queue.group_by(tasks.c.queue, tasks.c.state))}
    ready = sorted({queue for queue, state in counts if state == "ready"})
    judging = sum(number for (queue, state), number in counts.items() if state != "ready" and _is_judging(queue))
    ids = _oldest(tx, run, [queue for queue in ready if _is_judging(queue)], window.tasks - judging)
    for queue in (queue for queue in ready if not _is_judging(queue)):
        most = window.sampling if queue == "sample" else window.tasks
        out = counts.get((queue, "sent"), 0) + counts.get((queue, "running"), 0)
        ids += _oldest(tx, run, [queue], most - out)
    return _mark_sent(tx, ids) if ids else []


def _is_judging(queue: str) -> bool:
    return queue.startswith("judge")


def _oldest(tx: Transaction, run: int, queues: Sequence[str], room: int) -> list[int]:
    """Return the first tasks that are ready in any of these queues; each is read in the order of an index."""
    ids: list[int] = []
    for queue in queues if room > 0 else ():
        ready = sa.select(tasks.c.id).where(tasks.c.run_id == run, tasks.c.queue == queue, tasks.c.state == "ready")
        free = ready.order_by(tasks.c.id).limit(room).with_for_update(key_share=True, skip_locked=True)
        ids += tx.execute(free).scalars()
    return sorted(ids)[:room]


def _mark_sent(tx: Transaction, ids: Sequence[int]) -> list[Task]:
    mark = tasks.update().where(tasks.c.id.in_(ids), tasks.c.state == "ready")
    mark = mark.values(state="sent", delivery=tasks.c.delivery + 1, sent_at=tx.now()).returning(tasks)
    return sorted((_task(row) for row in tx.execute(mark)), key=lambda task: task.id)


def waiting_tasks(tx: Transaction, older_than: float) -> dict[str, list[tuple[int, int]]]:
    """Return queue → (id, delivery) of the tasks whose messages should wait in it, the oldest message first.

    older_than: seconds since their sending; those of the future too, for the clock was set back since then.
    """
    now = tx.now()
    old = sa.or_(tasks.c.sent_at < now - older_than, tasks.c.sent_at > now + older_than)
    query = sa.select(tasks.c.queue, tasks.c.id, tasks.c.delivery).where(tasks.c.state == "sent", old)
    waiting: dict[str, list[tuple[int, int]]] = {}
    for row in tx.execute(query.order_by(tasks.c.sent_at, tasks.c.id)):
        waiting.setdefault(row.queue, []).append((row.id, row.delivery))
    return waiting


def requeue(tx: Transaction, ids: Sequence[int]) -> None:
    """Have tasks go out again whose messages are lost, or never were sent."""
    tx.execute(tasks.update().where(tasks.c.id.in_(ids), tasks.c.state == "sent").values(state="ready"))


def reroute(tx: Transaction, run: int, queues: Sequence[str], route: Callable[[str], str]) -> None:
    """Give the run's ready tasks that are for none of these queues the one that `route` names for them."""
    lost = tasks.c.run_id == run, tasks.c.queue.not_in(queues), tasks.c.state == "ready"
    for name in tx.execute(sa.select(tasks.c.name).where(*lost).distinct()).scalars().all():
        tx.execute(tasks.update().where(*lost, tasks.c.name == name).values(queue=route(name)))


def requeue_all(tx: Transaction, run: int) -> None:
    """Have every task of a run that nobody works on sent again, wherever its message may be."""
    tx.execute(tasks.update().where(tasks.c.run_id == run, tasks.c.state == "sent").values(state="ready"))


def first_unsampled(tx: Transaction, run: int, count: int) -> list[int]:
    """Return the first items, at most so many, whose prompts are not all answered."""
    states = items.c.state.in_(("unsampled", "sampling"))
    query = sa.select(items.c.id).where(items.c.run_id == run, states).order_by(items.c.id).limit(count)
    return list(tx.execute(query).scalars())


def _end(tx: Transaction, task: Task) -> bool:
    """End the task; False when another delivery has done so, and the effects are not ours to write."""
    return tx.execute(tasks.delete().where(tasks.c.id == task.id)).rowcount == 1


def end_sample(tx: Transaction, task: Task, steps: Mapping[str, str]) -> bool:
    """End the sampling of an item, whose responses were added in the same transaction."""
    if not _end(tx, task):
        return False
    _start_judging(tx, task.run, task.item, steps, was="sampling")
    return True


def end_aggregate(tx: Transaction, task: Task, found: Sequence[Reward], made: Sequence[Row | NoRow]) -> bool:
    """Rewards and rows of an item: its end in this round."""
    if not _end(tx, task):
        return False
    items_.set_rewards(tx, task.item, task.round, found)
    items_.set_rows(tx, task.run, task.item, task.round, made)
    _end_item(tx, task, "done", "; ".join(row.reason for row in made if isinstance(row, NoRow)))
    return True


def fail_task(tx: Transaction, task: Task, reason: str) -> None:
    """Record an unforeseen error: the task is tried a few times, then its item is failed with the reason."""
    delivered = tasks.c.id == task.id, tasks.c.delivery == task.delivery  # else another process works on it by now
    again = tasks.update().where(*delivered)
    again = again.values(failures=tasks.c.failures + 1, state="ready", owner="", reason=reason)
    failures = tx.execute(again.returning(tasks.c.failures)).scalar()
    if failures is None or failures < _TRIES:
        return
    if task.item:
        tx.execute(tasks.delete().where(tasks.c.item_id == task.item, tasks.c.run_id == task.run))
        _end_item(tx, task, "failed", reason)
    else:
        _end(tx, task)
        set_training(tx, task, state="failed", reason=reason, ended_at=tx.now())


def leave_out(tx: Transaction, run: int, key: str) -> None:
    """End an item as failed, for its user does not want it any more. Raises UsageError where it cannot be.

    Nobody may be at work on the run.
    """
    query = sa.select(items.c.id, items.c.state).where(items.c.run_id == run, items.c.key == key)
    row = tx.execute(query.with_for_update(key_share=True)).one_or_none()
    if row is None:
        raise UsageError(f"the run has no item {key!r}; `lrq status RUN --failed` and the pause's reason name them")
    if row.state == "done":
        raise UsageError(f"item {key!r} is done: there is nothing to leave out")
    tx.execute(tasks.delete().where(tasks.c.item_id == row.id, tasks.c.run_id == run))
    tx.execute(items.update().where(items.c.id == row.id).values(state="failed", reason=LEFT_OUT))
    if row.state != "failed":
        tx.execute(runs.update().where(runs.c.id == run).values(open_items=runs.c.open_items - 1))


def _end_item(tx: Transaction, task: Task, state: str, reason: str) -> None:
    tx.execute(items.update().where(items.c.id == task.item).values(state=state, reason=reason[:1000]))
    tx.execute(runs.update().where(runs.c.id == task.run).values(open_items=runs.c.open_items - 1))


def advance_run(tx: Transaction, run: int, schedule: TrainSchedule | None) -> None:
    """After the end of a task: open the trainings that are due; with neither open items nor tasks a round is done.

    The run's row is locked: of two ends at once the second sees what the first has done.

    schedule: None for a run that is not trained.
    """
    locked = sa.select(runs).where(runs.c.id == run).with_for_update(key_share=True)
    row = tx.execute(locked).one()
    at_end = row.open_items == 0 and row.ingesting == 0
    if not ((schedule and schedule.every_rows) or at_end):
        return  # at once: judges wait for the run's row
    while schedule is not None and _open_training(tx, row, schedule.every_rows, at_end):
        pass
    _send_training(tx, run)
    if not at_end or row.state != "active":
        return
    open_tasks = sa.select(tasks.c.id).where(tasks.c.run_id == run).limit(1)
    if tx.execute(open_tasks).first() is None:
        _end_round(tx, row, schedule)


def _end_round(tx: Transaction, row: sa.Row[Any], schedule: TrainSchedule | None) -> None:
    """Begin the run's next round; after the last one, or where there can be none, the run is done."""
    following, reason = row.round + 1, ""
    if schedule is not None and following < schedule.rounds:
        reason = _why_no_model(tx, row.id, row.round)
        if not reason and _begin_round(tx, row.id, following, schedule):
            return
        reason = reason or f"no item is left for round {following}"
    tx.execute(runs.update().where(runs.c.id == row.id).values(state="done", reason=reason[:1000]))


def _why_no_model(tx: Transaction, run: int, round_: int) -> str:
    """Say why a round has no model that the next could begin with; empty: it has one, and no training failed."""
    of_round = trainings.c.run_id == run, trainings.c.round == round_
    ended = tx.execute(sa.select(trainings).where(*of_round).order_by(trainings.c.window)).all()
    failed = [row for row in ended if row.state == "failed"]
    if failed:
        return f"round {round_} is the last, for a training of its failed: {failed[0].reason}"
    if any(row.model for row in ended):
        return ""
    return f"round {round_} is the last, for it made no model: {ended[-1].reason if ended else 'nothing was trained'}"


def _begin_round(tx: Transaction, run: int, round_: int, schedule: TrainSchedule) -> int:
    """Open the items of a round, none of which has failed before; how many they are."""
    due: sa.ColumnElement[bool] = items.c.state == "done"
    if schedule.round_items == "split":
        due = sa.and_(items.c.state == "waiting", items.c.round == round_)
    again = items.update().where(items.c.run_id == run, due)
    count = tx.execute(again.values(round=round_, state="unsampled", reason="", open_steps=0)).rowcount
    if count:
        tx.execute(runs.update().where(runs.c.id == run).values(round=round_, open_items=count))
    return count


def _open_training(tx: Transaction, row: sa.Row[Any], every: int, at_end: bool) -> bool:
    """Open the next training if it is due; each row goes to exactly one.

    It is due when a window is full, and at the run's end for the rows that are left, or to say that there are none.
    """
    run = row.id
    fresh = rows.c.run_id == run, rows.c.round == row.round, rows.c.window.is_(None)
    chosen = sa.select(rows.c.id).where(*fresh).order_by(rows.c.id).limit(every or None)
    size = tx.execute(sa.select(sa.func.count()).select_from(chosen.subquery())).scalar_one()
    past = sa.select(sa.func.count()).where(trainings.c.run_id == run, trainings.c.round == row.round)
    window = tx.execute(past).scalar_one()
    is_full = 0 < every == size
    if not (is_full or (at_end and (size or not window))):
        return False
    values = {"run_id": run, "round": row.round, "window": window, "state": "waiting", "rows": size}
    if not tx.add_new(trainings, values):
        return False
    tx.execute(rows.update().where(rows.c.id.in_(chosen)).values(window=window))
    return True


def _send_training(tx: Transaction, run: int) -> None:
    """Open the task of the first training that waits, unless one is open: each goes on from the model before it."""
    of_run = sa.select(trainings.c.round, trainings.c.window).where(trainings.c.run_id == run)
    waiting = of_run.where(trainings.c.state == "waiting").order_by(trainings.c.round, trainings.c.window)
    row = tx.execute(waiting.limit(1)).one_or_none()
    open_tasks = sa.select(tasks.c.id).where(tasks.c.run_id == run, tasks.c.queue == "train").limit(1)
    if row is None or tx.execute(open_tasks).first() is not None:
        return
    task = {"run_id": run, "item_id": 0, "round": row.round, "name": f"train.{row.window}", "queue": "train"}
    tx.execute(tasks.insert().values(state="ready", **task))


def reopen_trainings(tx: Transaction, run: int) -> int:
    """Have the trainings that failed wait for another try, the first of which is opened; how many."""
    failed = trainings.c.run_id == run, trainings.c.state == "failed"
    count = tx.execute(trainings.update().where(*failed).values(state="waiting", reason="", ended_at=None)).rowcount
    if count:
        _activate(tx, run)
        _send_training(tx, run)
    return count


def _activate(tx: Transaction, run: int, **more: Any) -> None:
    tx.execute(runs.update().where(runs.c.id == run).values(state="active", halt="", reason="", **more))


def set_training(tx: Transaction, task: Task, **values: Any) -> None:
    identity = trainings.c.run_id == task.run, trainings.c.round == task.round, trainings.c.window == window_of(task)
    tx.execute(trainings.update().where(*identity).values(**values))


def window_of(task: Task) -> int:
    return int(task.name.partition(".")[2])


def end_training(tx: Transaction, task: Task, **values: Any) -> bool:
    """End a training, however it ended: its state and reason stand in the `values`."""
    if not _end(tx, task):
        return False
    set_training(tx, task, **values)
    return True


def _reopen_unsampled(tx: Transaction, run: int) -> int:
    """Forget the responses that another try may bring, and have their items sampled again; what they have stands."""
    done = sa.select(items.c.id).where(items.c.run_id == run, items.c.state == "done")
    missing = responses.c.text.is_(None), responses.c.reason.not_in(_NO_OTHER_TRY), responses.c.item_id.in_(done)
    current = responses.c.round == sa.select(items.c.round).where(items.c.id == responses.c.item_id).scalar_subquery()
    forget = responses.delete().where(*missing, current).returning(responses.c.item_id)
    reopened = set(tx.execute(forget).scalars())
    for id_ in reopened:
        tx.execute(items.update().where(items.c.id == id_).values(state="unsampled", reason=""))
    return len(reopened)


def reopen_unscored(tx: Transaction, run: int, step_of: Mapping[str, str], steps: Mapping[str, str]) -> int:
    """Open the steps whose dimension left a response unscored, and from their beginning the items that failed or whose
    sampling did; how many items.

    step_of: dimension → name of its step; steps: name of a step → its queue.
    """
    unsampled = _reopen_unsampled(tx, run)
    done = items.c.run_id == run, items.c.state == "done"
    unscored = sa.select(scores.c.item_id, scores.c.dimension).join(items, items.c.id == scores.c.item_id)
    unscored = unscored.where(*done, scores.c.round == items.c.round, scores.c.state == "unscored").distinct()
    by_item: dict[int, dict[str, str]] = {}
    for row in tx.execute(unscored):
        name = step_of[row.dimension.partition("/")[0]]  # of a dimension with parts
        by_item.setdefault(row.item_id, {})[name] = steps[name]
    for id_, names in by_item.items():
        _open_tasks(tx, run, id_, names, was="done", state="judging")
    again = _reopen_failed(tx, run)
    count = unsampled + len(by_item) + again
    if count:
        _activate(tx, run, open_items=runs.c.open_items + count, series=runs.c.series + 1)
    return count


def _reopen_failed(tx: Transaction, run: int) -> int:
    """Start the items that failed from their beginning, in the round where the run is; how many."""
    round_ = tx.execute(sa.select(runs.c.round).where(runs.c.id == run)).scalar_one()
    failed = sa.select(items.c.id).where(items.c.run_id == run, items.c.state == "failed", items.c.reason != LEFT_OUT)
    ids = tx.execute(failed).scalars().all()
    for id_ in ids:
        texts = sa.select(responses.c.id).where(responses.c.item_id == id_, responses.c.round == round_)
        has_text = tx.execute(texts.where(responses.c.text.is_not(None)).limit(1)).first() is not None
        state = "unjudged" if has_text else "unsampled"
        tx.execute(items.update().where(items.c.id == id_).values(state=state, reason="", round=round_))
    return len(ids)
