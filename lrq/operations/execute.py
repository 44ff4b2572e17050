"""Work on a run until it ends, with the processes it needs."""

import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from threading import current_thread, main_thread
from typing import Protocol

from lrq.config import Settings
from lrq.domain.errors import LrqError
from lrq.domain.records import Role
from lrq.ledger import Ledger, backlog
from lrq.ledger import runs as runs_
from lrq.ledger.engine import explain
from lrq.ledger.runs import Run
from lrq.ledger.writer import AWAY
from lrq.queue import broker
from lrq.run_config import RunConfig, load_run_config
from lrq.workers.cases import load_case, roles_asked
from lrq.workers.supervisor import AlreadyUp, Supervisor, full_disk, is_up, running_processes, unavailable_processes

_POLL_SECONDS = 0.3
_LOOKED_AT = 20  # items whose prompts are looked at before anything is paid
_STOPS = (signal.SIGINT, signal.SIGTERM)  # the first stops orderly, a second one at once


class Display(Protocol):
    """Where a run's progress is shown."""

    def show(self, ledger: Ledger, run: Run) -> None:
        """Show how far `run` is; called three times a second, with the run as `ledger` has it just now."""

    def say(self, text: str) -> None:
        """Print a line."""

    def say_while(self, about: str, text: str) -> None:
        """Print `text` once for as long as there is one about this matter; an empty `text` says that it is over."""


class Silence:
    """A display that shows nothing."""

    def show(self, ledger: Ledger, run: Run) -> None:
        """Show nothing."""

    def say(self, text: str) -> None:
        """Say nothing."""

    def say_while(self, about: str, text: str) -> None:
        """Say nothing."""


def is_over(run: Run) -> bool:
    """Tell whether a run is at its end, or halted: `execute` stops there unless it is told otherwise."""
    return run.state != "active"


def execute(
    ledger: Ledger,
    settings: Settings,
    name: str,
    *,
    judges: int = 1,
    samplers: int = 1,
    display: Display | None = None,
    until: Callable[[Run], bool] = is_over,
) -> Run:
    """Work on a run until it is at an end or halted, with the processes of a running `up`, else with its own.

    Args:
        name: of the run.
        judges: judge processes that are started; with a running `up` none is.
        samplers: the same of samplers.
        display: where progress is shown; None: nowhere.
        until: ends the work where it is true of the run, asked three times a second.

    Returns the run as it was then. Raises KeyboardInterrupt after an orderly stop, LrqError where a process that the
    run needs cannot run here.
    """
    display = display or Silence()
    while not until(run := _run(ledger, name)):
        try:
            with _processes(ledger, settings, run, {"judge": judges, "sampler": samplers}, display) as poll:
                _wait(ledger, settings, name, poll, until, display)
        except (_Gone, AlreadyUp):
            continue
    return run


def _run(ledger: Ledger, name: str) -> Run:
    with ledger.read() as tx:
        return runs_.get_run(tx, name)


@contextmanager
def _processes(
    ledger: Ledger, settings: Settings, run: Run, counts: dict[str, int], display: Display
) -> Iterator[Callable[[], None]]:
    """Enter with what looks after the processes of a run, which end with the context if they were started in it."""
    needed = _needed(ledger, settings, run)
    up = running_processes(settings)
    if up is not None:
        for name in [name for name in needed if name not in up and name != "redis"]:
            display.say(f"what is up has no {name}, and the run waits for one: `lrq worker {name}` adds it")
        yield lambda: _check_up(settings)
        return
    check_able(ledger, settings, run, needed)
    supervisor = Supervisor(settings, needed, counts)
    supervisor.start()

    def poll() -> None:
        for line in supervisor.poll():
            display.say(line)
        if supervisor.failing:
            raise LrqError(supervisor.failing)

    with _stopping(supervisor):
        yield poll


@contextmanager
def _stopping(supervisor: Supervisor) -> Iterator[None]:
    """Stop the processes at the end; where signals can be handled, either interrupts and a second one kills."""
    if current_thread() is not main_thread():
        try:
            yield
        finally:
            supervisor.stop()
        return
    before = {number: signal.getsignal(number) for number in _STOPS}
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        for number in _STOPS:
            signal.signal(number, lambda *_: supervisor.kill())
        supervisor.stop()
        for number, handler in before.items():
            signal.signal(number, handler)


class _Gone(Exception):
    """The processes of another command, which we used, have ended."""


def _check_up(settings: Settings) -> None:
    if not is_up(settings):
        raise _Gone


def _needed(ledger: Ledger, settings: Settings, run: Run) -> list[str]:
    """Name the processes that this run needs, the broker first."""
    with ledger.read() as tx:
        states = runs_.item_states(tx, run.id)
    frozen = load_run_config(run.recipe, run.config)
    needed = ["judge", "aggregator"] if frozen.steps else ["aggregator"]
    if "judge" in needed and settings.scorer is not None:
        needed.append("scorer")
    schedule = frozen.schedule
    if states.get("unsampled") or states.get("sampling") or (schedule and schedule.rounds > 1):
        needed.append("sampler")
    if run.config["train"] is not None:
        needed.append("trainer")
    if broker.is_embedded(settings):
        needed.insert(0, "redis")
    return needed


def check_able(ledger: Ledger, settings: Settings, run: Run, needed: Sequence[str]) -> None:
    """Refuse a run that cannot be worked on here.

    Raises LrqError where one of the processes `needed` cannot run on this machine, or a judge or teacher is to be asked
    and none is named.
    """
    frozen = load_run_config(run.recipe, run.config)
    roles = _roles_asked(ledger, run, frozen)
    missing = unavailable_processes(settings, {"policy"} if "policy" in roles or not roles else roles)
    for name in needed:
        if name in missing:
            instead = "; or stop at the pairs with --no-train" if name == "trainer" else ""
            raise LrqError(f"this run needs a {name}, which cannot run here: {missing[name]}{instead}")
    if "teacher" in roles and not settings.endpoints("teacher"):
        raise LrqError(f"recipe {frozen.recipe.name} asks a teacher: set LRQ_TEACHER_URL and LRQ_TEACHER_MODEL")
    if frozen.needs_judge and not settings.endpoints("judge"):
        raise LrqError("no judge is named: set LRQ_JUDGE_URL and LRQ_JUDGE_MODEL (`lrq judge-sim` is an offline one)")


def _roles_asked(ledger: Ledger, run: Run, frozen: RunConfig) -> set[Role]:
    """Return who is to be asked the prompts of the run's next items."""
    with ledger.read() as tx:
        ids = backlog.first_unsampled(tx, run.id, _LOOKED_AT)
        cases = [load_case(tx, frozen, id_, run.round)[1] for id_ in ids]
    roles: set[Role] = set()
    for case in cases:
        with suppress(Exception):  # of a recipe of the user's own, on stand-ins: such failures are its items'
            roles |= roles_asked(frozen, case)
    return roles


def _wait(
    ledger: Ledger,
    settings: Settings,
    name: str,
    poll: Callable[[], None],
    until: Callable[[Run], bool],
    display: Display,
) -> None:
    """Wait until the run is where it is wanted, showing how far it is."""
    while True:
        poll()
        display.say_while("disk", full_disk(settings.home))
        try:
            run = _run(ledger, name)
            display.show(ledger, run)
        except AWAY as error:
            display.say_while("ledger", f"the ledger does not answer: {explain(error)}; waiting for it")
        else:
            display.say_while("ledger", "")
            if until(run):
                return
        time.sleep(_POLL_SECONDS)
