"""Flower as its own process, over a real broker and a real ledger."""

import asyncio
import base64
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest
import redis.asyncio
from celery import Celery

from lrq.calls.limiter import Lane, Limiter, Limits
from lrq.config import load_settings
from lrq.ledger import open_ledger
from lrq.ledger.runs import create_run
from lrq.ledger.schema import usage
from lrq.queue.celery import prefix_of

pytest.importorskip("flower")

PASSWORD = "pw-of-the-broker"
KEY = "sk-of-the-judge"
RUN = "cases <script>alert(1)</script>"
COMMAND = "import sys; from lrq.cli.flower import flower; flower(sys.argv[1:], standalone_mode=False)"


@pytest.fixture
def env(tmp_path: Path, redis_server: Any) -> dict[str, str]:
    """Settings of a user with a password on the broker, a key for the judge, and one run in the ledger."""
    with redis.Redis.from_url(redis_server.url) as client:
        client.execute_command("ACL", "SETUSER", "flower", "on", f">{PASSWORD}", "~*", "&*", "+@all")
    env = {name: value for name, value in os.environ.items() if not name.startswith(("LRQ_", "FLOWER_"))}
    env |= {
        "LRQ_HOME": str(tmp_path / "home"),
        "LRQ_REDIS_URL": redis_server.url.replace("unix://", f"unix://flower:{PASSWORD}@"),
        "LRQ_JUDGE_URL": "http://127.0.0.1:9/v1",
        "LRQ_JUDGE_MODEL": "glm<b>",
        "LRQ_JUDGE_API_KEY": KEY,
        "LRQ_JUDGE_RPM": "500",
    }
    fill(env)
    return env


def fill(env: dict[str, str]) -> None:
    ledger = open_ledger(load_settings(env=env), create=True)
    with ledger.write() as tx:
        run = create_run(tx, RUN, {"recipe": "longreward"})
        names = {"role": "judge", "endpoint": "default", "model": "glm<b>", "step": "faithfulness", "kind": "support"}
        counts = {"calls": 4321, "reused": 7, "prompt_tokens": 9000, "cached_tokens": 600, "cost": 1_250_000}
        row = {"run_id": run.id, **names, "dimension": "faithfulness", **counts}
        tx.execute(tx.insert(usage).values(**row))
    ledger.close()


class Door:
    """Asks a running Flower."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._open = urllib.request.build_opener(urllib.request.ProxyHandler({})).open

    def get(
        self, path: str, *, user: str = "", headers: dict[str, str] | None = None, method: str = "GET"
    ) -> tuple[int, str]:
        """Status and body."""
        login = {"Authorization": f"Basic {base64.b64encode(user.encode()).decode()}"} if user else {}
        request = urllib.request.Request(self.url + path, headers=login | (headers or {}), method=method)
        try:
            with self._open(request, timeout=20) as reply:
                return reply.status, reply.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def usage(self) -> dict[str, Any]:
        status, body = self.get("/api/judge/usage")
        assert status == 200, body
        return dict(orjson.loads(body))


@contextmanager
def flower(env: dict[str, str], *flags: str) -> Iterator[Door]:
    """A Flower process; it must end by SIGTERM with exit code 0."""
    command = [sys.executable, "-c", COMMAND, "--port", "0", *flags]
    process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert process.stdout is not None
        said = process.stdout.readline()
        found = re.search(r"http://\S+?:\d+\S*?(?=,)", said)
        assert found, said
        yield Door(found[0])
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.communicate()


def refused(env: dict[str, str], *flags: str) -> str:
    """What a Flower that does not start says last."""
    command = [sys.executable, "-c", COMMAND, *flags]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode != 0
    return done.stderr.strip().splitlines()[-1]


def until(holds: Callable[[], object], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def bus(env: dict[str, str]) -> tuple[Celery, str]:
    """An app on the same event bus, and what every key in Redis begins with."""
    ledger = open_ledger(load_settings(env=env))
    app = Celery(broker=load_settings(env=env).broker(), set_as_current=False)
    app.conf.broker_transport_options = {"global_keyprefix": prefix_of(ledger.id)}
    ledger.close()
    return app, prefix_of(ledger.id)


def test_the_page_shows_the_sums_of_the_ledger_and_the_rates_of_the_workers(env: dict[str, str]):
    """Sums are there at once; rates come with the workers' events."""
    app, _ = bus(env)
    told = [{"run": 1, "role": "judge", "endpoint": "default", "dimension": "faithfulness", "calls": 5}]
    with flower(env) as door, app.events.default_dispatcher(hostname="judge@here") as dispatcher:
        (row,) = door.usage()["usage"]
        assert (row["run"], row["calls"], row["reused"], row["cost"]) == (RUN, 4321, 7, 1.25)

        def rate() -> float:
            dispatcher.send("judge-usage", usage=told)
            return float(door.usage()["usage"][0]["calls_per_minute"])

        until(rate)
        until(lambda: door.usage()["curves"]["points"])
        curve = door.usage()["curves"]["points"][-1]
        _, page = door.get("/judge")
        _, metrics = door.get("/metrics")
    assert {"calls", "tokens", "cost", "latency_ms", "throttled"} <= curve.keys()
    assert "<script>alert(1)" not in page
    assert page.count('href="/judge"') == 1
    assert not re.search(
        r"""(src|href)=["']https?://(?!(flower\.readthedocs|github))""", page
    )  # nothing from elsewhere
    assert re.search(r'lrq_calls_total\{.*outcome="bought".*\} 4321\.0', metrics)
    assert re.search(r"flower_worker_online|flower_events_total", metrics)


async def test_the_page_shows_how_the_limits_stand(env: dict[str, str]):
    """As told by the settings, and as the limiter of all processes knows them once calls are made."""
    _, prefix = bus(env)
    client = redis.asyncio.Redis.from_url(env["LRQ_REDIS_URL"])
    limiter = Limiter(client, prefix, owner="someone")
    lane = Lane(name="judge.default.glm<b>", limits=Limits(rpm=480, concurrency=1))
    with flower(env) as door:
        (before,) = (await asyncio.to_thread(door.usage))["endpoints"]
        assert (before["rpm"], before["in_flight"], before["waiting"]) == (500, 0, 0)
        await limiter.acquire(lane, tokens=10, run=1, started=True)
        more = asyncio.create_task(limiter.acquire(lane, tokens=10, run=1, started=True))

        def waits() -> bool:
            (now,) = door.usage()["endpoints"]
            return (now["concurrency"], now["in_flight"], now["waiting"]) == (1, 1, 1)

        await asyncio.to_thread(until, waits)
        more.cancel()
        await asyncio.gather(more, return_exceptions=True)
        await limiter.close()
        await client.aclose()


def test_flower_shows_no_password_and_no_key(env: dict[str, str], tmp_path: Path):
    """Neither on its own pages, with a worker and its configuration on them, nor on ours."""
    name = "judge@here"
    command = [sys.executable, "-m", "celery", "-A", "lrq.queue", "worker", "-Q", "judge.faithfulness", "-n", name]
    with open(tmp_path / "worker.log", "wb") as log:
        worker = subprocess.Popen(command, env=env, stdout=log, stderr=log)
    try:
        with flower(env) as door:
            until(lambda: door.get(f"/worker/{name}")[0] == 200, 60)
            pages = {
                path: door.get(path) for path in ("/", f"/worker/{name}", "/tasks", "/broker", "/judge", "/metrics")
            }
            pages["/api/judge/usage"] = door.get("/api/judge/usage")
    finally:
        worker.terminate()
        worker.wait()
    assert {status for status, _ in pages.values()} == {200}
    for path, (_, body) in pages.items():
        assert PASSWORD not in body, path
        assert KEY not in body, path
    assert "redis+socket://flower:**@" in pages["/broker"][1]
    assert "broker_url" in pages[f"/worker/{name}"][1]  # its configuration is there, masked


def test_only_the_figures_are_open_without_a_password(env: dict[str, str]):
    """Flower's own API stays closed, and nobody is offered a button that would do something."""
    with flower(env) as door:
        assert door.url.startswith("http://127.0.0.1:")
        assert door.get("/api/workers")[0] == 401
        assert door.get("/api/judge/usage")[0] == 200


def test_a_password_guards_the_figures_too(env: dict[str, str]):
    """FLOWER_BASIC_AUTH is Flower's own switch; with it other machines may be let in, under a prefix as well."""
    env = env | {"FLOWER_BASIC_AUTH": "me:secret", "FLOWER_URL_PREFIX": "flower"}
    with flower(env, "--address", "0.0.0.0") as door:
        assert door.url.endswith("/flower")
        for path in ("/judge", "/judge/judge.js", "/api/judge/usage"):
            assert door.get(path)[0] == 401
            assert door.get(path, user="me:wrong")[0] == 401
            assert door.get(path, user="me:secret")[0] == 200


def test_a_ledger_that_cannot_be_read_is_said_on_the_page(env: dict[str, str]):
    """The page stays up and tells why its figures are old."""
    with flower(env) as door:
        assert door.usage()["error"] == ""
        ledger = open_ledger(load_settings(env=env))
        with ledger.write() as tx:
            usage.drop(tx.connection)
        ledger.close()
        until(lambda: "the ledger cannot be read" in door.usage()["error"])
        assert door.get("/judge")[0] == 200
        assert door.usage()["usage"][0]["calls"] == 4321
        assert "lrq_ledger_up 0.0" in door.get("/metrics")[1]


def test_what_cannot_be_served_is_refused_in_one_line(env: dict[str, str], tmp_path: Path):
    """Open doors, unreadable options, and a ledger that cannot be made."""
    assert "set FLOWER_BASIC_AUTH=user:password" in refused(env, "--address", "0.0.0.0")
    assert "a FLOWER_ variable cannot be read" in refused(env | {"FLOWER_PORT": "many"})
    (tmp_path / "file").touch()
    assert "File exists" in refused(env | {"LRQ_HOME": str(tmp_path / "file")})


def test_pages_of_other_sites_are_refused(env: dict[str, str]):
    """By name (DNS rebinding) on every path, and by origin wherever something is changed."""
    with flower(env, "--allow-host", "lab.example") as door:
        for path in ("/", "/judge", "/judge/judge.js", "/api/judge/usage", "/metrics", "/static/css/flower.css"):
            status, body = door.get(path, headers={"Host": "evil.example"})
            assert (status, "--allow-host" in body) == (403, True), path
        assert door.get("/judge", headers={"Host": "lab.example"})[0] == 200
        assert door.get("/api/workers", headers={"Origin": "http://evil.example"}, method="POST")[0] == 403


def test_a_redis_that_is_away_is_said(env: dict[str, str]):
    """The totals are shown all the same, and the limits as they are set."""
    with flower(env | {"LRQ_REDIS_URL": "unix:///nowhere/redis.sock"}) as door:
        shown = door.usage()
    assert shown["error"].startswith("Redis does not answer")
    assert (shown["endpoints"][0]["rpm"], shown["usage"][0]["calls"]) == (500, 4321)


def test_metrics_are_behind_the_login(env: dict[str, str]):
    with flower(env | {"FLOWER_BASIC_AUTH": "me:secret"}) as door:
        assert door.get("/metrics")[0] == 401
        status, body = door.get("/metrics", user="me:secret")
        assert (status, "lrq_calls_total" in body) == (200, True)
