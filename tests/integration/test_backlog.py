"""The backlog on SQLite and PostgreSQL: what is open, what goes out, and effects that happen once."""

import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import sqlalchemy as sa
from ledgers import BOTH, opened, some_ledger

from lrq.config import TrainSchedule
from lrq.domain.errors import UsageError
from lrq.domain.records import Item, NoRow, Reward, Row, Score, Turn
from lrq.ledger import Ledger, backlog, intakes, runs
from lrq.ledger import items as items_
from lrq.ledger.backlog import ClaimTask, Task
from lrq.ledger.processes import Presence
from lrq.ledger.runs import Run
from lrq.ledger.schema import items, tasks
from lrq.ledger.schema import rows as rows_table
from lrq.ledger.steps import EndStep

STEPS = {"helpfulness": "judge.helpfulness", "logicality": "judge.logicality"}
STEP_OF = {name: name for name in STEPS}
WINDOW = 64
CONFIG = {"recipe": "longreward", "sample": {"responses": 2}}


PAIR = Row(turns=(Turn(prompt=0, chosen=(0, 1), rejected=(0, 0)),))


@pytest.fixture(params=BOTH)
def ledger(request: pytest.FixtureRequest, home: Path) -> Iterator[Ledger]:
    with some_ledger(request, home) as settings, opened(settings) as made:
        yield made


@pytest.fixture
def run(ledger: Ledger) -> Run:
    with ledger.write() as tx:
        return runs.create_run(tx, "r", CONFIG)


def add(ledger: Ledger, run: Run, count: int, *, given: int = 2, first: int = 1) -> None:
    batch = [
        (n, Item(id=f"i{n}", context="c", question="q"), [(k, f"answer {k}") for k in range(given)])
        for n in range(first, first + count)
    ]
    with ledger.write() as tx:
        items_.add_items(tx, run.id, batch)


def start(ledger: Ledger, run: Run, window: int = WINDOW) -> list[Task]:
    """Start what may be started and take it for sending."""
    with ledger.write() as tx:
        room = backlog.Window(tasks=window * len(STEPS), sampling=window)
        backlog.start_items(tx, run.id, STEPS, room)
        return backlog.take_ready(tx, run.id, room)


def scores(name: str, state: str = "value", count: int = 2) -> list[Score]:
    value = 5.0 if state == "value" else None
    return [Score(dimension=name, k=k, state=state, value=value, reason="why") for k in range(count)]  # type: ignore[arg-type]


def end_step(ledger: Ledger, task: Task, state: str = "value") -> bool:
    with ledger.write() as tx:
        return EndStep.apply(tx, [EndStep(task=task, found=scores(task.name, state))])[0]


def schedule(every: int | None) -> TrainSchedule | None:
    """Windows of so many rows, 0 for all in one; None for no training."""
    return None if every is None else TrainSchedule(every_rows=every)


def aggregate(ledger: Ledger, task: Task, made: Sequence[Row | NoRow], every: int | None = None) -> bool:
    rewards = [Reward(k=0, value=1.0), Reward(k=1, value=2.0)]
    with ledger.write() as tx:
        ended = backlog.end_aggregate(tx, task, rewards, made)
        backlog.advance_run(tx, task.run, schedule(every))
        return ended


def finish(ledger: Ledger, run: Run, every: int | None = None, state: str = "value") -> None:
    """Do all steps and aggregations that are open."""
    while taken := start(ledger, run):
        for task in taken:
            if task.name == "aggregate":
                aggregate(ledger, task, [PAIR], every)
            elif not task.name.startswith("train"):
                end_step(ledger, task, state)


def together(*work: Callable[[], object]) -> None:
    """Do all at the same time, each in a thread with connections of its own; raise what any raises."""
    ready, raised = threading.Barrier(len(work)), []

    def do(one: Callable[[], object]) -> None:
        ready.wait()
        try:
            one()
        except BaseException as error:
            raised.append(error)

    threads = [threading.Thread(target=do, args=(one,)) for one in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not raised, raised


def states(ledger: Ledger) -> dict[str, int]:
    with ledger.read() as tx:
        query = sa.select(items.c.state, sa.func.count().label("number")).group_by(items.c.state)
        return {row.state: row.number for row in tx.execute(query)}


def names(ledger: Ledger) -> list[str]:
    """Of the open tasks, in order."""
    with ledger.read() as tx:
        return list(tx.execute(sa.select(tasks.c.name).order_by(tasks.c.id)).scalars())


def state_of(ledger: Ledger) -> tuple[str, int]:
    with ledger.read() as tx:
        row = runs.get_run(tx, "r")
    return row.state, row.open_items


def test_two_dimensions_that_end_at_once_open_one_aggregation(ledger: Ledger, run: Run) -> None:
    """Sixty items, both steps of each ended at the same moment by two workers."""
    add(ledger, run, 60)
    taken = start(ledger, run, 200)
    by_step = {name: [task for task in taken if task.name == name] for name in STEPS}
    assert [len(found) for found in by_step.values()] == [60, 60]
    # In opposite orders now and then: a deadlock would be raised.
    together(*(lambda found=found: [end_step(ledger, task) for task in found] for found in by_step.values()))
    assert names(ledger) == ["aggregate"] * 60
    assert states(ledger) == {"aggregating": 60}


def test_a_step_that_is_ended_by_two_deliveries_at_once_counts_once(ledger: Ledger, run: Run) -> None:
    """Of two deliveries one writes; the other step is still waited for."""
    add(ledger, run, 20)
    found = [task for task in start(ledger, run) if task.name == "helpfulness"]
    won: list[bool] = []
    together(*(lambda: won.extend(end_step(ledger, task) for task in found) for _ in range(2)))
    assert sorted(won) == [False] * 20 + [True] * 20
    assert names(ledger) == ["logicality"] * 20
    assert states(ledger) == {"judging": 20}


def test_an_aggregation_delivered_twice_ends_its_item_once(ledger: Ledger, run: Run) -> None:
    """The run's count of open items goes down by one, and the first rows stand."""
    add(ledger, run, 2)
    for task in start(ledger, run):
        end_step(ledger, task)
    first, second = start(ledger, run)
    assert aggregate(ledger, first, [PAIR])
    assert not aggregate(ledger, first, [NoRow(reason="a late one")])
    assert state_of(ledger) == ("active", 1)
    assert aggregate(ledger, second, [NoRow(reason="all rewards are equal")])
    assert state_of(ledger) == ("done", 0)
    with ledger.read() as tx:
        assert items_.count_rows(tx, run.id) == 1
        assert runs.item_reasons(tx, run.id, "done") == {"": 1, "all rewards are equal": 1}


def test_two_feeders_at_once_start_each_item_once(ledger: Ledger, run: Run) -> None:
    """`enqueue` beside the leading feeder, and steps that end in between: no task twice, no item lost."""
    add(ledger, run, 80)
    taken: list[Task] = []
    lock = threading.Lock()

    def feed() -> None:
        for _ in range(12):
            found = start(ledger, run, 20)
            with lock:
                taken.extend(found)
            for task in found:
                if task.name in STEPS:
                    end_step(ledger, task)
                else:
                    aggregate(ledger, task, [NoRow(reason="none")])

    together(feed, feed, feed)
    finish(ledger, run)
    assert len({task.id for task in taken}) == len(taken)
    assert state_of(ledger) == ("done", 0)
    assert states(ledger) == {"done": 80}


def test_the_window_bounds_what_is_started_and_sent(ledger: Ledger, run: Run) -> None:
    """A thousand items, a window of five: ten tasks are out, until some end."""
    add(ledger, run, 1000)
    first = start(ledger, run, 5)
    assert len(first) == 10
    assert start(ledger, run, 5) == []
    assert states(ledger) == {"judging": 5, "unjudged": 995}
    for task in first:
        if task.item == 1:
            end_step(ledger, task)
    assert [task.name for task in start(ledger, run, 5)] == ["aggregate", "helpfulness", "logicality"]


def test_a_task_that_is_requeued_goes_out_again_as_the_next_delivery(ledger: Ledger, run: Run) -> None:
    """One whose end came meanwhile does not."""
    add(ledger, run, 1)
    first, second = start(ledger, run)
    end_step(ledger, first)
    with ledger.write() as tx:
        backlog.requeue(tx, [first.id, second.id])
    assert [(task.id, task.delivery) for task in start(ledger, run)] == [(second.id, 2)]
    with ledger.write() as tx:
        backlog.requeue_all(tx, run.id)
    assert [(task.id, task.delivery) for task in start(ledger, run)] == [(second.id, 3)]


def test_an_item_that_comes_without_responses_is_sampled_first(ledger: Ledger, run: Run) -> None:
    """Its responses are added with the end of the sampling; where there is none it goes on to its end."""
    add(ledger, run, 2, given=0)
    first, second = start(ledger, run)
    assert (first.name, first.queue) == ("sample", "sample")
    sampled = [{"k": k, "text": "t", "reason": "", "tokens": 1, "finish": "stop"} for k in range(2)]
    with ledger.write() as tx:
        items_.add_responses(tx, first.item, 0, 0, sampled)
        assert backlog.end_sample(tx, first, STEPS)
        assert not backlog.end_sample(tx, first, STEPS)
        assert backlog.end_sample(tx, second, STEPS)
    assert names(ledger) == ["helpfulness", "logicality", "aggregate"]


def test_what_failed_in_sampling_is_sampled_again(ledger: Ledger, run: Run) -> None:
    """One response is there, one server failed, one would be empty again: only the second is forgotten."""
    add(ledger, run, 1, given=0)
    (task,) = start(ledger, run)
    drawn = [("a\0b", ""), (None, "HTTP 500"), (None, "empty")]
    sampled = [
        {"k": k, "text": text, "reason": reason, "tokens": 1, "finish": "stop"}
        for k, (text, reason) in enumerate(drawn)
    ]
    with ledger.write() as tx:
        items_.add_responses(tx, task.item, 0, 0, sampled)
        backlog.end_sample(tx, task, STEPS)
    finish(ledger, run)
    assert state_of(ledger) == ("done", 0)
    with ledger.write() as tx:
        assert backlog.reopen_unscored(tx, run.id, STEP_OF, STEPS) == 1
        left = [(row.k, row.text) for row in items_.response_rows(tx, task.item, 0)]
    assert left == [(0, "a\ufffdb"), (2, None)]  # and NUL is nothing that PostgreSQL keeps
    assert [one.name for one in start(ledger, run)] == ["sample"]
    with ledger.write() as tx:
        assert backlog.reopen_unscored(tx, run.id, STEP_OF, STEPS) == 0


def test_an_unforeseen_error_is_tried_three_times_and_costs_one_item(ledger: Ledger, run: Run) -> None:
    """The third sets the item to failed with its reason; its other step ends without effect."""
    add(ledger, run, 2)
    taken = start(ledger, run)
    broken, sibling = (task for task in taken if task.item == 1)
    for _ in range(3):
        with ledger.write() as tx:
            backlog.fail_task(tx, broken, "ValueError: odd")
        broken = next((task for task in start(ledger, run) if task.id == broken.id), broken)
    assert states(ledger) == {"failed": 1, "judging": 1}
    assert state_of(ledger) == ("active", 1)
    assert not end_step(ledger, sibling)
    with ledger.write() as tx:
        backlog.fail_task(tx, broken, "once more")
    assert state_of(ledger) == ("active", 1)
    with ledger.read() as tx:
        assert runs.failures(tx, run) == [{"run": "r", "what": "item i1", "reason": "ValueError: odd"}]


def trainings(ledger: Ledger, run: Run) -> list[Task]:
    """The trainings whose tasks are open."""
    with ledger.read() as tx:
        open_tasks = sa.select(tasks).where(tasks.c.run_id == run.id, tasks.c.queue == "train")
        return [backlog._task(row) for row in tx.execute(open_tasks.order_by(tasks.c.id))]


def test_a_training_that_fails_leaves_the_others_alone(ledger: Ledger, run: Run) -> None:
    """Two windows are due; the first fails three times, and then comes the second."""
    add(ledger, run, 4)
    finish(ledger, run, every=2)
    for _ in range(3):
        (first,) = trainings(ledger, run)
        with ledger.write() as tx:
            backlog.fail_task(tx, first, "out of memory")
            backlog.advance_run(tx, run.id, schedule(2))
    (second,) = trainings(ledger, run)
    with ledger.write() as tx:
        assert backlog.end_training(tx, second, state="done")
        backlog.advance_run(tx, run.id, schedule(2))
        found = [(row.window, row.state, row.reason) for row in runs.trainings_of(tx, run.id)]
    assert found == [(0, "failed", "out of memory"), (1, "done", "")]
    assert state_of(ledger) == ("done", 0)


@pytest.mark.parametrize(
    ("rows", "every", "sizes"),
    [
        (6, 0, [6]),  # all in one
        (6, 2, [2, 2, 2]),
        (7, 3, [3, 3, 1]),  # the last holds the rest
        (2, 3, [2]),
        (0, 0, [0]),  # no row: a training that will say so
        (0, 3, [0]),
        (6, None, []),
    ],
)
def test_each_training_is_opened_once(ledger: Ledger, run: Run, rows: int, every: int | None, sizes: list[int]) -> None:
    """The last aggregations end at the same moment: one training per window all the same."""
    add(ledger, run, 8)
    for task in start(ledger, run):
        end_step(ledger, task)
    taken = start(ledger, run)
    made = [[PAIR] if n < rows else [NoRow(reason="tie")] for n in range(8)]
    halves = [list(zip(taken, made, strict=True))[part::2] for part in range(2)]
    together(
        *(lambda half=half: [aggregate(ledger, task, row, every) for task, row in half] for half in halves)  # type: ignore[misc]
    )
    with ledger.read() as tx:
        assert [row.rows for row in runs.trainings_of(tx, run.id)] == sizes
    assert names(ledger) == ["train.0"] * bool(sizes), "a window waits for the one before it"
    assert state_of(ledger) == ("active" if sizes else "done", 0)


def sizes(ledger: Ledger, run: Run) -> list[tuple[str, int]]:
    """State and number of rows of each training."""
    with ledger.read() as tx:
        return [(row.state, row.rows) for row in runs.trainings_of(tx, run.id)]


def train(ledger: Ledger, run: Run, every: int, state: str = "done") -> None:
    """Bring all trainings to this end, one after the other."""
    while open_trainings := trainings(ledger, run):
        (task,) = open_trainings
        with ledger.write() as tx:
            assert backlog.end_training(tx, task, state=state)
            backlog.advance_run(tx, run.id, schedule(every))


def trained(ledger: Ledger, run: Run) -> list[int]:
    """How many rows each window really has; -1 stands for none."""
    with ledger.read() as tx:
        query = sa.select(rows_table.c.window).where(rows_table.c.run_id == run.id)
        return sorted(-1 if window is None else window for window in tx.execute(query).scalars())


def test_the_last_training_and_the_last_item_may_end_at_once(ledger: Ledger, run: Run) -> None:
    """Neither sees the other's end before it is committed; the run is done all the same."""
    add(ledger, run, 2)
    for task in start(ledger, run):
        end_step(ledger, task)
    first, second = start(ledger, run)
    aggregate(ledger, first, [PAIR], 1)
    (training,) = start(ledger, run)
    ended = [threading.Event(), threading.Event()]

    def end_training() -> None:
        with ledger.write() as tx:
            assert backlog.end_training(tx, training, state="done")
            ended[0].set()
            ended[1].wait(1)  # on SQLite in vain: there the other waits for us
            backlog.advance_run(tx, run.id, schedule(1))

    def end_item() -> None:
        with ledger.write() as tx:
            assert backlog.end_aggregate(tx, second, [], [NoRow(reason="tie")])
            ended[1].set()
            ended[0].wait(1)
            backlog.advance_run(tx, run.id, schedule(1))

    together(end_training, end_item)
    assert state_of(ledger) == ("done", 0)


def test_rows_that_come_late_are_trained_once(ledger: Ledger, run: Run) -> None:
    """Windows of four over six rows, then three more: the next window has those three, and no row is left out."""
    add(ledger, run, 6)
    finish(ledger, run, 4)
    train(ledger, run, 4)
    add(ledger, run, 3, first=7)
    finish(ledger, run, 4)
    train(ledger, run, 4)
    assert sizes(ledger, run) == [("done", 4), ("done", 2), ("done", 3)]
    assert trained(ledger, run) == [0] * 4 + [1] * 2 + [2] * 3
    assert state_of(ledger) == ("done", 0)


def test_a_run_without_pairs_is_trained_once_it_is_repaired(ledger: Ledger, run: Run) -> None:
    """All was unscored, and the training said so; what is asked again brings pairs, and a training for them."""
    add(ledger, run, 2)
    for task in start(ledger, run):
        end_step(ledger, task, "unscored")
    for task in start(ledger, run):
        aggregate(ledger, task, [NoRow(reason="unscored")], 0)
    train(ledger, run, 0, "nothing")
    assert state_of(ledger) == ("done", 0)
    with ledger.write() as tx:
        assert backlog.reopen_unscored(tx, run.id, STEP_OF, STEPS) == 2
    finish(ledger, run, 0)
    assert sizes(ledger, run) == [("nothing", 0), ("waiting", 2)]


def test_a_failed_training_is_opened_again(ledger: Ledger, run: Run) -> None:
    """With the rows it had."""
    add(ledger, run, 2)
    finish(ledger, run, 0)
    train(ledger, run, 0, "failed")
    assert state_of(ledger) == ("done", 0)
    with ledger.write() as tx:
        assert backlog.reopen_trainings(tx, run.id) == 1
        backlog.advance_run(tx, run.id, schedule(0))
    assert names(ledger) == ["train.0"]
    assert state_of(ledger) == ("active", 0)
    train(ledger, run, 0)
    assert (sizes(ledger, run), state_of(ledger)) == ([("done", 2)], ("done", 0))


def test_a_run_whose_lines_are_still_being_added_is_not_at_its_end(ledger: Ledger, run: Run) -> None:
    """Its first items may be ready before its last line is read."""
    with ledger.write() as tx:
        runs.set_ingesting(tx, run.id, intakes.READING)
    add(ledger, run, 2)
    finish(ledger, run, every=0)
    assert names(ledger) == []
    assert state_of(ledger) == ("active", 0)
    with ledger.write() as tx:
        runs.set_ingesting(tx, run.id, intakes.WHOLE)
        backlog.advance_run(tx, run.id, schedule(0))
    assert names(ledger) == ["train.0"]


def test_new_lines_open_a_run_that_was_done(ledger: Ledger, run: Run) -> None:
    """A longer file: what is new is worked on, and only that."""
    add(ledger, run, 2)
    finish(ledger, run)
    assert state_of(ledger) == ("done", 0)
    add(ledger, run, 3)
    assert state_of(ledger) == ("active", 1)
    assert len(start(ledger, run)) == 2


def test_what_is_unscored_is_asked_again_in_a_new_series(ledger: Ledger, run: Run) -> None:
    """Only the step that left something unscored is opened; its scores replace the unscored and no others."""
    add(ledger, run, 2)
    for task in start(ledger, run):
        bad = task.name == "logicality" and task.item == 1
        end_step(ledger, task, "unscored" if bad else "value")
    finish(ledger, run)
    with ledger.write() as tx:
        assert backlog.reopen_unscored(tx, run.id, STEP_OF, STEPS) == 1
    assert state_of(ledger) == ("active", 1)
    with ledger.read() as tx:
        assert runs.get_run(tx, "r").series == 1
    (again,) = start(ledger, run)
    assert (again.name, again.item) == ("logicality", 1)
    with ledger.write() as tx:
        better = [Score(dimension="logicality", k=k, value=9.0) for k in range(2)]
        other = [Score(dimension="helpfulness", k=0, value=9.0)]
        assert EndStep.apply(tx, [EndStep(task=again, found=[*better, *other])]) == [True]
    finish(ledger, run)
    with ledger.read() as tx:
        found = {(score.dimension, score.k): score.value for score in items_.load_scores(tx, 1, 0)}
    assert found == {("helpfulness", 0): 5.0, ("helpfulness", 1): 5.0, ("logicality", 0): 9.0, ("logicality", 1): 9.0}
    assert state_of(ledger) == ("done", 0)


def test_a_failed_item_is_asked_again_from_its_beginning(ledger: Ledger, run: Run) -> None:
    """One step had unscored scores, another never ended: all its steps are opened, not the first alone."""
    add(ledger, run, 1)
    first, broken = start(ledger, run)
    end_step(ledger, first, "unscored")
    for _ in range(3):
        with ledger.write() as tx:
            backlog.fail_task(tx, broken, "odd")
    assert states(ledger) == {"failed": 1}
    with ledger.write() as tx:
        assert backlog.reopen_unscored(tx, run.id, STEP_OF, STEPS) == 1
    assert sorted(task.name for task in start(ledger, run)) == ["helpfulness", "logicality"]
    finish(ledger, run)


def test_other_settings_under_the_same_name_are_an_error_that_names_them(ledger: Ledger, run: Run) -> None:
    """The settings that differ stand in one line; new limits do not count among them and are set."""
    with ledger.write() as tx, pytest.raises(UsageError, match=r"sample\.responses") as differs:
        runs.create_run(tx, "r", CONFIG | {"sample": {"responses": 5}})
    assert "\n" not in str(differs.value)
    with ledger.write() as tx:
        runs.halt(tx, run.id, state="stopped", by="budget", reason="used up")
        again = runs.create_run(tx, "r", CONFIG, max_cost=7)
    assert (again.id, again.max_cost, again.state) == (run.id, 7, "active")


def test_two_processes_that_create_a_run_at_once_get_the_same_one(ledger: Ledger) -> None:
    """And one that asks for other settings is told so, however late it looks."""
    found: list[int] = []

    def create() -> None:
        with ledger.write() as tx:
            found.append(runs.create_run(tx, "new", {"recipe": "longreward"}).id)

    together(*[create] * 4)
    assert len(found) == 4
    assert len(set(found)) == 1


def test_a_message_sent_in_the_future_is_looked_for_too(ledger: Ledger, run: Run) -> None:
    """The clock was set back by an hour since it went out: it would not be missed for as long."""
    add(ledger, run, 1)
    first, second = start(ledger, run)
    with ledger.write() as tx:
        tx.execute(tasks.update().where(tasks.c.id == first.id).values(sent_at=tx.now() + 3600))
        assert backlog.waiting_tasks(tx, 3.0) == {first.queue: [(first.id, 1)]}
        tx.execute(tasks.update().where(tasks.c.id == second.id).values(sent_at=tx.now() - 4))
        assert backlog.waiting_tasks(tx, 3.0).keys() == {first.queue, second.queue}


def claim(ledger: Ledger, task: Task, owner: str) -> bool:
    with ledger.write() as tx:
        write = ClaimTask(task=task.id, delivery=task.delivery, owner=owner)
        return ClaimTask.apply(tx, [write]) != [None]


def test_of_two_deliveries_that_arrive_at_once_one_begins(ledger: Ledger, run: Run) -> None:
    """Also of the same process, in one batch of writes."""
    add(ledger, run, 1)
    first, second = start(ledger, run)
    begun: list[bool] = []
    together(*(lambda owner=owner: begun.append(claim(ledger, first, owner)) for owner in "abcd"))
    assert sorted(begun) == [False, False, False, True]
    write = ClaimTask(task=second.id, delivery=second.delivery, owner="a")
    with ledger.write() as tx:
        results = ClaimTask.apply(tx, [write, write])
    assert results == [second, None]
    assert start(ledger, run) == []


def test_a_delivery_that_is_not_the_latest_begins_nothing(ledger: Ledger, run: Run) -> None:
    """Its task was sent once more since: that message will be worked on."""
    add(ledger, run, 1)
    first, _ = start(ledger, run)
    with ledger.write() as tx:
        backlog.requeue(tx, [first.id])
    (again,) = start(ledger, run)
    assert not claim(ledger, first, "a")
    assert claim(ledger, again, "a")
    assert end_step(ledger, again)
    assert not claim(ledger, again, "a")


def test_the_tasks_of_dead_processes_go_out_again_and_those_of_the_living_stay(ledger: Ledger, run: Run) -> None:
    """A worker that comes back from the dead can neither give back nor fail what another has begun since."""
    add(ledger, run, 1)
    first, second = start(ledger, run)
    alive, dead = Presence(ledger, "judge"), Presence(ledger, "judge")
    assert claim(ledger, first, dead.id)
    assert claim(ledger, second, alive.id)
    with ledger.write() as tx:
        backlog.requeue_all(tx, run.id)
        assert backlog.release_dead_tasks(tx) == 0
    assert start(ledger, run) == []
    dead.close()
    with ledger.write() as tx:
        assert backlog.release_dead_tasks(tx) == 1
    (again,) = start(ledger, run)
    assert (again.id, again.delivery) == (first.id, 2)
    assert claim(ledger, again, alive.id)
    with ledger.write() as tx:
        backlog.release_task(tx, first.id, first.delivery, dead.id)
        backlog.fail_task(tx, first, "from beyond")
    assert start(ledger, run) == []
    with ledger.write() as tx:
        backlog.release_task(tx, again.id, again.delivery, alive.id)
    assert [task.delivery for task in start(ledger, run)] == [3]
    alive.close()
