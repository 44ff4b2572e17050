"""Keys and passwords of a run with everything in it that could let them slip: nowhere to be found afterwards."""

import asyncio
import base64
import json
import os
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import redis
from aiohttp import web
from calling import serving
from click.testing import CliRunner

from lrq.cli import _lrq
from lrq.config import Settings
from lrq.ledger import open_ledger, runs
from lrq.queue.broker import find_server

KEY = "sk-1f0e8d7c6b5a49382716"
REDIS_PASSWORD = "redis5f4dcc3b5aa765d6"
DATABASE_PASSWORD = "ledger8a7b6c5d4e3f2a1b"
SECRETS = (KEY, REDIS_PASSWORD, DATABASE_PASSWORD)

SAID = {  # what this judge says to each kind of prompt
    "helpfulness": "[[7]]",
    "logicality": "[[8]]",
    "statements": "<statement>The ship left.</statement>",
    "support": "[[Fully supported]]",
    "extraction": "- The ship left.",
    "completeness": "[[6]]",
}


class Judge:
    """Answers, and in every failure repeats the key it was given, as some servers do."""

    def __init__(self) -> None:
        self.number = 0
        self.refuses = False

    async def answer(self, request: web.Request) -> web.Response:
        if request.method == "GET":
            return web.json_response({"data": []})
        self.number += 1
        given = request.headers["Authorization"]
        assert given == f"Bearer {KEY}"
        error = {"error": {"message": f"we were given {given!r}", "code": given}}
        if self.refuses:
            return web.json_response(error, status=401)
        if self.number % 7 == 0:
            return web.json_response(error, status=500)
        if self.number % 11 == 0:
            return web.Response(text=f"<html>{given}</html>", status=200)
        if self.number % 13 == 0:
            return web.json_response(error, status=400)
        if self.number % 17 == 0:
            raise ConnectionResetError
        kind = (await request.json())["messages"][0]["content"].split("\n", 1)[0].removeprefix("Task: ")
        usage = {"prompt_tokens": 50, "completion_tokens": 5}
        choice = {"message": {"content": SAID[kind]}, "finish_reason": "stop"}
        return web.json_response({"choices": [choice], "usage": usage})


@contextmanager
def guarded_redis(folder: Path) -> Iterator[str]:
    """A server with a password that appends every write to a file; its URL."""
    folder.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ["--port", str(port), "--bind", "127.0.0.1", "--requirepass", REDIS_PASSWORD, "--appendonly", "yes"]
    process = subprocess.Popen(
        [find_server().path, *options, "--save", "", "--dir", str(folder)], stdout=subprocess.DEVNULL
    )
    try:
        url = f"redis://:{REDIS_PASSWORD}@127.0.0.1:{port}/0"
        with redis.Redis.from_url(url) as client:
            until(lambda: answers(client), 20)
        yield url
    finally:
        process.terminate()
        process.wait()


def answers(client: redis.Redis) -> bool:
    with suppress(redis.ConnectionError):
        return bool(client.ping())
    return False


def until(condition: Any, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.1)


class Place:
    """A home with its environment; what its processes and commands say is kept in files."""

    def __init__(self, folder: Path, **env: str) -> None:
        self.folder = folder
        self.env = {**os.environ, "LRQ_HOME": str(folder / "home"), "OMP_NUM_THREADS": "1", **env}
        self.workers: list[subprocess.Popen[bytes]] = []

    def _program(self, *arguments: str) -> list[str]:
        return [sys.executable, "-c", "from lrq.cli import main; main()", *arguments]

    def start(self, name: str) -> None:
        with (self.folder / f"{name}.log").open("wb") as log:
            command = self._program("worker", name, "--log-level", "DEBUG")
            self.workers.append(subprocess.Popen(command, env=self.env, stdout=log, stderr=log))

    def stop(self) -> None:
        for worker in self.workers:
            worker.terminate()
        for worker in self.workers:
            worker.wait(60)

    def run(self, *arguments: str) -> str:
        """What a command says, on both channels."""
        done = subprocess.run(
            self._program(*arguments), env=self.env, capture_output=True, text=True, timeout=120, check=False
        )
        return f"{' '.join(arguments)} → {done.returncode}\n{done.stdout}{done.stderr}"

    def invoke(self, *arguments: str, **env: str) -> str:
        """The same without a process; where it fails, its whole traceback."""
        done = CliRunner(env=self.env | env).invoke(_lrq, arguments)
        failed = "".join(traceback.format_exception(done.exception)) if done.exception else ""
        return f"{' '.join(arguments)}\n{done.output}{failed}"

    def state(self, run: str) -> str:
        ledger = open_ledger(Settings(home=self.folder / "home"))
        with ledger.read() as tx:
            found = runs.get_run(tx, run).state
        ledger.close()
        return found


def forms(secret: str) -> list[str]:
    """As it is, and as it looks within a longer text in base64, in which kombu keeps the bodies of messages."""
    found = [secret, secret.encode().hex()]
    for offset, unsure in enumerate((0, 2, 3)):  # characters that depend on what stands before it
        whole = base64.b64encode(b"-" * offset + secret.encode()).decode().rstrip("=")
        found.append(whole[unsure:-1])  # the last one depends on what comes after it
    return found


FORMS = {secret: forms(secret) for secret in SECRETS}


def leaks(found: str) -> set[str]:
    return {secret for secret, looks in FORMS.items() if any(look in found for look in looks)}


async def test_a_run_through_real_workers_leaves_no_secret_anywhere(tmp_path: Path) -> None:
    """Ledger, logs at DEBUG, broker data and events, commands and their tracebacks: not one of three secrets."""
    items = [
        {"id": f"i{n}", "context": "The ship left Bergen.", "question": f"Did {n} leave?", "responses": ["Yes.", "No."]}
        for n in range(4)
    ]
    dataset = tmp_path / "ships.jsonl"
    dataset.write_text("".join(json.dumps(item) + "\n" for item in items))
    judge = Judge()
    heard: list[str] = []
    with guarded_redis(tmp_path / "redis") as redis_url:
        async with serving(judge.answer) as url:
            place = Place(
                tmp_path,
                LRQ_REDIS_URL=redis_url,
                LRQ_JUDGE_URL=url,
                LRQ_JUDGE_MODEL="m",
                LRQ_JUDGE_API_KEY=KEY,
                OPENAI_API_KEY=f"{KEY}-openai",
            )
            ended = asyncio.Event()
            listening = asyncio.create_task(asyncio.to_thread(listen, redis_url, heard, ended))
            said = await asyncio.to_thread(work, place, dataset, judge)
            ended.set()
            await listening
    assert place.state("ships") == "done"
    assert place.state("refused") == "paused"
    assert any("celeryev" in text for text in heard)
    for text in said + heard:
        assert leaks(text) == set(), text
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {"ledger.db", "judge.log", "aggregator.log"} <= {path.name for path in files}
    assert any("aof" in path.name for path in files)
    for path in files:
        assert leaks(path.read_bytes().decode("latin-1")) == set(), path


def listen(url: str, heard: list[str], ended: asyncio.Event) -> None:
    """Keep whatever is published: task events, usage reports, remote control."""
    with redis.Redis.from_url(url) as client, client.pubsub() as channel:
        channel.psubscribe("*")
        while not ended.is_set():
            if message := channel.get_message(timeout=0.2):
                heard.append(str(message))


def work(place: Place, dataset: Path, judge: Judge) -> list[str]:
    """A run to its end among faults, one that the server refuses, and every way to ask what went wrong."""
    said = [place.run("enqueue", str(dataset), "--no-train", "--scores-only")]
    for name in ("judge", "aggregator"):
        place.start(name)
    try:
        until(lambda: place.state("ships") == "done", 120)
        judge.refuses = True
        said.append(
            place.run(
                "enqueue", str(dataset), "--no-train", "--scores-only", "--name", "refused", "--set", "judge.votes=2"
            )
        )
        until(lambda: place.state("refused") == "paused", 60)
        commands = (
            ["status", "--json"],
            ["status", "ships", "--failed", "--json"],
            ["show", "ships:i0", "--json"],
            ["show", "ships:i0", "--full"],
            ["doctor", "--json"],
            ["show", "nothing"],
        )
        said += [place.invoke(*command) for command in commands]
    finally:
        place.stop()
    database = f"postgresql+psycopg://lrq:{DATABASE_PASSWORD}@127.0.0.1:1/lrq"
    said.append(place.invoke("status", LRQ_DATABASE_URL=database))
    said.append(place.invoke("enqueue", str(dataset), LRQ_DATABASE_URL=f"nonsense://{DATABASE_PASSWORD}"))
    said.append(place.invoke("doctor", LRQ_REDIS_URL=f"redis://:{REDIS_PASSWORD}@127.0.0.1:1/0"))
    return said


@pytest.mark.parametrize("before", ["", "a", "ab", "abc"])
def test_the_search_finds_what_it_looks_for(before: str) -> None:
    """In plain text, among bytes, and within base64 at any place."""
    text = f"{before}{KEY}, and more"
    assert leaks(text) == {KEY}
    assert leaks((b"\xff\x00" + text.encode()).decode("latin-1")) == {KEY}
    assert leaks(base64.b64encode(text.encode()).decode()) == {KEY}
    assert leaks(base64.b64encode(b"nothing of the kind" * 9).decode()) == set()


def test_a_ledger_with_a_password_in_its_url_does_not_tell_it(postgres_url: str, home: Path) -> None:
    """A database that is there and takes any password: what it holds and what is said of it show none."""
    url = postgres_url.replace("lrq@", f"lrq:{DATABASE_PASSWORD}@")
    settings = Settings(home=home, database_url=url)  # type: ignore[arg-type]
    ledger = open_ledger(settings, create=True)
    with ledger.write() as tx:
        runs.create_run(tx, "r", {"recipe": "longreward", "train": None})
    assert leaks(f"{ledger.engine!r} {ledger.engine.url} {settings!r}") == set()
    ledger.close()
    place = Place(home, LRQ_DATABASE_URL=url)
    said = place.run("status", "--json")
    assert '"r"' in said
    assert leaks(said) == set()
