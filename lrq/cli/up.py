"""lrq up: all processes of this machine."""

import signal
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import click

from lrq.cli.common import apply_settings, concurrency_option, with_concurrency
from lrq.cli.terminal import echo
from lrq.config import Settings, merge_flags
from lrq.domain.errors import UsageError
from lrq.ledger import open_ledger
from lrq.queue import broker
from lrq.workers.supervisor import PROCFILE, Supervisor, full_disk, unavailable_processes

_LOOK_SECONDS = 0.2


@click.command()
@click.option("--judges", type=click.IntRange(1), default=1, show_default=True, help="Judge processes.")
@click.option("--samplers", type=click.IntRange(1), default=1, show_default=True, help="Sampler processes.")
@click.option("--only", metavar="NAMES", help=f"Just these, by commas, of {', '.join(PROCFILE)}.")
@click.option("--quiet", "-q", is_flag=True, help="Do not show the processes' logs.")
@click.option("--config", type=click.Path(exists=True, dir_okay=False), help="Settings file instead of ./lrq.yaml.")
@click.option("--set", "flags", multiple=True, metavar="KEY=VALUE", help="A setting, e.g. judge.rpm=500; repeatable.")
@concurrency_option
def up(
    config: str | None,
    flags: tuple[str, ...],
    concurrency: int | None,
    judges: int,
    samplers: int,
    only: str | None,
    quiet: bool,
) -> int:
    """Start all processes that can run here and keep them running; their logs lie in LRQ_HOME/logs.

    Ctrl-C once: calls in flight are committed, then all ends, the broker last. Twice: at once.

    Example: lrq up --judges 2
    """
    settings = apply_settings(config, with_concurrency(merge_flags(flags), concurrency))
    names = _choose(settings, only)
    open_ledger(settings, create=True).close()
    supervisor = Supervisor(settings, names, {"judge": judges, "sampler": samplers})
    signals = _Signals(supervisor)
    lines = _Lines([child.log for child in supervisor.children])
    supervisor.start()
    echo(f"up: {', '.join(child.name for child in supervisor.children)}; Ctrl-C stops them")
    full = ""
    try:
        while not signals.count:
            full, before = full_disk(settings.home), full
            if full and not before:
                echo(full, err=True)
            for line in [*supervisor.poll(), *([] if quiet else lines.fresh())]:
                echo(line)
            time.sleep(_LOOK_SECONDS)
        echo("stopping: calls in flight are committed; Ctrl-C again ends all at once")
    finally:
        supervisor.stop()
    return 130 if signals.count > 1 else 0


def _choose(settings: Settings, only: str | None) -> list[str]:
    """Return the processes to start, the broker first; say which cannot run here."""
    reasons = unavailable_processes(settings)
    if only is None:
        for name, reason in reasons.items():
            if name != "redis":
                echo(f"without {name}: {reason}")
        return [name for name in PROCFILE if name not in reasons]
    chosen = [name.strip() for name in only.split(",") if name.strip()]
    for name in chosen:
        if name not in PROCFILE:
            raise UsageError(f"--only knows {', '.join(PROCFILE)}, not {name}")
        if name in reasons:
            raise UsageError(f"{name} cannot run here: {reasons[name]}")
    needed = {"redis"} if broker.is_embedded(settings) else set()
    return [name for name in PROCFILE if name in {*chosen, *needed}]


class _Signals:
    """Counts Ctrl-C and SIGTERM; the second one kills."""

    def __init__(self, supervisor: Supervisor) -> None:
        self.count = 0
        self._supervisor = supervisor
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._on_signal)

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self.count += 1
        if self.count > 1:
            self._supervisor.kill()


class _Lines:
    """Whole new lines of log files, each headed by its process's name."""

    def __init__(self, logs: list[Path]) -> None:
        self._read = {log: log.stat().st_size if log.exists() else 0 for log in logs}
        self._width = max((len(log.stem) for log in logs), default=0)

    def fresh(self) -> Iterator[str]:
        for log, offset in self._read.items():
            if not log.exists():
                continue
            begin = min(offset, log.stat().st_size)
            with log.open("rb") as file:
                file.seek(begin)
                lines = file.read(2**20).rpartition(b"\n")[0]
            self._read[log] = begin + len(lines) + bool(lines)
            for line in lines.decode("utf-8", "replace").splitlines():
                yield f"{log.stem:<{self._width}} | {line}"
