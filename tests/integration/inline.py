"""Whole runs in this process: commands are called, tasks are done in threads, the judge is a real server.

What Celery and the supervisor would do is left out: it has tests of its own and takes seconds for each run.
"""

import asyncio
import contextlib
import io
import json
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from ledgers import opened, sqlite_ledger

from lrq.cli import main
from lrq.config import Settings, load_settings
from lrq.ledger import Ledger, backlog
from lrq.ledger import runs as runs_
from lrq.queue.celery import use
from lrq.run_config import load_run_config
from lrq.sim.options import Options
from lrq.sim.server import Running, serve
from lrq.workers import loop, tasks

WINDOW = backlog.Window(tasks=256, sampling=64)


class Judge:
    """A judge-sim on a thread of its own."""

    def __init__(self, options: Options) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._context = serve(options)
        self.running: Running = self._run(self._context.__aenter__())
        self.url = self.running.url

    def _run(self, what: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(what, self._loop).result(20)

    def stats(self) -> dict[str, Any]:
        return self.running.stats()

    def close(self) -> None:
        self._run(self._context.__aexit__(None, None, None))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@dataclass
class Said:
    code: int
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out)


class World:
    """An LRQ_HOME, the commands in it, and the work that workers would do."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self.home = settings.home
        self.folder = folder

    def __call__(self, *words: object, code: int = 0, pairs: bool = False) -> Said:
        """Run a command as in a shell of its own; what it leaves to its children is there for `work`.

        pairs: items have to bring enough responses for one, as they have to for users.
        """
        if words[0] in {"enqueue", "estimate", "run"} and not pairs:
            words = (*words, "--scores-only")
        os.environ.pop("LRQ_CONFIG", None)
        os.environ["LRQ_OVERRIDES"] = "{}"
        out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2))
        with (
            pytest.raises(SystemExit) as ended,
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            main([str(word) for word in words])
        texts = [stream.buffer.getvalue().decode() for stream in (out, err)]  # type: ignore[attr-defined]
        said = Said(int(ended.value.code or 0), *texts)
        assert said.code == code, said
        return said

    @contextlib.contextmanager
    def ledger(self) -> Iterator[Ledger]:
        with opened(load_settings()) as ledger:
            yield ledger

    def work(self, run: str) -> None:
        """Do all there is to do for a run, in the order of its tasks."""
        use(load_settings())
        try:
            with self.ledger() as ledger, ThreadPoolExecutor(16) as pool:
                with ledger.write() as tx:
                    found = runs_.get_run(tx, run)
                    backlog.requeue_all(tx, found.id)
                while taken := self._take(ledger, found):
                    list(pool.map(lambda task: tasks.work(task.id, task.delivery), taken))
        finally:
            loop.close()
            loop.stopping.clear()

    def _take(self, ledger: Ledger, run: runs_.Run) -> list[backlog.Task]:
        with ledger.write() as tx:
            if runs_.get_run(tx, run.name).state != "active":
                return []
            backlog.start_items(tx, run.id, load_run_config(run.recipe, run.config).steps, WINDOW)
            return backlog.take_ready(tx, run.id, WINDOW)

    def run(self, file: Path, *words: object) -> dict[str, Any]:
        """Enqueue a file, work on it to its end, and return the run's facts."""
        name = words[words.index("--name") + 1] if "--name" in words else file.stem
        self("enqueue", file, "--no-train", *words)
        self.work(str(name))
        return self.status(str(name))

    def status(self, run: str) -> dict[str, Any]:
        return dict(self("status", run, "--json").json()["runs"][0])

    def scores(self, run: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self("export", run, "--format", "scores").out.splitlines()]

    def write(self, name: str, lines: list[dict[str, Any]]) -> Path:
        path = self.folder / f"{name}.jsonl"
        path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
        return path


@contextlib.contextmanager
def world(folder: Path, redis_url: str, judge: Judge, patch: pytest.MonkeyPatch) -> Iterator[World]:
    with sqlite_ledger(folder / "home") as settings:
        env = {"HOME": str(settings.home), "REDIS_URL": redis_url, "JUDGE_URL": judge.url, "JUDGE_MODEL": "judge-sim"}
        for name, value in env.items():
            patch.setenv(f"LRQ_{name}", value)
        patch.setenv("LRQ_OVERRIDES", "{}")  # commands set these two for their children; they go with the test
        patch.setenv("LRQ_CONFIG", "")
        patch.setenv("COLUMNS", "200")
        yield World(settings, folder)
